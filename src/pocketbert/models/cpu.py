"""Workarounds for PyTorch on CPUs: memory that is kept, faster dropout and attention, and products in fp32."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pocketbert.machine import processor_description

# ── memory ──


def keep_freed_memory() -> None:
    """Keep what this process frees, as training asks for the same memory at every step.

    glibc returns blocks above 32 MB to the system at once, and what is free at the end of the heap. The system fills
    each page with zeros before it gives it back: 6 % of a step, above all for the gradient of the table of words.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)  # what the preparations of the run needed
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20)):
            libc.mallopt(parameter, value)


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of malloc.h

# ── dropout ──


def drop_out(x: Tensor, rate: float) -> Tensor:
    """`F.dropout`; on a CPU by 16 random bits per element, in a quarter of the time.

    PyTorch draws one number per element there, sequentially, which was an eighth of a training step. 16 bits
    make `rate` a multiple of 2⁻¹⁶, and the remaining elements are scaled by exactly that.
    """
    dropped = round(rate * 2**16)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < dropped < 2**16:
        return F.dropout(x, rate)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # None: up to the largest
    remaining = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
    return x * remaining.to(x.dtype).mul_(2**16 / (2**16 - dropped))


# ── argmax ──


def largest(scores: Tensor) -> Tensor:
    """`scores.argmax(-1)` without a gradient; on a CPU by NumPy, which takes an eighth of PyTorch's time."""
    if (
        scores.device.type != "cpu"
        or scores.dtype not in (torch.float32, torch.float64)
        or torch.compiler.is_compiling()
    ):
        return scores.argmax(-1)
    return torch.from_numpy(scores.detach().numpy().argmax(-1))


# ── attention ──

_SCORES = 6 << 17  # scores that are computed at once: 1.5 MB in bf16


class PackedAttention(Function):
    """Scaled dot-product attention of packed examples, a few at a time, so that their scores stay in a cache.

    Less than half the time of PyTorch's fused kernel with its derivative in bf16, and two thirds of that of separate
    products of all examples.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, lengths: Sequence[int]) -> Tensor:
        """Map three of [N, h·d], examples of these `lengths` end to end, to the context [N, h·d]."""
        context, weights = torch.empty_like(query), []
        for parts in _few_examples(lengths, heads):
            q, k, v = (parts.heads(x, heads) for x in (query, key, value))
            scores = _scaled_product(q, k.transpose(1, 2), q.size(-1) ** -0.5)
            weights.append(parts.hide(scores, heads).softmax(-1))
            parts.put(context, torch.bmm(weights[-1], v))
        ctx.save_for_backward(query, key, value, *weights)
        ctx.heads, ctx.lengths = heads, lengths
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Map the gradient [N, h·d] of the context to those of query, key and value."""
        query, key, value, *weights = ctx.saved_tensors
        grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for parts, p in zip(_few_examples(ctx.lengths, ctx.heads), weights, strict=True):
            q, k, v, g = (parts.heads(x, ctx.heads) for x in (query, key, value, grad))
            scale = q.size(-1) ** -0.5
            parts.put(grads[2], torch.bmm(p.transpose(1, 2), g))
            of_scores = torch._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), p, -1, p.dtype)
            parts.put(grads[0], _scaled_product(of_scores, k, scale))
            parts.put(grads[1], _scaled_product(of_scores.transpose(1, 2), q, scale))
        return *grads, None, None


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The products of two batches of matrices, times `scale`."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)


