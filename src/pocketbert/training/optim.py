"""Optimizers, gradient clipping and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pocketbert.models import bf16
from pocketbert.training.distributed import is_sharded, norms_of, part
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
def clip_and_step(
    optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], limit: float | None, *, narrow: bool
) -> Tensor:
    """Carry out a step with gradients scaled down to this norm over all of them; return the norm before.

    Args:
        optimizer: of these parameters.
        parameters: what may have gradients, sharded or not.
        limit: the largest norm; None for any.
        narrow: whether the model trains in bf16. AdamW then scales gradients while it reads them, and writes what the
            products of the next step read, where the core has a pass for that.
    """
    moving = [parameter for parameter in parameters if parameter.grad is not None]
    if not (narrow and type(optimizer) is torch.optim.AdamW and _has_pass(moving)):
        norm = clip_gradients(moving, limit)
        optimizer.step()
        return norm
    size = bf16.norm([parameter.grad for parameter in moving if parameter.grad is not None])
    scale = 1.0 if limit is None else min(1.0, limit / (size + 1e-6))
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for count, weights in _counted(optimizer, group["params"]).items():
            states = [optimizer.state[weight] for weight in weights]
            bf16.step(
                weights, [weight.grad for weight in weights if weight.grad is not None],
                [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states], rate=group["lr"],
                decay=group["weight_decay"], beta1=beta1, beta2=beta2, eps=group["eps"],
                correction1=1 - beta1**count, correction2=1 - beta2**count, scale=scale,
            )  # fmt: skip
    return torch.tensor(size)


def _has_pass(moving: Sequence[Tensor]) -> bool:
    """Return whether the core can step with these weights and their gradients."""
    return bf16.is_there() and all(
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.is_contiguous()
        and not is_sharded(tensor)
        for weight in moving
        for tensor in (weight, weight.grad)
        if tensor is not None
    )


def _counted(optimizer: torch.optim.Optimizer, weights: Iterable[Tensor]) -> dict[int, list[Tensor]]:
    """Count this step for the weights with gradients; return them by their numbers of steps.

    The state is that of `torch.optim.AdamW`.
    """
    moving = [weight for weight in weights if weight.grad is not None]
    for weight in moving:
        if not (state := optimizer.state[weight]):
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    found: dict[int, list[Tensor]] = {}
    if moving:
        counters = [optimizer.state[weight]["step"] for weight in moving]
        torch._foreach_add_(counters, 1)
        for weight, count in zip(moving, torch.stack(counters).tolist(), strict=True):
            found.setdefault(int(count), []).append(weight)
    return found


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
