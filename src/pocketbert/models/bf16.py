"""Training in bf16 on a CPU: what lies between the products of a step, in passes of the native core.

Products with AMX take so little time that what surrounds them was most of a step: PyTorch has an operation, forward
and back, for each conversion, bias, dropout, sum, norm and activation, and each reads and writes its operands. Here
they are three passes: `attention`, `activated` and `normed`. Activations stay in bf16 from product to product, and sums
are fp32. The layers in `ops` take these passes where `applies` is true, and otherwise compute as they are written.

Shapes: N rows, one per token; W width.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

from pocketbert.models.cpu import block_weight_gradient, nhwc_input_gradient, nhwc_product

#: The activations that have a pass.
ACTIVATIONS = ("gelu", "relu")

# oneDNN, and PyTorch's own layer above it, keep up to 1,024 products per kind, with working memory that grows with the
# number of rows. Batches at true lengths hardly ever have the same number: a run on texts of up to 384 tokens had 7 GB
# after 400 steps, one of up to 512 had 14. A step has some 30 different products, and the next layer repeats them. Both
# read the environment at their first product.
os.environ.setdefault("LRU_CACHE_CAPACITY", "16")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


def applies(x: Tensor) -> bool:
    """Whether a step trains in bf16 on a CPU whose kernels have passes of their own."""
    return (
        x.device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.compiler.is_compiling()
        and x.numel() > 0
        and is_there()
    )


def is_there() -> bool:
    """Whether the core has passes for this processor."""
    return _training() is not None


def narrow(x: Tensor) -> Tensor:
    """`x` in bf16 where products read it so, without a conversion for each of them."""
    return x.to(torch.bfloat16) if applies(x) else x


# ── the core ──


@cache
def _training() -> int | None:
    """The passes of the kernels that compute here, or None without any."""
    from pocketbert.runtime import core
    from pocketbert.runtime.engine import chosen_kernels, native_core

    if native_core() is None:
        return None
    return core.find_training(chosen_kernels() or core.available_kernels()[0])


@cache
def _parallel() -> int | None:
    """The address of the function that runs PyTorch's threads, where it has those of GNU's OpenMP."""
    function = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if os.name == "posix" else None
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


def team() -> Any:
    """The threads of PyTorch, for the core."""
    return _core().Team(_training(), _parallel(), torch.get_num_threads())


@cache
def _core() -> Any:
    from pocketbert.runtime import core

    return core


def _run(name: str, kind: str, **fields: Any) -> None:
    """Run a pass; tensors, which are contiguous, by their addresses."""
    core = _core()
    one = getattr(core, kind)()
    for key, value in fields.items():
        if value is not None:
            setattr(one, key, _address(value))
    core.train(name, team(), one)


def _address(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.data_ptr()
    return ctypes.addressof(value) if isinstance(value, ctypes.Array) else value


def _drawn(rate: float) -> dict[str, int]:
    """How many of 2¹⁶ numbers dropout leaves out, and a seed, which continues PyTorch's random numbers."""
    dropped = min(round(rate * 2**16), 2**16 - 1)
    return {"dropped": dropped, "seed": int(torch.empty((), dtype=torch.int64).random_()) if dropped else 0}


# ── weights ──

#: Of weights that products read: their version and place when they were converted, and what came of it.
_copies: WeakIdKeyDictionary = WeakIdKeyDictionary()


def copy_of(weight: Tensor) -> Tensor:
    """A weight in bf16, converted again only when it has changed; a change through `.data` is not seen."""
    found = _copies.get(weight)
    state = weight._version, weight.data_ptr()
    if found is None or found[0] != state:
        with torch.no_grad():
            copy = weight.to(torch.bfloat16)
        _copies[weight] = found = state, copy
    return found[1]


def step(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], means: Sequence[Tensor], squares: Sequence[Tensor],
    **numbers: float,
) -> None:  # fmt: skip
    """A step of AdamW on contiguous tensors in fp32, and on the copies of these weights in bf16.

    Args:
        weights: changed in place.
        gradients: of these.
        means: the first moments.
        squares: the second moments.
        **numbers: rate, decay, beta1, beta2, eps, correction1, correction2, and the scale of the gradients.
    """
    copies = [_copies[weight][1] if weight in _copies else None for weight in weights]
    fields = {
        "gradients": _addresses(gradients), "weights": _addresses(weights), "means": _addresses(means),
        "squares": _addresses(squares), "copies": _addresses(copies),
    }  # fmt: skip
    _run("adamw", "AdamwPass", count=len(weights), sizes=_sizes(weights), **fields, **numbers)
    changed = [tensor for tensor in (*weights, *means, *squares, *copies) if tensor is not None]
    torch.autograd.graph.increment_version(changed)
    for weight, copy in zip(weights, copies, strict=True):
        if copy is not None:
            _copies[weight] = (weight._version, weight.data_ptr()), copy


