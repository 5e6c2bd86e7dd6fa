"""What the benchmarks share: comparing what took turns, and writing results that can be compared."""

from __future__ import annotations

import csv
import datetime
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketbert.bench.measure import machine_name

RESULTS = Path(__file__).parent / "results"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def results_path(what: str, suffix: str) -> Path:
    """results/<what>_<machine>_<date><suffix>; the folder is made."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{what}_{machine_name().replace(' ', '-')}_{today}{suffix}"


def write_results(what: str, rows: list[dict[str, Any]]) -> None:
    """Print `rows` as one line of JSON, the last, and keep them as CSV in `results`."""
    with results_path(what, ".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    json.dump(rows, sys.stdout)
    print()
