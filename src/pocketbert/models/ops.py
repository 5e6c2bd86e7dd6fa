"""The few operations and layers that are the same in all models.

Shapes: B batch, S sequence, H hidden, h heads, d width of a head (H = h·d).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.errors import InputError
from pocketbert.families.config import NORMAL_EPS
from pocketbert.models import bf16
from pocketbert.models.cpu import PackedAttention, drop_out, linear

Activation = Callable[[Tensor], Tensor]


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


#: By the names that `configs.ACTIVATIONS` allows; "gelu" is the exact erf form.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True, eq=False)
class Packing:
    """Examples laid end to end in a batch of one row: nothing is padded, except inside attention.

    It takes the place of an `attention_mask`; position ids count from 0 in each example.
    """

    starts: Tensor
    """[examples + 1] where each example starts, and the number of tokens."""
    places: Tensor
    """[tokens] the position of each token in the padded examples, laid end to end."""
    real: Tensor
    """[examples, longest] whether a position of the padded examples is a token."""
    full: bool
    """Whether all examples have the same length."""

    @staticmethod
    def of(starts: Tensor, longest: int) -> Packing:
        """The packing of examples that begin at `starts`, of which none is longer than `longest`."""
        real = torch.arange(longest, device=starts.device) < starts.diff()[:, None]
        return Packing(starts, real.view(-1).nonzero()[:, 0], real, real.numel() == int(starts[-1]))

    @cached_property
    def lengths(self) -> list[int]:
        """The length of each example."""
        lengths: list[int] = self.starts.diff().tolist()
        return lengths

    def pad(self, rows: Tensor) -> Tensor:
        """[1, tokens, width] to [examples, longest, width], zeros behind the examples."""
        if not self.full:
            rows = rows.new_zeros(self.real.numel(), rows.size(-1)).index_copy(0, self.places, rows[0])
        return rows.view(*self.real.shape, rows.size(-1))

    def lay(self, padded: Tensor) -> Tensor:
        """[examples, longest, width] to [1, tokens, width]."""
        rows = padded.reshape(1, -1, padded.size(-1))
        return rows if self.full else rows[:, self.places]


def keep_mask(attention_mask: Tensor) -> Tensor:
    """Turn a mask of [B, S], [B, S, S] or [B, 1|h, 1|S, S] (nonzero: attend) into a boolean one of four axes."""
    keep = attention_mask.bool()
    if keep.dim() == 2:
        return keep[:, None, None, :]
    return keep[:, None] if keep.dim() == 3 else keep


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    keep: Tensor | Packing | None,
    dropout: float,
    with_weights: bool,
    position_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention over heads.

    Args:
        query: [B, S, h·d].
        key: [B, S, h·d].
        value: [B, S, h·d].
        heads: h.
        keep: boolean mask as `keep_mask` returns it, None to attend everywhere, or the packing of [1, tokens, h·d].
        dropout: rate on the probabilities; 0 outside training.
        with_weights: compute the probabilities explicitly and return them, instead of the fused kernel.
        position_bias: [h, S, S], added to the scores of every example; of a packed batch, S is the longest.

    Returns:
        The context [B, S, h·d], and the probabilities [B, h, S, S] (before dropout) or None; for a packed batch those
        of the padded examples.
    """
    in_pass = not with_weights and position_bias is None and query.dtype == torch.bfloat16 and bf16.applies(query)
    if in_pass and (examples := _examples(query, keep)) is not None:
        return bf16.attention(query, key, value, heads, *examples, dropout), None
    if isinstance(keep, Packing):
        trains_in_bf16 = query.dtype == torch.bfloat16 and query.device.type == "cpu" and torch.is_grad_enabled()
        if trains_in_bf16 and dropout == 0 and not with_weights and not torch.compiler.is_compiling():
            rows = (x.flatten(0, 1) for x in (query, key, value))
            context: Tensor = PackedAttention.apply(*rows, heads, keep.lengths)  # type: ignore[no-untyped-call]
            return context[None], None
        mask = None if keep.full else keep_mask(keep.real)
        padded = (keep.pad(query), keep.pad(key), keep.pad(value))
        context, weights = attend(*padded, heads, mask, dropout, with_weights, position_bias)
        return keep.lay(context), weights
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))  # [B, h, S, d]
    bias = None
    if keep is not None:
        # Half the lowest number: a score added to it stays finite in fp16 too, and exp() of it is still zero.
        lowest = torch.finfo(q.dtype).min / 2
        bias = torch.zeros_like(keep, dtype=q.dtype).masked_fill_(~keep, lowest)
    if position_bias is not None:
        bias = position_bias if bias is None else bias + position_bias
    weights = None
    # On a CPU, the derivative of the fused kernel takes five times as long in bf16 as that of its parts. With dropout
    # there is no fused kernel.
    slow = q.device.type == "cpu" and (dropout > 0 or (q.dtype == torch.bfloat16 and torch.is_grad_enabled()))
    if with_weights or slow:
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))  # [B, h, S, S]
        weights = (scores if bias is None else scores + bias).softmax(-1)
        context = drop_out(weights, dropout) @ v
    else:
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    return context.transpose(1, 2).flatten(-2), weights if with_weights else None  # [B, S, h·d]


