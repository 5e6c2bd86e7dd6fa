"""Dropout on a CPU, which draws 16 bits an element, against what dropout is."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pocketbert.models.cpu import drop_out
from pocketbert.models.ops import Dropout


@pytest.mark.parametrize("shape", [(1000, 777), (3, 5, 67, 501)])
def test_drops_its_part_and_keeps_the_mean(shape: tuple[int, ...]) -> None:
    for rate in (0.1, 0.3, 0.5, 0.9, 1e-4):
        torch.manual_seed(0)
        out = drop_out(torch.ones(shape), rate)
        kept, near = out[out != 0], 1e-4 if rate < 0.9 else 1e-3
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=near, atol=0)
        deviation = math.sqrt(rate * (1 - rate) / out.numel())
        assert abs((out == 0).float().mean() - rate) < 5 * deviation + 2**-17, rate
        assert abs(out.double().mean() - 1) < 5 * deviation / (1 - rate) + 1e-6, rate


def test_elements_are_independent() -> None:
    """Of each other in the same random number, and from one number and one call to the next."""
    torch.manual_seed(0)
    calls = [(drop_out(torch.ones(400_000), 0.5) == 0).double() - 0.5 for _ in range(2)]
    bound = 5 * 0.25 / math.sqrt(400_000)
    assert all(abs((calls[0][n:] * calls[0][: len(calls[0]) - n]).mean()) < bound for n in range(1, 9))
    assert abs((calls[0] * calls[1]).mean()) < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_sizes_and_types(dtype: torch.dtype) -> None:
    """The kept elements are scaled as PyTorch scales them, and the gradient falls where they are."""
    for count in (0, 1, 2, 3, 4, 5, 63, 1001):
        torch.manual_seed(count)
        x = torch.randn(count, dtype=dtype, requires_grad=True)
        out = drop_out(x, 0.25)
        assert (out.dtype, out.shape) == (x.dtype, x.shape)
        out.sum().backward()
        assert x.grad is not None
        mask = torch.where(out == 0, 0, 1)
        scaled = F.dropout(torch.ones(64, dtype=dtype), 0.25).max() * mask
        assert torch.equal(out, x * scaled), count
        assert torch.equal(x.grad, scaled), count


def test_strided() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 6, 4).transpose(0, 2)
    out = drop_out(x, 0.5)
    assert torch.equal(out, x * torch.where(out == 0, 0.0, 2.0))


@pytest.mark.parametrize(("rate", "factor"), [(0.0, 1.0), (1e-9, 1.0), (1.0, 0.0)])
def test_all_or_nothing(rate: float, factor: float) -> None:
    x = torch.randn(50)
    assert torch.equal(drop_out(x, rate), x * factor)


def test_the_seed_decides() -> None:
    x, layer = torch.ones(100), Dropout(0.5)
    runs = []
    for _ in range(2):
        torch.manual_seed(7)
        runs.append(layer(x))
    assert torch.equal(*runs)
    assert not torch.equal(layer(x), runs[0])
    assert torch.equal(layer.eval()(x), x)


def test_compiles() -> None:
    """As PyTorch's own, which compilers know."""
    out = torch.compile(drop_out, backend="eager", fullgraph=True)(torch.ones(1000), 0.5)
    assert 300 < (out == 0).sum() < 700


def test_a_compiled_graph_takes_dropout_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing bits there would break the graph."""
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    torch.manual_seed(0)
    found = drop_out(torch.ones(1000), 0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(found, F.dropout(torch.ones(1000), 0.5), rtol=0, atol=0)
