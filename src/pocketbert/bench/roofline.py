"""The operations of one pass, and the most operations per second that this machine can do."""

from __future__ import annotations

from collections.abc import Sequence

from pocketbert.runtime.engine import backend
from pocketbert.runtime.plan import Attention, Gather, Linear, Plan, Rows

ARITHMETIC = ("fp32", "bf16", "int8")


def operations(plan: Plan, lengths: Sequence[int]) -> int:
    """Multiplications and additions of the linear steps and of attention, for sequences of these lengths.

    All else (norms, activations, lookups) is left out, as in the papers.
    """
    rows, total = sum(lengths), 0
    for stage in plan.stages:
        if isinstance(stage, Attention):  # scores, then the sum of values
            total += sum(2 * (stage.query.width + stage.value.width) * n * n for n in lengths)
        elif isinstance(stage, Gather):
            rows = sum(lengths) if stage.selected else len(lengths)
        elif isinstance(stage, Rows):
            steps = (step for step in stage.steps if isinstance(step, Linear))
            total += sum(2 * rows * plan.tensors[step.weight].size for step in steps)
    return total


def machine_peak(threads: int | None = None) -> dict[str, float]:
    """Operations per second by arithmetic, measured with all threads on the kernels that the engine would use.

    Loops of multiply-adds in registers: no memory is read, so no program for these kernels can be faster. An arithmetic
    that the processor has no instructions for is missing; the result is empty where the native core was not built.
    """
    kernels, usable, _ = backend()
    if kernels is None:
        return {}
    from pocketbert._core import peak_flops

    rates = {arithmetic: peak_flops(arithmetic, threads or usable, kernels) for arithmetic in ARITHMETIC}
    return {arithmetic: rate for arithmetic, rate in rates.items() if rate is not None}
