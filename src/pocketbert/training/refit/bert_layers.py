"""The parts of a layer that is built as BERT's, under BERT's names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pocketbert.errors import ConfigError
from pocketbert.models.init_from_teacher import common_name
from pocketbert.models.ops import ACTIVATIONS, Activation, Packing, attend
from pocketbert.models.pretrained import EncoderModel


@dataclass(frozen=True)
class BertLayer:
    """The parts of one layer of a model, under BERT's names."""

    name: str
    heads: int
    activation: Activation
    query: nn.Module
    key: nn.Module
    value: nn.Module
    attention_output: nn.Module
    attention_norm: nn.Module
    intermediate: nn.Module
    output: nn.Module
    output_norm: nn.Module

    def attention(self, x: Tensor, packing: Packing) -> Tensor:
        """Return the context of all heads: [1, N, H] to [1, N, H]."""
        return attend(self.query(x), self.key(x), self.value(x), self.heads, packing, 0.0, False)[0]

    def units(self, x: Tensor) -> Tensor:
        """Return the units after the activation: [1, N, H] to [1, N, I]."""
        return self.activation(self.intermediate(x))

    def after_attention(self, x: Tensor, packing: Packing) -> Tensor:
        """Map [1, N, H] to [1, N, H]: the first half of the layer."""
        normed: Tensor = self.attention_norm(self.attention_output(self.attention(x, packing)) + x)
        return normed

    def after_units(self, x: Tensor) -> Tensor:
        """Map [1, N, H] to [1, N, H]: the second half of the layer."""
        normed: Tensor = self.output_norm(self.output(self.units(x)) + x)
        return normed


_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}


def bert_layers(model: EncoderModel) -> list[BertLayer]:
    """Return the layers of a model.

    Raises:
        ConfigError: they are not BERT's.
    """
    if type(model).shared_by_layers is not EncoderModel.shared_by_layers:
        name = type(model).__name__
        raise ConfigError(
            f"--init refit needs layers whose only input is hidden states, and those of a {name} have more"
        )
    modules = {
        common_name(name, model).removesuffix(".weight"): model.get_submodule(name.removesuffix(".weight"))
        for name, _ in model.named_parameters()
        if name.endswith(".weight")
    }
    layers = []
    for i in range(model.config.num_hidden_layers):
        parts = {part: modules.get(f"encoder.layer.{i}.{name}") for part, name in _PARTS.items()}
        if model.family.refit is not None or None in parts.values():
            raise ConfigError(f"--init refit reads layers of BERT or SqueezeBERT, not of {type(model).__name__}")
        config = model.config
        layers.append(
            BertLayer(f"layer {i + 1}", config.num_attention_heads, ACTIVATIONS[config.hidden_act], **parts)  # type: ignore[arg-type]
        )
    return layers


def groups_of(module: nn.Module) -> int:
    """Return the number of groups of a linear layer."""
    return int(getattr(module, "groups", 1))


def bias_of(module: nn.Module) -> Tensor:
    """Return the bias of a linear layer or a norm."""
    assert isinstance(module.bias, Tensor)
    return module.bias


def full_weight(module: nn.Module) -> Tensor:
    """Return the whole matrix [M, K] of a linear layer, with zeros outside the blocks of groups; of a norm its gain."""
    weight, groups = module.weight, groups_of(module)
    assert isinstance(weight, Tensor)
    if groups == 1:
        return weight.flatten(1) if weight.ndim > 1 else weight
    return torch.block_diag(*weight.flatten(1).unflatten(0, (groups, -1)))
