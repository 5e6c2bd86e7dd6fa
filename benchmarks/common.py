"""What the benchmarks share: comparing what took turns, and writing results that can be compared."""

from __future__ import annotations

import csv
import datetime
import json
import os
import re
import signal
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketbert.machine import processor_description, processor_name

RESULTS = Path(os.environ.get("POCKETBERT_RESULTS", Path(__file__).parent / "results"))
TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()  # when a run began: midnight gives no other names


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def end_when_told() -> None:
    """End, with all that was started, on SIGTERM and SIGINT, which shells have programs in the background ignore."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


def results_path(what: str, suffix: str) -> Path:
    """results/<what>_<machine>_<date><suffix>; the folder is made."""
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{what}_{machine()}_{TODAY}{suffix}"


def machine() -> str:
    """The processor, in names of files: its model name and, since virtual machines shorten that, family and model."""
    lines = [line.partition(":") for line in processor_description().splitlines()]
    described = {key.strip(): value.strip() for key, _, value in lines}
    name = re.sub(r"\((?:R|TM)\)|@.*", "", processor_name())
    if "cpu family" in described:
        name += f" {described['cpu family']}-{described.get('model', '')}"
    return "-".join(re.findall(r"[\w.]+", name))


def keep_results(what: str, rows: list[dict[str, Any]]) -> None:
    """Keep `rows` as CSV in `results`; called for every new one, a run that is cut off leaves what it has come to."""
    path = results_path(what, ".csv")
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def write_results(what: str, rows: list[dict[str, Any]]) -> None:
    """Print `rows` as one line of JSON, the last, and keep them as CSV in `results`."""
    keep_results(what, rows)
    json.dump(rows, sys.stdout)
    print()