def norm(gradients: Sequence[Tensor]) -> float:
    """The norm of all numbers of contiguous tensors in fp32."""
    core = _core()
    sizes, addresses = _sizes(gradients), _addresses(gradients)
    one = core.AdamwPass(count=len(gradients), sizes=_address(sizes), gradients=_address(addresses))
    return float(core.square_sum(team(), one) ** 0.5)


def _addresses(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(None if one is None else one.data_ptr() for one in tensors))


def _sizes(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_int64 * len(tensors))(*(one.numel() for one in tensors))


# ── products ──


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """[..., I] in any precision by `weight` [O, I/groups], block-diagonal of that, in bf16: [..., O]."""
    rows = x.to(torch.bfloat16).reshape(-1, x.size(-1))
    out: Tensor = _Product.apply(rows, weight, bias, groups)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], weight.size(0))


class _Product(Function):
    """Rows [N, I] by a matrix, which is converted once; [O, I/groups, 1] is a matrix as well."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        matrix = copy_of(weight).view(len(weight), -1)
        ctx.save_for_backward(rows, matrix)
        ctx.groups, ctx.shape = groups, weight.shape
        return _multiply(rows, matrix, bias, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        rows, matrix = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grad_rows, grad_matrix = _gradients(grad.contiguous(), rows, matrix, ctx.groups, wanted[0], wanted[1])
        grad_weight = None if grad_matrix is None else grad_matrix.view(ctx.shape)
        return grad_rows, grad_weight, grad.sum(0).float() if wanted[2] else None, None


def _multiply(rows: Tensor, matrix: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    if bias is not None:
        bias = bias.to(torch.bfloat16)
    if groups > 1:
        return nhwc_product(rows, matrix, bias, groups)
    if bias is None:
        return rows @ matrix.t()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, matrix, bias, "none", [], "")
    return out


def _gradients(
    grad: Tensor, rows: Tensor, matrix: Tensor, groups: int, of_rows: bool, of_matrix: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Those of rows, in bf16, and of the matrix, in fp32."""
    if groups > 1:
        return (
            nhwc_input_gradient(grad, rows, matrix, groups) if of_rows else None,
            block_weight_gradient(grad, rows, groups).float() if of_matrix else None,
        )
    return grad @ matrix if of_rows else None, (grad.t() @ rows).float() if of_matrix else None


#: Of the first of several weights: their versions and places when they were converted, and what came of it.
_joined: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _joined_copy(weights: Sequence[Tensor], groups: int) -> Tensor:
    """Weights [O, I/groups] in bf16 as one, [groups · len(weights) · O/groups, I/groups], converted once."""
    found = _joined.get(weights[0])
    states = tuple((weight._version, weight.data_ptr()) for weight in weights)
    if found is None or found[0] != states:
        _joined[weights[0]] = found = states, _join([weight.to(torch.bfloat16) for weight in weights], groups)
    return found[1]


