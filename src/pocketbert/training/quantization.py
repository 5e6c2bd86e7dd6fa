"""Quantization-aware training: fake quantization of a MobileBERT, for engines that compute in integers only.

Such an engine keeps every activation in 8 bits, with one scale for all tokens. Quantized are, as in the published
recipe (google-research/mobilebert) and with straight-through gradients (Jacob et al. 2018,
https://arxiv.org/abs/1712.05877):

- weights of linear layers, symmetrically, with one scale per output channel;
- inputs of linear layers, outputs of norms and all steps of attention, in ranges that are moving averages over batches.

Masked positions have the score `LEAST`, not less: -10,000 would take the whole range of 8 bits.
The recipe starts ranges at ±6 and has half a million steps to adapt them. Fine-tuning has a few thousand, so here
ranges start with the first batch, and adapt fast at first.
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

DECAY = 0.999  # of the moving averages, as published; at first (1 + n) / (10 + n) after n batches, if that is less
LEAST = -16.0  # published: -6, of which many add up; next to 0 this has no weight in 8 bits
PROBABILITY = 1 / 256  # step of the outputs of softmax, which LiteRT fixes


def bounded(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration with ReLU6 in place of ReLU, as in the published 8-bit model.

    Raises:
        ConfigError: the model is not a MobileBERT without norms.
    """
    if not isinstance(config, MobileBertConfig) or config.normalization_type != "no_norm":
        raise ConfigError("--quantization-aware is only for MobileBERT with normalization_type='no_norm'")
    return config.replace(hidden_act="relu6") if config.hidden_act == "relu" else config


class Range(nn.Module):
    """The range of an activation, which is quantized to 256 levels, one of which is 0."""

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))
        self.register_buffer("batches", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Quantize `x`, of any shape; in training, adapt the range first."""
        if self.training:
            with torch.no_grad():
                self._adapt(x.float())
        scale = ((self.high - self.low) / 255).clamp_min(torch.finfo(torch.float32).tiny)
        zero = (-128 - self.low / scale).round().clamp(-128, 127).int()
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, -128, 127).to(x.dtype)

    def _adapt(self, x: Tensor) -> None:
        # All on the device, without waiting for a GPU.
        decay = torch.where(self.batches == 0, 0.0, ((1 + self.batches) / (10 + self.batches)).clamp_max(DECAY))
        self.low.lerp_(x.min().clamp_max(0.0), 1 - decay)
        self.high.lerp_(x.max().clamp_min(0.0), 1 - decay)
        self.batches += 1


def round_weight(weight: Tensor) -> Tensor:
    """Return a matrix [out, in] quantized to 255 levels per row, symmetric about 0."""
    scales = (weight.detach().abs().amax(1).float() / 127).clamp_min(torch.finfo(torch.float32).tiny)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight.float(), scales, zeros, 0, -127, 127).to(weight.dtype)


def make_quantization_aware(model: nn.Module) -> nn.ModuleDict:
    """Quantize a MobileBERT from now on, in training and in evaluation.

    Its parameters keep their names and their precision, so that it saves ordinary checkpoints.

    Returns:
        The ranges; an objective must own them, so that they are part of its state.
    """
    ranges = nn.ModuleDict()

    def new(name: str) -> Range:
        ranges[name.replace(".", "/")] = Range()
        return ranges[name.replace(".", "/")]  # type: ignore[return-value]

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            _replace_forward(module, _linear)
            if name.endswith("output.dense"):  # its input is attention or an activation; those of all others are norms
                module.register_forward_pre_hook(partial(_round_input, new(f"{name}.input")))
        elif isinstance(module, (NoNorm, nn.Embedding)):
            module.register_forward_hook(partial(_round_output, new(name)))
        elif isinstance(module, MobileBertSelfAttention):
            parts = {part: new(f"{name}.{part}") for part in ("query", "key", "value", "scores")}
            _replace_forward(module, _attention, parts)
    return ranges


def _replace_forward(module: nn.Module, function: Callable[..., Any], *arguments: Any) -> None:
    """Replace the function of one module, which keeps its parameters and its name."""
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
    """Return the same as `MobileBertSelfAttention.forward`, with every step quantized."""
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
