"""Plans in int8: one scale per output channel, symmetric around zero; activations follow at run time, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pocketbert.runtime.plan import Gather, LayerNorm, Linear, Lookup, Plan, Step

SMALLEST = 4096  # weights; below, as in a classifier, int8 saves nothing


def quantize(plan: Plan, smallest: int = SMALLEST) -> Plan:
    """The plan with its `matrices` in int8, and attention in bfloat16; matrices that are in int8 already are unchanged.

    Steps that read a residual stream keep their weights in fp32 besides, for the outliers.
    """
    tensors, chosen = dict(plan.tensors), matrices(plan, smallest)
    streams = _streams(plan)

    def scales_of(name: str, weight: str) -> str:
        tensors[name], tensors[f"{name}.scales"] = quantize_rows(plan.tensors[weight])
        return f"{name}.scales"

    def quantized(step: Step) -> Step:
        if isinstance(step, LayerNorm):
            return step
        name = step.table if isinstance(step, Lookup) else step.weight
        if name in chosen:
            return replace(step, scales=scales_of(name, name))
        large = plan.tensors[name].size >= smallest
        if isinstance(step, Linear) and large and step.source.buffer in streams and step.scales is None:
            int8 = f"{name}.int8"
            return replace(step, weight=int8, scales=scales_of(int8, name), outlier_weight=name)
        return step

    return replace(plan.map_steps(quantized).with_attention_in(bfloat16=True), tensors=tensors)


def matrices(plan: Plan, smallest: int = SMALLEST) -> set[str]:
    """The matrices to quantize: the table of words, and the weights of linear steps but `unquantized_matrices`."""
    tables = {step.table for step in plan.steps() if isinstance(step, Lookup) and step.index.endswith("word")}
    large = {name for name in tables if plan.tensors[name].size >= smallest}
    candidates = large | {step.weight for step in plan.linear_steps()}
    chosen = candidates - unquantized_matrices(plan, smallest).keys()
    return {name for name in chosen if plan.tensors[name].dtype != np.int8}


def unquantized_matrices(plan: Plan, smallest: int = SMALLEST) -> dict[str, str]:
    """The weights of linear steps that stay in fp32, by name, each with the reason."""
    streams, reasons = _streams(plan), {}
    for step in plan.linear_steps():
        if step.scales is None and plan.tensors[step.weight].size < smallest:
            reasons[step.weight] = f"is small: fewer than {smallest:,} weights"
        elif step.outlier_weight is not None or (step.scales is None and step.source.buffer in streams):
            reasons[step.outlier_weight or step.weight] = (
                "reads the residual stream, which no norm keeps in range: outliers there are multiplied in fp32"
            )
    return reasons


def _streams(plan: Plan) -> set[str]:
    """Buffers to which all layers add and that nothing normalises, as MobileBERT's.

    In the published one a single feature reaches 2.5e7: int8 by the largest value of a row would erase all others.
    """
    added = {step.target.buffer for step in plan.linear_steps() if step.residual is not None}
    overwritten = {step.target.buffer for step in plan.linear_steps() if step.residual is None}
    normalised = {step.target.buffer for step in plan.steps() if isinstance(step, LayerNorm)}
    streams = added - overwritten - normalised
    gathers = (stage for stage in plan.stages if isinstance(stage, Gather))
    return streams | {gather.target.buffer for gather in gathers if gather.source.buffer in streams}


def quantize_rows(weight: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """[C', C] to int8 of the same shape and scales [C'], with weight ≈ int8 · scale."""
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale[:, 0]
