"""Models as other engines get them: transformers' own, and SqueezeBERT rewritten so that they can run it faster.

This is for measuring alone: PyTorch and transformers are imported where a graph is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pocketbert.bench.subjects import Subject

if TYPE_CHECKING:
    from torch import Tensor, nn

Form = Literal["stock", "split", "batched"]  # of SqueezeBERT's grouped convolutions
NAMES = ("input_ids", "attention_mask")


def transformers_model(subject: Subject) -> Any:
    """The model of transformers with the subject's weights, as `from_pretrained` would make it."""
    import torch
    import transformers

    family = subject.family
    config = getattr(transformers, f"{family.name}Config").from_dict(subject.config.to_dict())
    model = getattr(transformers, f"{family.name}Model")(config)
    tensors = {name: torch.from_numpy(np.array(tensor)) for name, tensor in subject.tensors.items()}
    # Not strict: a subject has the tensors that a plan reads, so a pooler may be missing, and then is not measured.
    lacking = model.load_state_dict(tensors, strict=False)
    assert not lacking.unexpected_keys, lacking.unexpected_keys
    return model.eval()


def export_onnx(subject: Subject, form: Form, path: Path) -> None:
    """Write ids and mask → hidden states, for any batch and length.

    The exporter that traces is older than the one that compiles; its graphs are smaller, run as fast or faster in both
    engines, and take a quarter of the time to make.
    """
    import torch

    # Explicit products and softmax, which the optimisers of both engines look for.
    model = transformers_model(subject)
    if form != "stock":
        model = token_major(model, form)
    elif model._supports_sdpa:  # otherwise its products are explicit anyway
        model.set_attn_implementation("eager")
    ids = torch.ones(2, 16, dtype=torch.int64)
    axes = {name: {0: "batch", 1: "length"} for name in (*NAMES, "hidden")}
    with torch.inference_mode(), quiet():
        torch.onnx.export(
            hidden_states_of(model), (ids, ids), str(path), input_names=list(NAMES), output_names=["hidden"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip


def hidden_states_of(model: nn.Module) -> nn.Module:
    """A module of ids and mask by position that returns one tensor."""
    from torch import nn

    class HiddenStates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]

    return HiddenStates().eval()


def token_major(model: Any, form: Form) -> nn.Module:
    """Rewrite transformers' SqueezeBERT so that hidden states stay [batch, tokens, width].

    A grouped convolution becomes one matrix product per group, their results joined ("split"), or one batched product
    ("batched"). Engines pack the matrices of the former, and find no convolutions that they run badly in either.
    """
    import torch
    from torch import nn

    class Split(nn.Module):
        def __init__(self, conv: nn.Conv1d) -> None:
            super().__init__()
            blocks = zip(conv.weight[:, :, 0].chunk(conv.groups), _bias(conv).chunk(conv.groups), strict=True)
            self.parts = nn.ModuleList(_linear(weight, bias) for weight, bias in blocks)

        def forward(self, x: Tensor) -> Tensor:
            parts = x.chunk(len(self.parts), dim=-1)
            products = [part(piece) for part, piece in zip(self.parts, parts, strict=True)]
            return torch.cat(products, dim=-1) if len(products) > 1 else products[0]

    class Batched(nn.Module):
        def __init__(self, conv: nn.Conv1d) -> None:
            super().__init__()
            blocks = conv.weight[:, :, 0].unflatten(0, (conv.groups, -1)).transpose(1, 2)  # [G, C/G, C'/G]
            self.weight = nn.Parameter(blocks.contiguous())
            self.bias = nn.Parameter(_bias(conv).clone())

        def forward(self, x: Tensor) -> Tensor:
            groups = self.weight.size(0)
            rows = x.flatten(0, 1).unflatten(-1, (groups, -1)).transpose(0, 1)  # [G, N, C/G]
            products = (rows @ self.weight).transpose(0, 1)
            return products.reshape(x.size(0), x.size(1), -1) + self.bias

    def product(conv: nn.Conv1d) -> nn.Module:
        if conv.groups == 1:
            return _linear(conv.weight[:, :, 0], _bias(conv))
        return Split(conv) if form == "split" else Batched(conv)

    class Layer(nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            attention = layer.attention
            self.query, self.key, self.value = (product(getattr(attention, n)) for n in ("query", "key", "value"))
            self.post_attention = product(layer.post_attention.conv1d)
            self.intermediate = product(layer.intermediate.conv1d)
            self.output = product(layer.output.conv1d)
            self.first_norm = _norm(layer.post_attention.layernorm)
            self.second_norm = _norm(layer.output.layernorm)
            self.activation, self.heads = layer.intermediate.act, attention.num_attention_heads

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            parts = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv())
            query, key, value = parts  # [B, h, S, d]
            scores = query @ key.transpose(-1, -2) * query.size(-1) ** -0.5
            context = ((scores + mask).softmax(-1) @ value).transpose(1, 2).flatten(-2)
            x = self.first_norm(self.post_attention(context) + x)
            return self.second_norm(self.output(self.activation(self.intermediate(x))) + x)

        def qkv(self) -> tuple[nn.Module, nn.Module, nn.Module]:
            return self.query, self.key, self.value

    class TokenMajor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = model.embeddings
            self.layers = nn.ModuleList(Layer(layer) for layer in model.encoder.layers)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
            x = self.embeddings(input_ids=input_ids)
            mask = (attention_mask[:, None, None, :].to(x.dtype) - 1) * 1e4
            for layer in self.layers:
                x = layer(x, mask)
            return (x,)

    with torch.no_grad():
        return TokenMajor().eval()


def _bias(conv: nn.Conv1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    from torch import nn

    linear = nn.Linear(weight.size(1), weight.size(0))
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    return linear


def _norm(channels_first: nn.LayerNorm) -> nn.LayerNorm:
    """The same norm over the last axis: transformers' is over the second."""
    from torch import nn

    norm = nn.LayerNorm(channels_first.normalized_shape[-1], channels_first.eps)
    norm.load_state_dict(channels_first.state_dict())
    return norm


@contextmanager
def quiet() -> Iterator[None]:
    """Without the remarks of exporters and quantisers: warnings, logs, bars and lines on standard output."""
    import contextlib
    import io
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
