"""Weights in int8: one scale an output channel, symmetric around zero; activations follow at run time, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pocketbert.runtime.plan import Linear, Plan, Rows, Step

SMALLEST = 4096  # weights; below, as in a classifier, int8 saves nothing


def quantize(plan: Plan, smallest: int = SMALLEST) -> Plan:
    """The plan with its linear steps of `smallest` weights or more in int8."""
    tensors = dict(plan.tensors)

    def quantized(step: Step) -> Step:
        if not isinstance(step, Linear) or plan.tensors[step.weight].size < smallest:
            return step
        scales = f"{step.weight}.scales"
        tensors[step.weight], tensors[scales] = quantize_rows(plan.tensors[step.weight])
        return replace(step, scales=scales)

    stages = tuple(
        Rows(tuple(quantized(step) for step in stage.steps)) if isinstance(stage, Rows) else stage
        for stage in plan.stages
    )
    return replace(plan, stages=stages, tensors=tensors)


def quantize_rows(weight: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """[C', C] to int8 of the same shape and scales [C'], with weight ≈ int8 · scale."""
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale[:, 0]
