"""The block-diagonal product against a dense matrix with zeros in it, on random shapes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketbert.models.squeezebert import GroupedLinear, _batched_product, block_diagonal

shapes = st.tuples(
    st.lists(st.integers(1, 5), min_size=0, max_size=3),  # leading axes
    st.integers(1, 6),  # groups
    st.integers(1, 9),  # channels in and out of a group
    st.integers(1, 9),
)


def reference(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.linear(x, torch.block_diag(*weight.squeeze(-1).chunk(groups)), bias)


@settings(max_examples=60)
@given(shapes, st.integers(0, 2**31), st.booleans())
def test_equals_the_dense_product_and_its_gradients(
    shape: tuple[list[int], int, int, int], seed: int, strided: bool
) -> None:
    lead, groups, into, out = shape
    torch.manual_seed(seed)
    x = torch.randn(*lead, groups * into)
    if strided and x.dim() > 1:
        x = x.transpose(0, -2)
    weight, bias = torch.randn(groups * out, into, 1), torch.randn(groups * out)
    inputs = x, weight, bias = x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()
    got, expected = block_diagonal(x, weight, bias, groups), reference(x, weight, bias, groups)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(block_diagonal(x, weight, bias, groups), got)
    upstream = torch.randn_like(got)
    gradients = torch.autograd.grad(expected, inputs, upstream)
    for a, b in zip(torch.autograd.grad(got, inputs, upstream), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    elsewhere = _batched_product(x.reshape(-1, x.size(-1)), weight, bias, groups).view_as(expected)  # not on a CPU
    torch.testing.assert_close(elsewhere, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(elsewhere, inputs, upstream), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_published_size() -> None:
    torch.manual_seed(0)
    layer = GroupedLinear(768, 3072, 4)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    assert layer.weight.shape == (3072, 192, 1)
    x = torch.randn(2, 128, 768)
    torch.testing.assert_close(layer(x), reference(x, layer.weight, layer.bias, 4), rtol=1e-4, atol=1e-4)


def test_gradient_in_double_precision() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((3, 8), (12, 2, 1), (12,))]
    assert torch.autograd.gradcheck(lambda x, w, b: block_diagonal(x, w, b, 4), inputs)


def test_only_the_gradients_that_are_wanted() -> None:
    x, weight, bias = torch.randn(3, 8), torch.randn(8, 4, 1, requires_grad=True), torch.randn(8)
    block_diagonal(x, weight, bias, 2).sum().backward()
    assert weight.grad is not None
    assert x.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*s).to(dtype) for s in ((5, 7, 24), (48, 6, 1), (48,)))
    expected = reference(x.float(), weight.float(), bias.float(), 4)
    assert block_diagonal(x, weight, bias, 4).dtype == dtype
    torch.testing.assert_close(block_diagonal(x, weight, bias, 4).float(), expected, rtol=0.02, atol=0.1)


def test_autocast_computes_in_its_type() -> None:
    x, weight, bias = (torch.randn(*s, requires_grad=True) for s in ((5, 24), (48, 6, 1), (48,)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block_diagonal(x, weight, bias, 4)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_no_rows() -> None:
    assert block_diagonal(torch.randn(0, 5, 24), torch.randn(48, 6, 1), torch.randn(48), 4).shape == (0, 5, 48)
