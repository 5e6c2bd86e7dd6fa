"""The linear layer of the models against PyTorch's, on random shapes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.models import cpu
from pocketbert.models.cpu import _for_onednn, half_used_by_mkl, linear
from pocketbert.models.ops import Linear

shapes = st.tuples(st.lists(st.integers(1, 5), min_size=0, max_size=3), st.integers(1, 40), st.integers(1, 40))


LINUX = "vendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: 17\n"


@pytest.fixture(scope="module", params=["MKL", "oneDNN"])
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    """What PyTorch and the system say of the processor decides who computes; either can compute on any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        patch.setattr(
            cpu, "processor_description", lambda: LINUX.format("AuthenticAMD", 25 + (request.param == "oneDNN"))
        )
        yield request.param


@pytest.mark.parametrize(
    ("processor", "half"),
    [
        (LINUX.format("AuthenticAMD", 25), False),
        (LINUX.format("AuthenticAMD", 26), True),
        (LINUX.format("GenuineIntel", 26), False),
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", True),
        ("AMD64 Family 23 Model 113 Stepping 0, AuthenticAMD", False),
        ("aarch64", False),
        ("", False),
    ],
)
def test_processors(processor: str, half: bool) -> None:
    assert half_used_by_mkl(processor) == half


@settings(max_examples=60)
@given(shape=shapes, seed=st.integers(0, 2**31), strided=st.booleans(), with_bias=st.booleans())
def test_equals_pytorch_and_its_gradients(
    library: str, shape: tuple[list[int], int, int], seed: int, strided: bool, with_bias: bool
) -> None:
    lead, into, out = shape
    torch.manual_seed(seed)
    x = torch.randn(*lead, into)
    if strided and x.dim() > 1:
        x = x.transpose(0, -2)
    weight, bias = torch.randn(out, into, requires_grad=True), torch.randn(out, requires_grad=True)
    x, given_bias = x.requires_grad_(), bias if with_bias else None
    assert _for_onednn(x, weight) == (library == "oneDNN")
    inputs = (x, weight, bias) if with_bias else (x, weight)
    got, expected = linear(x, weight, given_bias), F.linear(x, weight, given_bias)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(linear(x, weight, given_bias), got)
    upstream = torch.randn_like(got)
    gradients = torch.autograd.grad(expected, inputs, upstream)
    for mine, theirs in zip(torch.autograd.grad(got, inputs, upstream), gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("library")
def test_only_the_gradients_that_are_wanted() -> None:
    x, layer = torch.randn(3, 8), Linear(8, 4)
    layer.bias.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias.grad is x.grad is None


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_pytorch(dtype: torch.dtype) -> None:
    layer, x = Linear(8, 4).to(dtype), torch.randn(3, 8, dtype=dtype)
    assert not _for_onednn(x, layer.weight)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.usefixtures("library")
def test_autocast_computes_in_its_type() -> None:
    layer, x = Linear(8, 4), torch.randn(3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.usefixtures("library")
def test_no_rows() -> None:
    assert Linear(8, 4)(torch.randn(0, 5, 8)).shape == (0, 5, 4)


@pytest.mark.usefixtures("library")
def test_exporters_see_an_ordinary_linear_layer() -> None:
    program = torch.export.export(Linear(8, 4), (torch.randn(3, 8),))
    assert any("linear" in str(node.target) for node in program.graph.nodes)
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)
