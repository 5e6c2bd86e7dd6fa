"""What the benchmarks share: timing two things in turn, naming the machine, writing results that can be compared."""

from __future__ import annotations

import csv
import datetime
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def in_turn(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call of every candidate, one of each a round, after one round that does not count.

    Taking turns lets a busy neighbour slow all candidates alike, so that the ratio holds where single times do not. The
    pause before each call lets the threads of the one before fall asleep: they wait for more work spinning.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(rounds + 1):
        for name, call in candidates.items():
            time.sleep(0.01)
            start = time.perf_counter()
            call()
            if round_:
                times[name].append(time.perf_counter() - start)
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def machine() -> str:
    """The processor's name, short enough for a file name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return "-".join(line.split(":")[1].split())
    return platform.machine()


def write_results(what: str, rows: list[dict[str, Any]]) -> None:
    """Print `rows` as one line of JSON, the last, and keep them as results/<what>_<machine>_<date>.csv."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{what}_{machine()}_{today}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    json.dump(rows, sys.stdout)
    print()
