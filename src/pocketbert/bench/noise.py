"""How much other work on the machine has disturbed a measurement.

Two counters of the system show what was taken from the passes of an engine, and the passes themselves show the effect:

- A pass is interrupted when one of its threads lost its processor although it had work (an involuntary context
  switch). As long as no more than a quarter of the passes are, the median of all is a quantile of the others, at most
  their 67th percentile, so it still describes the undisturbed engine.
- Stolen is the time in which a virtual processor wanted to run and the host ran something else.
- Neither counter sees a neighbour that takes only memory bandwidth or shared cache; but then passes differ. On a calm
  machine (results/engines_AMD-EPYC_2026-11-21.csv), the median of our engine's rows was 2 % above the least in half of
  the rows, and 7 % in nine of ten.
"""

from __future__ import annotations

import os
from pathlib import Path

MOST_INTERRUPTED = 0.25  # of the passes, see above
MOST_STOLEN = 0.02  # of the processors' time; without neighbours on the host it is below 0.001
MOST_SPREAD = 1.15  # median over least: twice what nine of ten rows on a calm machine stay below


def interruptions() -> int | None:
    """How often threads of this process have lost their processor with work to do; None where no counter tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def stolen_seconds() -> float | None:
    """What a host has taken from the processors that this process may use, summed; None where no counter tells."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = [int(fields[8]) for fields in map(str.split, lines) if fields[0] in ours and len(fields) > 8]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def disturbance(median: float, least: float, interrupted: float | None, stolen: float | None) -> str:
    """Why passes count as disturbed, in words; empty for undisturbed ones.

    Args:
        median: of their times.
        least: of their times, in the same unit.
        interrupted: the share of the passes that lost a processor, nought to one.
        stolen: the share of the processors' time that a host took, nought to one.
    """
    reasons = []
    if interrupted is not None and interrupted > MOST_INTERRUPTED:
        reasons.append(f"{100 * interrupted:.0f} % of the passes were interrupted")
    if stolen is not None and stolen > MOST_STOLEN:
        reasons.append(f"{100 * stolen:.0f} % of the time was stolen by the host")
    if median > MOST_SPREAD * least:
        reasons.append(f"median {median / least:.2f} times the least")
    return ", ".join(reasons)