def _join(parts: Sequence[Tensor], groups: int) -> Tensor:
    """[O, …] several times as one, [len(parts) · O, …]: of every group, the rows of the first, the second and so on."""
    joined = torch.stack([part.reshape(groups, len(part) // groups, -1) for part in parts], dim=1)
    return joined.view(-1, joined.size(-1))


def _part(joined: Tensor, count: int, groups: int) -> list[Tensor]:
    """The reverse: `count` parts."""
    parts = joined.view(groups, count, -1, joined.size(-1)).unbind(1)
    return [part.reshape(-1, joined.size(-1)) for part in parts]


# ── passes ──


def activated(x: Tensor, bias: Tensor, activation: str) -> Tensor:
    """activation(x + bias) of a product [..., W] in bf16; one of `ACTIVATIONS`."""
    out: Tensor = _Activated.apply(x, bias, activation)  # type: ignore[no-untyped-call]
    return out


class _Activated(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, activation: str) -> Tensor:
        x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
        ctx.save_for_backward(x, bias)
        ctx.sizes = {"rows": x.numel() // x.size(-1), "width": x.size(-1), "is_gelu": activation == "gelu"}
        _run("activation", "ActivationPass", x=x, bias=bias, out=out, **ctx.sizes)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, bias = ctx.saved_tensors
        grad_x, grad_bias = torch.empty_like(x), torch.empty_like(bias)
        gradients = {"grad_out": grad.contiguous(), "grad_x": grad_x, "grad_bias": grad_bias}
        _run("activation_gradient", "ActivationPass", x=x, bias=bias, **gradients, **ctx.sizes)
        return grad_x, grad_bias, None


def normed(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    weight: Tensor,
    shift: Tensor,
    eps: float | None,
    rate: float,
) -> Tensor:
    """norm(dropout(x + bias) + residual) in the precision of the residual, or in bf16 without one.

    Args:
        x: a product [..., W] in bf16.
        bias: of the product, [W].
        residual: [..., W] in bf16 or fp32.
        weight: of the norm, [W].
        shift: what the norm adds, [W].
        eps: of a layer norm; None is an elementwise affine map.
        rate: of dropout; 0 outside training.
    """
    out: Tensor = _Normed.apply(x, bias, residual, weight, shift, eps, rate)  # type: ignore[no-untyped-call]
    return out


class _Normed(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, residual: Tensor | None, weight: Tensor, shift: Tensor,
        eps: float | None, rate: float,
    ) -> Tensor:  # fmt: skip
        x, residual = x.contiguous(), None if residual is None else residual.contiguous()
        kind = torch.bfloat16 if residual is None else residual.dtype
        out, rows = torch.empty(x.shape, dtype=kind), x.numel() // x.size(-1)
        total, stats = torch.empty_like(x), torch.empty(0 if eps is None else 2 * rows)
        ctx.fields = {
            "rows": rows, "width": x.size(-1), "centres": eps is not None, "eps": eps or 0.0,
            "wide": kind == torch.float32, **_drawn(rate),
        }  # fmt: skip
        ctx.has_bias, ctx.has_residual = bias is not None, residual is not None
        ctx.save_for_backward(weight, shift, total, stats)
        arrays = {"x": x, "bias": bias, "residual": residual, "weight": weight, "shift": shift, "out": out}
        _run("norm", "NormPass", sum=total, stats=stats, **arrays, **ctx.fields)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, shift, total, stats = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_weight, grad_shift = torch.empty_like(total), torch.empty_like(weight), torch.empty_like(weight)
        grad_bias = torch.empty_like(weight) if ctx.has_bias else None
        same = ctx.fields["dropped"] == 0 and not ctx.fields["wide"]  # then both sides of the sum have one gradient
        grad_residual = torch.empty_like(grad) if ctx.has_residual and not same else None
        _run(
            "norm_gradient", "NormPass", x=total, sum=total, stats=stats, weight=weight, shift=shift, grad_out=grad,
            grad_x=grad_x, grad_residual=grad_residual, grad_weight=grad_weight, grad_shift=grad_shift,
            grad_bias=grad_bias, **ctx.fields,
        )  # fmt: skip
        if ctx.has_residual and same:
            grad_residual = grad_x
        return grad_x, grad_bias, grad_residual, grad_weight, grad_shift, None, None


def attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, starts: Sequence[int], keys: Sequence[int], rate: float
) -> Tensor:
    """Scaled dot-product attention within examples, with dropout on the probabilities.

    Args:
        query: [..., h·d] in bf16, N rows in all.
        key: the same.
        value: the same.
        heads: h.
        starts: where each example starts among the rows, and N.
        keys: how many of an example's rows, the first ones, are keys; at least one.
        rate: of dropout.
    """
    out: Tensor = _Attention.apply(query, key, value, heads, starts, keys, rate)  # type: ignore[no-untyped-call]
    return out


def _attention_fields(
    heads: int, width: int, starts: Sequence[int], keys: Sequence[int], rate: float
) -> dict[str, Any]:
    return {
        "examples": len(keys), "starts": torch.tensor(starts, dtype=torch.int32),
        "keys": torch.tensor(keys, dtype=torch.int32), "heads": heads, "depth": width // heads, **_drawn(rate),
    }  # fmt: skip


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, starts: Sequence[int], keys: Sequence[int],
        rate: float,
    ) -> Tensor:  # fmt: skip
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        out, scales, width = torch.empty_like(query), torch.empty(starts[-1], heads), query.size(-1)
        ctx.fields = {
            **_attention_fields(heads, width, starts, keys, rate), "stride": width, "group_stride": 0,
            "group_heads": heads,
        }  # fmt: skip
        ctx.save_for_backward(query, key, value, scales)
        arrays = {"query": query, "key": key, "value": value, "out": out, "scales": scales}
        _run("attention", "AttentionPass", **arrays, **ctx.fields)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, scales = ctx.saved_tensors
        grads = [torch.empty_like(query) for _ in range(3)]
        arrays = {"query": query, "key": key, "value": value, "scales": scales, "grad_out": grad.contiguous()}
        arrays |= zip(("grad_query", "grad_key", "grad_value"), grads, strict=True)
        _run("attention_gradient", "AttentionPass", **arrays, **ctx.fields)
        return *grads, None, None, None, None


def self_attention(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], groups: int, heads: int, starts: Sequence[int],
    keys: Sequence[int], rate: float,
) -> Tensor:  # fmt: skip
    """`attention` with the queries, keys and values that three products of `x` are, as one product.

    Args:
        x: [..., I] in bf16, N rows in all.
        weights: of queries, keys and values, [O, I/groups] or [O, I/groups, 1].
        biases: [O] each.
        groups: of the block-diagonal products; a divisor of `heads`.
        heads: as in `attention`, as are the following.
        starts: where examples start.
        keys: how many each has.
        rate: of dropout.
    """
    rows = x.reshape(-1, x.size(-1))
    given = (groups, heads, starts, keys, rate)
    out: Tensor = _SelfAttention.apply(rows, *weights, *biases, *given)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


class _SelfAttention(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, *given: Any) -> Tensor:
        weights, biases, (groups, heads, starts, keys, rate) = given[:3], given[3:6], given[6:]
        width = len(weights[0])
        matrix, bias = _joined_copy(weights, groups), _join(biases, groups)[:, 0]
        joined = _multiply(rows, matrix, bias, groups)  # [N, 3 · O]
        out, scales = torch.empty(len(rows), width, dtype=joined.dtype), torch.empty(len(rows), heads)
        ctx.fields = {
            **_attention_fields(heads, width, starts, keys, rate), "stride": 3 * width,
            "group_stride": 3 * width // groups, "group_heads": heads // groups,
        }  # fmt: skip
        ctx.groups, ctx.shape = groups, weights[0].shape
        ctx.save_for_backward(rows, matrix, joined, scales)
        parts = dict(zip(("query", "key", "value"), _places(joined, width // groups), strict=True))
        _run("attention", "AttentionPass", out=out, scales=scales, **parts, **ctx.fields)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, matrix, joined, scales = ctx.saved_tensors
        names, apart = ("query", "key", "value"), ctx.shape[0] // ctx.groups
        of_joined = torch.empty_like(joined)
        parts = dict(zip(names, _places(joined, apart), strict=True))
        parts |= zip((f"grad_{name}" for name in names), _places(of_joined, apart), strict=True)
        _run("attention_gradient", "AttentionPass", scales=scales, grad_out=grad.contiguous(), **parts, **ctx.fields)
        of_rows, of_matrix = _gradients(of_joined, rows, matrix, ctx.groups, ctx.needs_input_grad[0], True)
        assert of_matrix is not None
        of_weights = [part.view(ctx.shape) for part in _part(of_matrix, 3, ctx.groups)]
        of_biases = [part[:, 0] for part in _part(of_joined.sum(0).float()[:, None], 3, ctx.groups)]
        return of_rows, *of_weights, *of_biases, None, None, None, None, None


def _places(joined: Tensor, apart: int) -> list[int]:
    """The addresses of queries, keys and values in [N, 3 · O], so many numbers apart."""
    return [joined.data_ptr() + number * apart * joined.element_size() for number in range(3)]


def difference(own: Tensor, other: Tensor, eps: float) -> Tensor:
    """The squared difference of rows [N, W], each normalised without weights: a mean over W, summed over N.

    Args:
        own: in bf16 or fp32; the derivative is with respect to it alone.
        other: in any precision.
        eps: of the norms.
    """
    loss: Tensor = _Difference.apply(own, other, eps)  # type: ignore[no-untyped-call]
    return loss


class _Difference(Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, other: Tensor, eps: float) -> Tensor:
        own, other, loss = own.contiguous(), other.float().contiguous(), torch.empty((), dtype=torch.float64)
        gradient = torch.empty_like(own) if ctx.needs_input_grad[0] else None
        _run(
            "difference", "DifferencePass", rows=len(own), width=own.size(-1), eps=eps, own=own, other=other,
            wide=own.dtype == torch.float32, gradient=gradient, loss=loss,
        )  # fmt: skip
        ctx.save_for_backward(gradient)
        return loss.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return None if gradient is None else gradient * grad, None, None
