"""The optimiser and its learning rate."""

from __future__ import annotations

import torch
from torch import nn


def adamw(
    module: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `module`, without decay for biases and norm weights.

    Each group carries its `peak_lr`, which the loop multiplies with the schedule. A norm weight is a vector, as is a
    bias: whatever has more than one axis decays.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [{**group, "peak_lr": learning_rate} for group in groups if group["params"]]
    # The fused step touches every parameter once, instead of once for each operation.
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)


def linear_schedule(step: int, *, steps: int, warmup: float) -> float:
    """The fraction of the peak rate at `step` = 0, 1, …: up during the first `warmup` of all steps, then down to 0.

    The first step is not lost to a rate of zero: warm-up ends at its last step, decay would reach 0 after the last.
    """
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (steps - step) / max(1, steps - rising))
