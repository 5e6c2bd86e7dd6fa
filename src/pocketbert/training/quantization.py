"""Quantisation-aware training: a MobileBERT that is rounded while it learns, as an engine of whole numbers rounds it.

Such an engine keeps every activation in 8 bits, by one scale for all tokens. What is rounded here is what the
published recipe names (google-research/mobilebert), with gradients that pass straight through (Jacob et al. 2018,
https://arxiv.org/abs/1712.05877):

- weights of linear layers, symmetrically, by a scale an output channel;
- what linear layers read, norms say and attention computes, in ranges that follow each batch's by moving averages.

What a mask hides has the score `LEAST`, no less: -10,000 would leave nothing of 8 bits to the others.
The recipe has ranges begin at ±6 and half a million steps to find theirs. Fine-tuning has a few thousand, so
here they begin at the first batch's, and move fast while they are young.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.configs import MobileBertConfig, PreTrainedConfig
from pocketbert.errors import ConfigError
from pocketbert.models.cpu import drop_out
from pocketbert.models.mobilebert import MobileBertSelfAttention
from pocketbert.models.ops import NoNorm, wide_linear

DECAY = 0.999  # of the moving averages, as published; of young ones (1 + n) / (10 + n) after n batches, if that is less
LEAST = -16.0  # published: -6, of which many add up; beside 0 this has no weight in 8 bits
PROBABILITY = 1 / 256  # the step of what a softmax says, as LiteRT fixes it


def bounded(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration with ReLU6 in place of ReLU, as that of the published model for 8 bits.

    Raises:
        ConfigError: the model is no MobileBERT without norms, for which the recipe is.
    """
    if not isinstance(config, MobileBertConfig) or config.normalization_type != "no_norm":
        raise ConfigError("--quantization-aware is for MobileBERT with normalization_type='no_norm' alone")
    return config.replace(hidden_act="relu6") if config.hidden_act == "relu" else config


class Range(nn.Module):
    """The range of an activation, in which it is rounded to 256 levels, one of which is 0."""

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))
        self.register_buffer("batches", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Round `x`, of any shape; in training, follow it first."""
        if self.training:
            with torch.no_grad():
                self._follow(x.float())
        scale = ((self.high - self.low) / 255).clamp_min(torch.finfo(torch.float32).tiny)
        zero = (-128 - self.low / scale).round().clamp(-128, 127).int()
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, -128, 127).to(x.dtype)

    def _follow(self, x: Tensor) -> None:
        # All on the device: nothing waits for a GPU.
        decay = torch.where(self.batches == 0, 0.0, ((1 + self.batches) / (10 + self.batches)).clamp_max(DECAY))
        self.low.lerp_(x.min().clamp_max(0.0), 1 - decay)
        self.high.lerp_(x.max().clamp_min(0.0), 1 - decay)
        self.batches += 1


def round_weight(weight: Tensor) -> Tensor:
    """A matrix [out, in] in 255 levels a row, symmetric about 0."""
    scales = (weight.detach().abs().amax(1).float() / 127).clamp_min(torch.finfo(torch.float32).tiny)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight.float(), scales, zeros, 0, -127, 127).to(weight.dtype)


def make_quantization_aware(model: nn.Module) -> nn.ModuleDict:
    """Round a MobileBERT from now on, in training and out of it.

    Its parameters keep their names and stay exact, so what it saves is an ordinary checkpoint.

    Returns:
        The ranges, which an objective has to own, that they are part of its state.
    """
    ranges = nn.ModuleDict()

    def new(name: str) -> Range:
        ranges[name.replace(".", "/")] = Range()
        return ranges[name.replace(".", "/")]  # type: ignore[return-value]

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            _replace_forward(module, _linear)
            if name.endswith("output.dense"):  # it reads attention, or an activation; all others read norms
                module.register_forward_pre_hook(partial(_round_input, new(f"{name}.input")))
        elif isinstance(module, (NoNorm, nn.Embedding)):
            module.register_forward_hook(partial(_round_output, new(name)))
        elif isinstance(module, MobileBertSelfAttention):
            parts = {part: new(f"{name}.{part}") for part in ("query", "key", "value", "scores")}
            _replace_forward(module, _attention, parts)
    return ranges


def _replace_forward(module: nn.Module, function: Callable[..., Any], *arguments: Any) -> None:
    """Of this one module: what it holds, and its name, stay as they are."""
    module.__dict__["forward"] = partial(function, module, *arguments)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, round_weight(layer.weight), layer.bias)


def _round_input(to: Range, _: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    return to(inputs[0])


def _round_output(to: Range, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return to(output)


def _attention(
    layer: MobileBertSelfAttention,
    ranges: Mapping[str, Callable[[Tensor], Tensor]],
    query_key: Tensor,
    value: Tensor,
    keep: Tensor | None,
    with_weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """As `MobileBertSelfAttention.forward`, step by step, each rounded."""
    q, k, v = (
        ranges[name](wide_linear(getattr(layer, name), x)).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for name, x in (("query", query_key), ("key", query_key), ("value", value))
    )  # [B, h, S, d]
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))  # [B, h, S, S]
    if keep is not None:
        scores = scores.masked_fill(~keep, LEAST)
    exact = ranges["scores"](scores).softmax(-1)
    weights = torch.fake_quantize_per_tensor_affine(exact.float(), PROBABILITY, -128, -128, 127).to(exact.dtype)
    context = drop_out(weights, layer.dropout if layer.training else 0.0) @ v
    return context.transpose(1, 2).flatten(-2), weights if with_weights else None  # [B, S, h·d]
