"""LAMB (You et al. 2019, https://arxiv.org/abs/1904.00962): the direction of Adam, steps in proportion to the weights.

    m ← β₁ m + (1 - β₁) g          r = m / (√v + ε) + λ w
    v ← β₂ v + (1 - β₂) g²         w ← w - rate · (‖w‖ / ‖r‖) · r

The norms are norms of one tensor; where one of them is 0, the ratio is 1. Tensors without weight decay (biases and
norms) have no adaptation either: they omit the ratio. SqueezeBERT and MobileBERT were trained with this, without bias
correction of the moments; NVIDIA's recipes correct it, m / (1 - β₁ᵗ) and v / (1 - β₂ᵗ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from pocketbert.training.distributed import norms_of, part


class Lamb(Optimizer):
    """LAMB over groups of parameters, with operations that are fused over all tensors of a group.

    A group with "adapts": False has the steps of Adam. Of sharded parameters each process updates its part; norms are
    norms of the whole.

    Args:
        params: parameters, or groups of parameters.
        lr: the learning rate.
        betas: decay of the means of gradients and of their squares.
        eps: added to the square root of the latter.
        weight_decay: λ.
        bias_correction: correct the bias of the moments, as NVIDIA and the paper's algorithm do; the models here were
            trained without it.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = False,
    ) -> None:
        self.bias_correction = bias_correction
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapts": True})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if weights := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._update(weights, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        states = [self._state_of(parameter) for parameter in parameters]
        weights = [part(parameter) for parameter in parameters]
        gradients = [part(parameter.grad) for parameter in parameters if parameter.grad is not None]
        means = [part(state["exp_avg"]) for state in states]
        squares = [part(state["exp_avg_sq"]) for state in states]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)

        roots = torch._foreach_sqrt(squares)
        if self.bias_correction:
            torch._foreach_add_([state["step"] for state in states], 1)
            steps = [float(state["step"]) for state in states]
            torch._foreach_div_(roots, [math.sqrt(1 - second**step) for step in steps])
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(means, roots)
        if self.bias_correction:
            torch._foreach_div_(updates, [1 - first**step for step in steps])
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        if group["adapts"]:
            weight_norms, update_norms = norms_of([*weights, *updates], parameters[0]).chunk(2)
            ratios = torch.where((weight_norms > 0) & (update_norms > 0), weight_norms / update_norms, 1.0)
            torch._foreach_mul_(updates, list(ratios.unbind()))
        torch._foreach_add_(weights, updates, alpha=-group["lr"])

    def _state_of(self, weight: Tensor) -> dict[str, Tensor]:
        state = self.state[weight]
        if not state:
            state["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            if self.bias_correction:
                state["step"] = torch.zeros(())  # on the CPU: it is read at every step
        return state