def attend_to_itself(
    query: nn.Module, key: nn.Module, value: nn.Module, x: Tensor, heads: int, keep: Tensor | Packing | None,
    dropout: float, with_weights: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """`attend` with the queries, keys and values that three linear layers make of `x` [B, S, H]."""
    layers = (query, key, value)
    groups: set[int] = {getattr(layer, "groups", 1) for layer in layers}
    one = x.dtype == torch.bfloat16 and len(groups) == 1 and all(heads % count == 0 for count in groups)
    if one and not with_weights and _in_passes(x, *layers) and (examples := _examples(x, keep)) is not None:
        weights: list[Any] = [layer.weight for layer in layers]
        biases: list[Any] = [layer.bias for layer in layers]
        return bf16.self_attention(x, weights, biases, groups.pop(), heads, *examples, dropout), None
    return attend(query(x), key(x), value(x), heads, keep, dropout, with_weights)


def _examples(query: Tensor, keep: Tensor | Packing | None) -> tuple[list[int], list[int]] | None:
    """Where each example starts among the rows of [B, S, H], and how many keys it has; None if not its first tokens."""
    if isinstance(keep, Packing):
        return keep.starts.tolist(), keep.lengths
    batch, length, _ = query.shape
    starts = list(range(0, batch * length + 1, length))
    if keep is None:
        return starts, [length] * batch
    if keep.shape != (batch, 1, 1, length):
        return None
    real = keep[:, 0, 0]
    counts = real.sum(-1)
    if not torch.equal(real, torch.arange(length) < counts[:, None]) or int(counts.min()) == 0:
        return None
    return starts, counts.tolist()


# ── layers ──


class Dropout(nn.Dropout):
    """Dropout that computes as `drop_out` does."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [...] to [...]."""
        return drop_out(x, self.p) if self.training else x


class Linear(nn.Linear):
    """A linear layer that computes as `linear` does."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., I] to [..., O]."""
        if bf16.applies(x) and self.weight.dtype == torch.float32:
            return bf16.product(x, self.weight, self.bias)
        return linear(x, self.weight, self.bias)

    def product(self, x: Tensor) -> Tensor:
        """Map [..., I] to [..., O] in bf16, without the bias."""
        return bf16.product(x, self.weight)


def wide_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply `layer` to activations that may be wider than its weights: fp16 weights compute in fp32.

    MobileBERT's residual stream reaches 2.5e7 in the published weights and fp16 ends at 65,504, so layers that
    read or write the stream must not compute in fp16. bf16 has the range of fp32 and needs no such care.
    """
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if torch.float16 not in (layer.weight.dtype, autocast):
        return layer(x.to(layer.weight.dtype) if autocast is None else x)
    with torch.autocast(device, enabled=False):
        return linear(x.float(), layer.weight.float(), None if layer.bias is None else layer.bias.float())


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in the precision of its input, which may be wider than its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., width] to the same shape and type."""
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class NoNorm(nn.Module):
    """An elementwise affine map in place of a normalisation: x·weight + bias (MobileBERT, section 3.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., width] to the same shape."""
        return x * self.weight + self.bias


def activate(dense: nn.Module, activation: Activation, x: Tensor) -> Tensor:
    """activation(dense(x)), [..., I] to [..., O]."""
    name = _PASSES.get(activation)
    if name is not None and _in_passes(x, dense):
        return bf16.activated(dense.product(x), dense.bias, name)  # type: ignore[operator, arg-type]
    return activation(dense(x))


def add_norm(
    dense: nn.Module, norm: nn.Module, x: Tensor, residual: Tensor | None, dropout: nn.Dropout | None = None,
    *, wide: bool = False,
) -> Tensor:  # fmt: skip
    """norm(dropout(dense(x)) + residual), [..., I] and [..., O] to [..., O]; `wide` as `wide_linear` is."""
    if type(norm) in (LayerNorm, NoNorm) and _in_passes(x, dense, norm):
        rate = dropout.p if dropout is not None and dropout.training else 0.0
        eps = norm.eps if isinstance(norm, nn.LayerNorm) else None
        return bf16.normed(dense.product(x), dense.bias, residual, norm.weight, norm.bias, eps, rate)  # type: ignore[operator, arg-type]
    out: Tensor = wide_linear(dense, x) if wide else dense(x)  # type: ignore[arg-type]
    if dropout is not None:
        out = dropout(out)
    return norm(out if residual is None else out + residual)


#: The activations that have a pass of their own in bf16.
_PASSES: dict[Activation, str] = {F.gelu: "gelu", F.relu: "relu"}


def _in_passes(x: Tensor, dense: nn.Module, *norms: nn.Module) -> bool:
    """Whether these modules compute in `bf16`: with weights in fp32, and as they are, without hooks."""
    return (
        hasattr(dense, "product")
        and bf16.applies(x)
        and all(
            module.weight.dtype == torch.float32
            and not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
            for module in (dense, *norms)
        )
    )


class WordTable(nn.Module):
    """A matrix with one column per word, [width, V]: the transpose of a linear layer's weight, as published."""

    def __init__(self, width: int, words: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, words))


