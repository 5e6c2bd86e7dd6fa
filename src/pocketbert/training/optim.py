"""Optimizers, gradient clipping and learning-rate schedules."""

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
    """Return AdamW over the trainable parameters of `module`, in the groups of `parameter_groups`."""
    groups = parameter_groups(module, learning_rate=learning_rate, weight_decay=weight_decay)
    # The fused step reads and writes every parameter once, instead of once per operation.
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)


def build_optimizer(
    name: str,
    module: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    layer_of: Callable[[str], int] | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer of this name (see `settings.OPTIMIZERS`) with the published betas and ε, for pretraining.

    Args:
        name: one of `settings.OPTIMIZERS`.
        module: the module to train.
        learning_rate: the peak rate.
        weight_decay: for weights other than biases and norms.
        layer_of: see `parameter_groups`.
    """
    groups = parameter_groups(module, learning_rate=learning_rate, weight_decay=weight_decay, layer_of=layer_of)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-6, fused=True)
    return Lamb(groups, learning_rate, bias_correction=name == "lamb-nvidia")


def parameter_groups(
    module: nn.Module, *, learning_rate: float, weight_decay: float, layer_of: Callable[[str], int] | None = None
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups: those with weight decay (and adaptation, in LAMB), and the others.

    Each group carries its `peak_lr`, which the loop multiplies with the schedule. Norm weights and biases are vectors
    and do not decay; parameters with more than one axis do. `layer_of`, a function of a parameter's name, separates
    groups by layer, which they carry as "layer", so that layers can have rates of their own.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            layer = 0 if layer_of is None else layer_of(name)
            groups.setdefault((layer, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if matrices else 0.0,
            "adapts": matrices,
            "peak_lr": learning_rate,
            "layer": layer,
        }
        for (layer, matrices), parameters in sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float | None) -> Tensor:
    """Scale the gradients down to this norm over all of them, sharded or not; return the norm before."""
    moving = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [part(parameter.grad) for parameter in moving if parameter.grad is not None]
    norm = norms_of(gradients, moving[0]).norm()
    if limit is not None:
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


@torch.no_grad()
def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Return whether all weights and their norms are finite, sharded or not."""
    weights = list(parameters)
    return bool(norms_of([part(weight) for weight in weights], weights[0]).isfinite().all())


def polynomial_schedule(step: int, *, steps: int, warmup: float, power: float = 1.0, end: float = 0.0) -> float:
    """Return the fraction of the peak rate at `step` = 0, 1, …: linear warm-up, then polynomial decay to `end`.

    `warmup` is a fraction of all steps. The rate of the first step is not zero: warm-up reaches the peak after its last
    step, and decay would reach `end` after the last step of all.
    """
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return end + (1 - end) * max(0.0, (steps - step) / max(1, steps - rising)) ** power


def linear_schedule(step: int, *, steps: int, warmup: float) -> float:
    """Return `polynomial_schedule` with power 1."""
    return polynomial_schedule(step, steps=steps, warmup=warmup)


def constant_schedule(step: int, *, warmup: int, decay_begins: int, steps: int) -> float:
    """Return the fraction of the peak rate at `step`: warm-up over `warmup` steps, constant, then a linear decay.

    The decay would reach 0 after the last of all `steps`. Before `decay_begins` the rate does not depend on `steps`: a
    run can be continued, and let decay from any of its states. This is called warmup-stable-decay (Hu et al. 2024,
    https://arxiv.org/abs/2404.06395; Hägele et al. 2024, https://arxiv.org/abs/2405.18392).
    """
    rising = (step + 1) / (warmup + 1)
    falling = max(0.0, steps - step) / max(1, steps - decay_begins)
    return min(1.0, rising, falling)
