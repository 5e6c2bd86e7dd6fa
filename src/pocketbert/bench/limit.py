"""How much arithmetic a pass takes, and how much of it this machine can do in a second at most."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pocketbert.runtime.engine import native_core, usable_threads
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


def machine_limit(threads: int | None = None) -> dict[str, float]:
    """Operations a second by arithmetic, measured with all threads on the kernels that the engine would take.

    Loops of multiply-adds in registers: no memory is read, so no program for these kernels can be faster. What the
    processor has no instructions for is missing, and everything is where the native core was not built.
    """
    core = native_core()
    if core is None:
        return {}
    from pocketbert._core import limit

    threads = threads or usable_threads()
    kernels = core(1, os.environ.get("POCKETBERT_KERNEL")).kernels
    rates = {arithmetic: limit(arithmetic, threads, kernels) for arithmetic in ARITHMETIC}
    return {arithmetic: rate for arithmetic, rate in rates.items() if rate is not None}
