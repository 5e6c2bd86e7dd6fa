"""The optimisers, and the learning rate over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pocketbert.training.distributed import norms_of, part
from pocketbert.training.lamb import Lamb


def adamw(
    module: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `module`, in the groups of `parameter_groups`."""
    groups = parameter_groups(module, learning_rate=learning_rate, weight_decay=weight_decay)
    # The fused step touches every parameter once, instead of once for each operation.
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)


def build_optimizer(
    name: str,
    module: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    place: Callable[[str], int] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser of this name (see `settings.OPTIMIZERS`) with the published betas and ε, for pretraining.

    Args:
        name: one of `settings.OPTIMIZERS`.
        module: what is trained.
        learning_rate: the peak.
        weight_decay: for weights other than biases and norms.
        place: see `parameter_groups`.
    """
    groups = parameter_groups(module, learning_rate=learning_rate, weight_decay=weight_decay, place=place)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-6, fused=True)
    return Lamb(groups, learning_rate, bias_correction=name == "lamb-nvidia")


def parameter_groups(
    module: nn.Module, *, learning_rate: float, weight_decay: float, place: Callable[[str], int] | None = None
) -> list[dict[str, Any]]:
    """The trainable parameters in groups: those that decay (and adapt, in LAMB), and biases and norm weights, do not.

    Each group carries its `peak_lr`, which the loop multiplies with the schedule. A norm weight is a vector, as is a
    bias: whatever has more than one axis decays. With `place`, a function of a parameter's name, those of different
    places are in different groups, which carry it as "place", so that layers can have rates of their own.
    """
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            found.setdefault((place(name) if place is not None else 0, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if matrices else 0.0,
            "adapts": matrices,
            "peak_lr": learning_rate,
            "place": where,
        }
        for (where, matrices), parameters in sorted(found.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float | None) -> Tensor:
    """Scale the gradients down to this norm over all of them, sharded or not; returns what it was."""
    moving = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [part(parameter.grad) for parameter in moving if parameter.grad is not None]
    norm = norms_of(gradients, moving[0]).norm()
    if limit is not None:
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


@torch.no_grad()
def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Whether all weights and their norms are, sharded or not."""
    weights = list(parameters)
    return bool(norms_of([part(weight) for weight in weights], weights[0]).isfinite().all())


def polynomial_schedule(step: int, *, steps: int, warmup: float, power: float = 1.0, end: float = 0.0) -> float:
    """The fraction of the peak rate at `step` = 0, 1, …: up during the first `warmup` of all steps, then down to `end`.

    The first step is not lost to a rate of zero: warm-up ends at its last step, decay would reach `end` after the last.
    """
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return end + (1 - end) * max(0.0, (steps - step) / max(1, steps - rising)) ** power


def linear_schedule(step: int, *, steps: int, warmup: float) -> float:
    """`polynomial_schedule` of power 1."""
    return polynomial_schedule(step, steps=steps, warmup=warmup)
