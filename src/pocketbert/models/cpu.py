"""Workarounds for PyTorch on CPUs: memory that is kept, faster dropout, and the faster of two libraries in fp32."""

from __future__ import annotations

import ctypes
import platform
import re
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
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20)):
            mallopt(parameter, value)


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
