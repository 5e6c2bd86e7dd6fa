"""LAMB against its formula, one number at a time."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pocketbert.training.lamb import Lamb
from pocketbert.training.optim import build_optimizer, polynomial_schedule
from pocketbert.training.settings import OPTIMIZERS

SHAPES = [(), (1,), (7,), (3, 5), (1, 9), (4, 3, 1), (2, 0)]


def reference(
    weight: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float, adapts: bool, corrects: bool
) -> np.ndarray:
    """The paper's algorithm for one tensor, in double precision and plain loops."""
    values = [float(w) for w in weight.ravel()]
    m, v = [0.0] * len(values), [0.0] * len(values)
    for step, gradient in enumerate(gradients, start=1):
        updates = []
        for i, g in enumerate(float(g) for g in gradient.ravel()):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            mean, square = (m[i] / (1 - 0.9**step), v[i] / (1 - 0.999**step)) if corrects else (m[i], v[i])
            updates.append(mean / (math.sqrt(square) + 1e-6) + decay * values[i])
        long, wanted = math.sqrt(sum(w * w for w in values)), math.sqrt(sum(u * u for u in updates))
        ratio = long / wanted if adapts and long > 0 and wanted > 0 else 1.0
        values = [w - rate * ratio * u for w, u in zip(values, updates, strict=True)]
    return np.array(values).reshape(weight.shape)


@pytest.mark.parametrize("corrects", [False, True])
@pytest.mark.parametrize("adapts", [False, True])
def test_against_the_formula(corrects: bool, adapts: bool) -> None:
    random = np.random.default_rng()
    decay = float(random.choice([0.0, 0.01, 0.3]))
    starts = [random.normal(size=shape) * random.choice([0.0, 1e-3, 1.0, 50.0]) for shape in SHAPES]
    gradients = [[random.normal(size=s) * random.choice([0.0, 1e-4, 1.0, 30.0]) for s in SHAPES] for _ in range(5)]
    parameters = [nn.Parameter(torch.tensor(start)) for start in starts]
    group: dict[str, Any] = {"params": parameters, "adapts": adapts, "weight_decay": decay}
    optimizer = Lamb([group], 0.02, bias_correction=corrects)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    for i, parameter in enumerate(parameters):
        expected = reference(starts[i], [step[i] for step in gradients], 0.02, decay, adapts, corrects)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_a_step_is_as_long_as_the_rate_says() -> None:
    weight = nn.Parameter(torch.randn(6, 4))
    before = weight.detach().clone()
    weight.grad = 1000 * torch.randn(6, 4)
    Lamb([weight], 0.01).step()
    assert (weight.detach() - before).norm().item() == pytest.approx(0.01 * before.norm().item(), rel=1e-5)


def test_what_has_no_gradient_rests() -> None:
    moving, resting = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2, 2))
    moving.grad = torch.ones(3, 2)
    optimizer = Lamb([moving, resting], 0.1)
    optimizer.step()
    assert torch.equal(resting, torch.ones(2, 2))
    assert set(optimizer.state) == {moving}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_and_first_steps(name: str) -> None:
    """Vectors neither decay nor adapt; places part the groups; the state survives its own file format."""
    torch.manual_seed(0)
    first = nn.Linear(4, 4)
    module = nn.Sequential(first, nn.LayerNorm(4), nn.Linear(4, 2))
    optimizer = build_optimizer(name, module, learning_rate=0.1, weight_decay=0.5, layer_of=lambda n: int(n[0] == "2"))
    assert [(g["layer"], g["adapts"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [
        (0, True, 0.5, 1), (0, False, 0.0, 3), (1, True, 0.5, 1), (1, False, 0.0, 1),
    ]  # fmt: skip
    before = first.bias.detach().clone()
    module(torch.ones(1, 4)).sum().backward()
    gradient = first.bias.grad
    optimizer.step()
    assert gradient is not None
    direction = gradient / (gradient.abs() + 1e-6)
    if name == "lamb":  # without correction the first step is 0.1 / √0.001 as long as Adam's
        direction = 0.1 * gradient / (math.sqrt(0.001) * gradient.abs() + 1e-6)
    torch.testing.assert_close(first.bias.detach(), before - 0.1 * direction, atol=1e-5, rtol=1e-3)
    keys = {"exp_avg", "exp_avg_sq"} | (set() if name == "lamb" else {"step"})
    assert set(optimizer.state[first.bias]) == keys


def test_polynomial_decay() -> None:
    rates = [polynomial_schedule(step, steps=8, warmup=0.5, power=0.5) for step in range(9)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, math.sqrt(0.75), math.sqrt(0.5), 0.5, 0.0])
    above = [polynomial_schedule(step, steps=4, warmup=0.0, power=0.5, end=0.9) for step in range(5)]
    assert above == pytest.approx([1.0, 0.9 + 0.1 * math.sqrt(0.75), 0.9 + 0.1 * math.sqrt(0.5), 0.95, 0.9])