class _Examples:
    """Consecutive examples of a packed batch, beginning at a token; their heads are padded to one length."""

    def __init__(self, start: int, lengths: Sequence[int], longest: int) -> None:
        self.start, self.stop = start, start + sum(lengths)
        self.lengths, self.longest = list(lengths), longest
        self.full = min(lengths) == longest

    def heads(self, rows: Tensor, heads: int) -> Tensor:
        """The rows of these examples among all [N, h·d], as [examples · h, longest, d], zeros behind shorter ones."""
        rows, width = rows[self.start : self.stop], rows.size(-1)
        if not self.full:
            padded = rows.new_zeros(len(self.lengths), self.longest, width)
            torch._foreach_copy_(self._real(padded), list(rows.split(self.lengths)))
            rows = padded
        rows = rows.view(len(self.lengths), self.longest, heads, -1).transpose(1, 2)
        return rows.reshape(-1, self.longest, width // heads)

    def hide(self, scores: Tensor, heads: int) -> Tensor:
        """Make scores [examples · h, longest, longest] of padding so low that their softmax is zero."""
        if not self.full:
            for one, length in zip(scores.view(-1, heads, *scores.shape[1:]), self.lengths, strict=True):
                one[..., length:] = torch.finfo(scores.dtype).min / 2
        return scores

    def put(self, target: Tensor, heads: Tensor) -> None:
        """Write [examples · h, longest, d] into the rows of these examples in `target` [N, h·d]."""
        rows = heads.view(len(self.lengths), -1, *heads.shape[1:]).transpose(1, 2)  # [examples, longest, h, d]
        rows, target = rows.reshape(*rows.shape[:2], -1), target[self.start : self.stop]
        torch._foreach_copy_(list(target.split(self.lengths)), self._real(rows))

    def _real(self, padded: Tensor) -> list[Tensor]:
        """The tokens of each example in [examples, longest, …]."""
        return [one[:length] for one, length in zip(padded, self.lengths, strict=True)]


def _few_examples(lengths: Sequence[int], heads: int) -> Iterator[_Examples]:
    """The examples in groups of at most `_SCORES` scores, or of one; all padded alike, as every shape is compiled."""
    longest, start = max(lengths), 0
    count = max(1, _SCORES // (heads * longest**2))
    for first in range(0, len(lengths), count):
        examples = _Examples(start, lengths[first : first + count], longest)
        yield examples
        start = examples.stop


# ── linear layers ──


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, [..., I] to [..., O] with `weight` [O, I]; in fp32, on AMD's processors since Zen 5, by oneDNN.

    PyTorch gives products in fp32 to MKL, which uses AVX-512 on Intel's processors alone: on an EPYC of Zen 5 it takes
    more than twice as long as oneDNN. On those before, whose units are no wider than AVX2, it is the faster, by 5 to
    25 % of a training step on Zen 4, mostly in the gradients of weights.
    """
    if not _for_onednn(x, weight):
        return F.linear(x, weight, bias)
    product = _OneDnnLinear.apply if torch.is_grad_enabled() else _onednn_product
    return product(x.reshape(-1, x.size(-1)), weight, bias).view(*x.shape[:-1], weight.size(0))


def _for_onednn(x: Tensor, weight: Tensor) -> bool:
    return bool(
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # compilers and exporters know F.linear
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
        and "AVX512" in torch.backends.cpu.get_cpu_capability()
        and half_used_by_mkl(processor_description())
        and x.numel() > 0
    )


def half_used_by_mkl(processor: str) -> bool:
    """Whether a processor, as Linux or Windows describes it, is AMD's and has units of 512 bits: of Zen 5 or later."""
    family = re.search(r"\bfamily\s*:?\s*(\d+)", processor, re.IGNORECASE)
    return "AuthenticAMD" in processor and family is not None and int(family[1]) >= 26


def _onednn_product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out


class _OneDnnLinear(Function):
    """`F.linear` on rows [N, I]; all three products are oneDNN's, which reads transposed matrices where they are."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _onednn_product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        grad = grad.contiguous()
        return (
            _onednn_product(grad, weight.t(), None) if ctx.needs_input_grad[0] else None,
            _onednn_product(grad.t(), rows.t(), None) if ctx.needs_input_grad[1] else None,
            grad.sum(0) if ctx.needs_input_grad[2] else None,
        )


# ── block-diagonal products ──


def _nhwc(rows: Tensor) -> Tensor:
    """View [N, C] as an image of N pixels, [1, C, N, 1], whose memory is channels-last: nothing is copied."""
    return rows.view(1, -1, 1, rows.size(-1)).permute(0, 3, 1, 2)


def nhwc_product(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """[N, C] by the block-diagonal matrix of `weight` [C', C/G], plus `bias` [C']: [N, C'].

    As a channels-last convolution, which oneDNN runs twice as fast as a batched product.
    """
    out = F.conv2d(_nhwc(rows.contiguous()), weight[..., None, None], bias, groups=groups)  # [1, C', N, 1]
    return out.permute(0, 2, 3, 1).reshape(rows.size(0), -1)


def nhwc_input_gradient(grad: Tensor, rows: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The gradient of `rows` [N, C], of which only the shape matters, from that of the product, `grad` [N, C']."""
    whole: Tensor = torch.ops.aten.convolution_backward(
        _nhwc(grad), _nhwc(rows.contiguous()), weight[..., None, None], None,
        [1, 1], [0, 0], [1, 1], False, [0, 0], groups, [True, False, False],
    )[0]  # fmt: skip
    return whole.permute(0, 2, 3, 1).reshape(rows.shape)


def block_weight_gradient(grad: Tensor, rows: Tensor, groups: int) -> Tensor:
    """The gradient [C', C/G] of a block-diagonal matrix: a product for each group, as bmm copies strided bf16.

    The derivative of the convolution has a third of the speed of a batched product.
    """
    pairs = zip(grad.chunk(groups, 1), rows.chunk(groups, 1), strict=True)
    return torch.cat([g.t() @ x for g, x in pairs])