class FirstToken(nn.Module):
    """The pooler of families without one: the first token's hidden state, [B, S, H] to [B, H].

    Args:
        normalized: give it mean 0 and variance 1.
    """

    def __init__(self, normalized: bool = False) -> None:
        super().__init__()
        self.normalized = normalized

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [B, S, H] to [B, H]."""
        return _normal(hidden[:, 0]) if self.normalized else hidden[:, 0]


class MeanToken(nn.Module):
    """What a classifier of mean vectors has in place of a pooler: [B, S, H] or a row of packed examples to [B, H].

    Args:
        normalized: give the mean vector mean 0 and variance 1.
    """

    def __init__(self, normalized: bool = False) -> None:
        super().__init__()
        self.normalized = normalized

    def forward(self, hidden: Tensor, mask: Tensor | Packing | None) -> Tensor:
        """Map [B, S, H] to [B, H]: the mean over the tokens that a mask [B, S] or a packing leaves."""
        mean = self._mean(hidden, mask)
        return _normal(mean) if self.normalized else mean

    @staticmethod
    def _mean(hidden: Tensor, mask: Tensor | Packing | None) -> Tensor:
        if isinstance(mask, Packing):
            hidden, mask = mask.pad(hidden), mask.real
        if mask is None:
            return hidden.mean(1)
        if mask.dim() != 2:
            raise InputError(f"a mean of tokens needs an attention_mask [B, S], not {list(mask.shape)}")
        weights = mask.bool()[..., None]  # [B, S, 1]
        return hidden.where(weights, 0).sum(1) / weights.sum(1).clamp(min=1)


def _normal(vectors: Tensor) -> Tensor:
    return F.layer_norm(vectors, vectors.shape[-1:], eps=NORMAL_EPS)


def init_parameters(model: nn.Module, std: float, names: set[str] | None = None) -> None:
    """Draw fresh parameters, of all `model` or of the full names given.

    | parameter | value |
    |---|---|
    | bias | 0 |
    | weight of a norm | 1 |
    | weight of a linear layer, convolution or embedding | normal(0, std) |
    | an embedding's row for padding | 0 |
    """
    with torch.no_grad():
        for prefix, module in model.named_modules():
            for name, parameter in module.named_parameters(prefix, recurse=False):
                if names is not None and name not in names:
                    continue
                if name.endswith("bias"):
                    parameter.zero_()
                elif isinstance(module, (nn.LayerNorm, NoNorm)):
                    parameter.fill_(1.0)
                else:
                    parameter.normal_(0.0, std)
                    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                        parameter[module.padding_idx].zero_()
