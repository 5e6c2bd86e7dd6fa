"""The passes of a training step in bf16 against the same computation in fp32, with its derivatives."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pocketbert.models import bf16
from pocketbert.models.squeezebert import block_diagonal
from pocketbert.runtime import core
from pocketbert.runtime.engine import native_core

KERNELS = [name for name in core.available_kernels() if core.find_training(name)] if native_core() is not None else []
pytestmark = pytest.mark.skipif(not KERNELS, reason="no kernels here train in bf16")


@pytest.fixture(params=KERNELS, autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    found = core.find_training(request.param)
    monkeypatch.setattr(bf16, "_training", lambda: found)
    torch.manual_seed(torch.seed() % 2**32)


def rows(*shape: int, scale: float = 1.0) -> Tensor:
    """Random numbers that bf16 has, in fp32."""
    return (scale * torch.randn(*shape)).bfloat16().float()


def compare(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 0.01) -> None:
    """To the rounding of bf16, relative to the largest value, or to one where that is smaller by far."""
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(
            mine.float(), other, rtol=0, atol=tolerance * float(other.detach().abs().max()) + 1e-3
        )


def gradients(out: Tensor, weights: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad((out.float() * weights).sum(), leaves))


@pytest.mark.parametrize(("count", "width"), [(1, 1), (7, 16), (70, 33), (129, 48), (33, 384)])
@pytest.mark.parametrize("activation", bf16.ACTIVATIONS)
def test_activation(count: int, width: int, activation: str) -> None:
    x, bias, weights = rows(count, width, scale=2.0), torch.randn(width), rows(count, width)
    ours = [x.bfloat16().requires_grad_(), bias.clone().requires_grad_()]
    out = bf16.activated(ours[0], ours[1], activation)
    theirs = [x.clone().requires_grad_(), bias.clone().requires_grad_()]
    expected = getattr(F, activation)(theirs[0] + theirs[1])
    compare([out, *gradients(out, weights, ours)], [expected, *gradients(expected, weights, theirs)])


@pytest.mark.parametrize(("count", "width"), [(1, 24), (7, 16), (70, 33), (129, 48), (33, 384)])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32, None])
@pytest.mark.parametrize("eps", [1e-5, None])
@pytest.mark.parametrize("has_bias", [True, False])
def test_norm(count: int, width: int, kind: torch.dtype | None, eps: float | None, has_bias: bool) -> None:
    x, weights, residual = rows(count, width), rows(count, width), rows(count, width)
    vectors = [torch.randn(width) for _ in range(3 if has_bias else 2)]

    def leaves(first: Tensor, second: Tensor | None) -> list[Tensor]:
        given = [first, *vectors] if second is None else [first, second, *vectors]
        return [one.clone().requires_grad_() for one in given]

    def split(given: list[Tensor]) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
        behind = given[1 if kind is None else 2 :]
        return given[0], behind[2] if has_bias else None, None if kind is None else given[1], behind[0], behind[1]

    ours = leaves(x.bfloat16(), None if kind is None else residual.to(kind))
    out = bf16.normed(*split(ours), eps, 0.0)
    assert out.dtype == (kind or torch.bfloat16)
    theirs = leaves(x, None if kind is None else residual)
    mine, bias, other, weight, shift = split(theirs)
    total = mine + (0 if bias is None else bias) + (0 if other is None else other)
    expected = total * weight + shift if eps is None else F.layer_norm(total, [width], weight, shift, eps)
    compare([out, *gradients(out, weights, ours)], [expected, *gradients(expected, weights, theirs)], 0.02)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [31, 64, 80])
def test_dropout_of_a_norm(rate: float, width: int) -> None:
    """The expected part, scaled so that the mean stays; independent of the threads; the derivative repeats it."""
    x, residual = torch.ones(400, width).bfloat16().requires_grad_(), torch.zeros(400, width).requires_grad_()
    weight, shift = torch.ones(width), torch.zeros(width)
    seed = int(torch.randint(2**31, ()))
    outs = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        outs.append(bf16.normed(x, None, residual, weight, shift, None, rate))
        torch.set_num_threads(before)
    assert torch.equal(*outs)
    kept = (outs[0] != 0).float()
    deviation = (rate * (1 - rate) / kept.numel()) ** 0.5
    assert abs(float(kept.mean()) - (1 - rate)) < 6 * deviation
    torch.testing.assert_close(outs[0], kept / (1 - rate), rtol=1e-4, atol=0)
    for axis in (0, 1):  # rows and columns are alike
        means = kept.mean(axis)
        assert float((means - (1 - rate)).abs().max()) < 6 * (rate * (1 - rate) / kept.size(axis)) ** 0.5
    weights = rows(400, width)
    compare(gradients(outs[0], weights, [x, residual]), [weights * kept / (1 - rate), weights])
    assert not torch.equal(outs[0], bf16.normed(x, None, residual, weight, shift, None, rate))  # another seed


LENGTHS = [[1], [5], [32, 32], [33, 1, 64, 17], [40, 40, 40], [130, 3]]


def attend(leaves: list[Tensor], heads: int, starts: list[int], keys: list[int], masks: list[Tensor]) -> Tensor:
    """The reference, with what dropout leaves, already scaled, for each example."""
    parts = []
    for (a, b), count, mask in zip(pairwise(starts), keys, masks, strict=True):
        query, key, value = (x[a:b].unflatten(-1, (heads, -1)).transpose(0, 1) for x in leaves)
        scores = (query @ key.transpose(1, 2) / query.size(-1) ** 0.5)[..., :count]
        parts.append(((scores.softmax(-1) * mask) @ value[:, :count]).transpose(0, 1).flatten(1))
    return torch.cat(parts)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("heads", "depth"), [(1, 32), (3, 16), (2, 64), (2, 5)])
@pytest.mark.parametrize("hides", [False, True])
def test_attention(lengths: list[int], heads: int, depth: int, hides: bool) -> None:
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    keys = [max(1, length - 3 * i) if hides else length for i, length in enumerate(lengths)]
    given = [rows(starts[-1], heads * depth) for _ in range(3)]
    weights = rows(starts[-1], heads * depth)
    ours = [x.bfloat16().requires_grad_() for x in given]
    out = bf16.attention(ours[0], ours[1], ours[2], heads, starts, keys, 0.0)
    theirs = [x.clone().requires_grad_() for x in given]
    expected = attend(theirs, heads, starts, keys, [torch.ones(()) for _ in lengths])
    compare([out, *gradients(out, weights, ours)], [expected, *gradients(expected, weights, theirs)], 0.02)


@pytest.mark.parametrize(("heads", "groups"), [(4, 1), (4, 4), (6, 2)])
def test_self_attention(heads: int, groups: int) -> None:
    """One product, and the same as three."""
    width, lengths = heads * 16, [9, 40, 1]
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    x, weights = rows(starts[-1], width), rows(starts[-1], width)
    # Scores of a few units: in larger ones, the rounding of queries and keys to bf16 is a large factor.
    matrices = [rows(width, width // groups, 1, scale=0.15) for _ in range(3)]
    biases = [rows(width) for _ in range(3)]

    def leaves(kind: torch.dtype) -> list[Tensor]:
        return [x.to(kind, copy=True).requires_grad_(), *(one.clone().requires_grad_() for one in matrices + biases)]

    ours, theirs = leaves(torch.bfloat16), leaves(torch.float32)
    out = bf16.self_attention(ours[0], ours[1:4], ours[4:], groups, heads, starts, lengths, 0.0)
    qkv = [block_diagonal(theirs[0], theirs[1 + i], theirs[4 + i], groups) for i in range(3)]
    expected = attend(qkv, heads, starts, lengths, [torch.ones(()) for _ in lengths])
    mine, others = gradients(out, weights, ours), gradients(expected, weights, theirs)
    # Those of the biases together: what is added to all keys changes nothing, so their exact gradient is zero.
    mine, others = ([*one[:4], torch.cat(one[4:])] for one in (mine, others))
    compare([out, *mine], [expected, *others], 0.02)


@pytest.mark.parametrize("lengths", [[20], [37, 64, 9]])
def test_dropout_of_attention(lengths: list[int]) -> None:
    """What it leaves is seen in values of one each, and repeated in the derivative."""
    heads, depth, rate = 2, 64, 0.25
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    q, k, v, weights = (rows(starts[-1], heads * depth) for _ in range(4))
    seed = int(torch.randint(2**31, ()))

    def run(leaves: list[Tensor]) -> Tensor:
        torch.manual_seed(seed)
        return bf16.attention(leaves[0], leaves[1], leaves[2], heads, starts, lengths, rate)

    units = torch.cat([torch.eye(length, depth) for length in lengths]).repeat(1, heads)
    seen = run([q.bfloat16(), k.bfloat16(), units.bfloat16()]).unflatten(-1, (heads, depth))
    masks = [
        (seen[a:b, :, : b - a].transpose(0, 1) != 0).float() / (1 - rate) for a, b in pairwise(starts)
    ]  # [heads, queries, keys]
    kept = torch.cat([mask.flatten() for mask in masks]) != 0
    assert abs(float(kept.float().mean()) - (1 - rate)) < 6 * (rate * (1 - rate) / kept.numel()) ** 0.5
    ours = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    out = run(ours)
    theirs = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = attend(theirs, heads, starts, lengths, masks)
    compare([out, *gradients(out, weights, ours)], [expected, *gradients(expected, weights, theirs)], 0.02)


@pytest.mark.parametrize(("count", "width"), [(1, 5), (70, 33), (129, 48), (33, 384)])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_difference(count: int, width: int, kind: torch.dtype) -> None:
    own, other = rows(count, width), torch.randn(count, width)
    mine, theirs = own.to(kind, copy=True).requires_grad_(), own.clone().requires_grad_()
    loss = bf16.difference(mine, other, 1e-5)
    expected = F.mse_loss(F.layer_norm(theirs, [width]), F.layer_norm(other, [width]), reduction="sum") / width
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    (3 * loss).backward()
    (3 * expected).backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    assert mine.grad.dtype == kind
    compare([mine.grad], [theirs.grad])
