import pytest
import torch
from torch import nn

from pocketbert.training.optim import adamw, constant_schedule, linear_schedule


def test_schedule_rises_and_falls_linearly() -> None:
    rates = [linear_schedule(step, steps=10, warmup=0.4) for step in range(11)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0])


def test_schedule_without_warmup_and_without_decay() -> None:
    assert [linear_schedule(step, steps=4, warmup=0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [linear_schedule(step, steps=3, warmup=1.0) for step in range(3)] == [0.25, 0.5, 0.75]
    assert linear_schedule(0, steps=1, warmup=0.1) == 1.0


def test_a_constant_schedule_rises_stays_and_falls() -> None:
    rates = [constant_schedule(step, warmup=3, decay_begins=6, steps=10) for step in range(12)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    assert [constant_schedule(step, warmup=0, decay_begins=0, steps=2) for step in range(3)] == [1.0, 0.5, 0.0]
    # Before the decay, the rate does not depend on its place.
    later = [constant_schedule(step, warmup=3, decay_begins=60, steps=100) for step in range(7)]
    assert later == rates[:7]


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    module[0].weight.requires_grad_(False)
    decayed, plain = adamw(module, learning_rate=1e-3, weight_decay=0.1).param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 4)]
    assert [p.shape for p in plain["params"]] == [(4,), (4,), (4,)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert decayed["peak_lr"] == plain["peak_lr"] == 1e-3


def test_one_step_against_the_formula() -> None:
    weight = nn.Linear(3, 2, bias=False)
    before, grad = weight.weight.detach().clone(), torch.arange(6.0).reshape(2, 3) - 2.5
    weight.weight.grad = grad.clone()
    adamw(weight, learning_rate=0.01, weight_decay=0.1, eps=1e-8).step()
    expected = before * (1 - 0.01 * 0.1) - 0.01 * grad / (grad.abs() + 1e-8)
    torch.testing.assert_close(weight.weight.detach(), expected)
