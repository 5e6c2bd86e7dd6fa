"""The operations of one pass, and the most operations per second that this machine can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def peak(kernels: str, arithmetic: str, threads: int) -> float | None:
    """Operations per second of a set of kernels in a loop of multiply-adds in registers, on so many threads.

    No memory is read, so no program for these kernels can be faster. None where it has no instructions for the
    arithmetic.
    """
    from pocketbert.runtime.core import peak_flops

    return peak_flops(arithmetic, threads, kernels)


def peaks(*, all_kernels: bool = False) -> dict[str, dict[str, float]]:
    """The `peak` by kernels and arithmetic, with all threads that engines would use.

    Of the kernels that engines use and of the fastest, or of all that the processor can run; empty where the native
    core was not built.
    """
    used, threads, _ = backend()
    if used is None:
        return {}
    from pocketbert.runtime.core import available_kernels

    available = available_kernels()
    names = available if all_kernels else dict.fromkeys((used, available[0]))
    measured = {name: {arithmetic: peak(name, arithmetic, threads) for arithmetic in ARITHMETIC} for name in names}
    return {name: {key: rate for key, rate in of.items() if rate is not None} for name, of in measured.items()}


def roofline(peaks: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The most operations per second by arithmetic, with whichever kernels: no engine can be faster."""
    return {name: max(of[name] for of in peaks.values() if name in of) for of in peaks.values() for name in of}
