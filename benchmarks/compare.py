"""Two result files of one benchmark side by side: what became slower, larger or worse?

    python benchmarks/compare.py results/engines_AMD-EPYC_2026-11-21.csv results/engines_AMD-EPYC_2026-11-30.csv
    python benchmarks/compare.py before.csv after.csv --threshold 2

Rows belong together whose names and settings are the same; of several, the median counts. The exit status is 1 where a
measure is worse by more than the threshold, 2 where there is nothing to compare. Machines differ: compare runs of one.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# By column, or where a file has the columns measure, value and unit by unit and measure.
HIGHER = re.compile(
    r"(_|\b)per[_ ](second|cycle)|^(times|ratio|gain|share|score|plain|distilled|last|best|teacher)$"
    r"|accuracy|f1|^(plain|ray|local)_[12]$|spearman|agreement|faster_by"
)
LOWER = re.compile(
    r"(^|[_ (])(ms|mb|mib|seconds?)\b|_(ms|mb|mib|cpu|us)$|^(s|ms|milliseconds|mb|mib|us)$"
    r"|^(refused|failed|cycles|instructions|loads|spills)$"
    r"|loss|relative_difference|over_quiet",
    re.IGNORECASE,
)
# How it was measured, which may differ between runs.
UNUSED = re.compile(r"^(rounds?|runs|passes|seeds|deviation|standard.error|bar|target|verdict|unit|disturbed)$|each")
OLD_PER = re.compile(r"([_ ])a([_ ])(second|text)\b")  # in results from before 2026-12
Key = tuple[str, ...]


class Change(NamedTuple):
    """One measure before and after."""

    key: Key
    measure: str
    before: float
    after: float
    higher_is_better: bool

    @property
    def percent(self) -> float:
        """How much worse it is; negative where it is better."""
        if self.before == self.after:
            return 0.0
        worse, better = (self.before, self.after) if self.higher_is_better else (self.after, self.before)
        return 100 * (worse / better - 1) if better else float("inf")


def direction(name: str) -> bool | None:
    """Whether more of a measure is better; None for what is no measure."""
    if UNUSED.search(name):
        return None
    return True if HIGHER.search(name) else False if LOWER.search(name) else None


def renamed(name: str) -> str:
    """A column or measure as it is called today."""
    return OLD_PER.sub(r"\1per\2\3", name).replace("answers per second", "responses per second")


def number(text: str) -> float | None:
    """A number, if the text is one."""
    try:
        return float(text)
    except ValueError:
        return None


def read(path: Path) -> dict[tuple[Key, str], tuple[float, bool]]:
    """The measures of a file: (row, name) → (median, whether more is better)."""
    values: dict[tuple[Key, str], list[float]] = defaultdict(list)
    better: dict[tuple[Key, str], bool] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{renamed(name): value for name, value in row.items() if name} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        sys.exit(f"{path}: {error}")
    for row in rows:
        if {"measure", "value"} <= row.keys():
            row["measure"] = renamed(row["measure"])
            higher = direction(row["measure"])
            higher = direction(renamed(row.get("unit") or "")) if higher is None else higher
            measures = {"value": higher}
            key: Key = (row["measure"],)
        else:
            measures = {name: direction(name) for name in row}
            key = tuple(row[n] or "" for n, up in measures.items() if up is None and not UNUSED.search(n))
        for name, up in measures.items():
            value = number(row[name] or "")
            if up is not None and value is not None:
                values[key, name].append(value)
                better[key, name] = up
    return {place: (statistics.median(found), better[place]) for place, found in values.items()}


def compare(before: Path, after: Path) -> list[Change]:
    """Every measure that both files have, in the order of the first."""
    old, new = read(before), read(after)
    return [Change(*place, old[place][0], new[place][0], old[place][1]) for place in old if place in new]


def show(changes: Sequence[Change], threshold: float) -> int:
    """Print a table; how many measures are worse by more than `threshold` per cent."""
    names = [" · ".join(part for part in change.key if part) or "all" for change in changes]
    wide, measure = max(map(len, names)), max(len(change.measure) for change in changes)
    worse = 0
    for name, change in zip(names, changes, strict=True):
        verdict = "WORSE" if change.percent > threshold else "better" if change.percent < -threshold else ""
        worse += verdict == "WORSE"
        ratio = 100 * (change.after / change.before - 1) if change.before else 0.0
        numbers = f"{change.before:>12.6g} {change.after:>12.6g} {ratio:>+8.1f} %"
        print(f"{name:{wide}}  {change.measure:{measure}} {numbers}  {verdict}".rstrip())
    print(f"{worse} of {len(changes)} measures are worse by more than {threshold:g} %")
    return worse


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="results of earlier")
    parser.add_argument("after", type=Path, help="results of now")
    parser.add_argument("--threshold", type=float, default=5.0, metavar="PERCENT", help="[default: %(default)s]")
    given = parser.parse_args()
    changes = compare(given.before, given.after)
    if not changes:
        print(f"{given.before} and {given.after} have no row and measure in common", file=sys.stderr)
        sys.exit(2)
    sys.exit(1 if show(changes, given.threshold) else 0)


if __name__ == "__main__":
    main()
