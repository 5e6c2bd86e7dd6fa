"""Comparison of two models on the same examples: differences with intervals, and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pocketbert.checkpoints import write_text
from pocketbert.errors import DataError
from pocketbert.metrics import smaller_is_better
from pocketbert.reports.intervals import interval, mcnemar, resampled_both
from pocketbert.reports.options import CompareOptions
from pocketbert.reports.page import note, page, section, table
from pocketbert.reports.report import REPORT
from pocketbert.reports.sections import score
from pocketbert.tasks.outcomes import FILE, Outcomes, Shown, read_outcomes

SURE = 0.05
"""The p-value below which a difference is significant."""


@dataclass(frozen=True)
class Difference:
    """One metric of two models."""

    first: float
    second: float
    low: float | None
    """The central 95 % of the differences in resamples, the second less the first; None for other metrics."""
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Two models on one set of examples."""

    examples: int
    metrics: dict[str, Difference]
    only_first: int | None
    """Examples that only the first model has right; None where the labels are numbers."""
    only_second: int | None
    p_value: float | None
    """Of McNemar's exact test: the probability of numbers at least as unequal if both models are equally good."""
    lines_first: list[int]
    """Lines of the examples that only the first model has right, if they have lines."""
    lines_second: list[int]

    @property
    def better(self) -> str | None:
        """The one that the examples show to be better, "first" or "second"; None where they show no difference.

        McNemar's test decides, and of numbers the interval of the main metric.
        """
        metric, main = next(iter(self.metrics.items()))
        if self.p_value is not None and self.only_first is not None and self.only_second is not None:
            if self.p_value >= SURE:
                return None
            return "first" if self.only_first > self.only_second else "second"
        if main.low is None or main.high is None or main.low <= 0 <= main.high:
            return None
        return "second" if (main.low > 0) is not smaller_is_better(metric) else "first"


@dataclass(frozen=True)
class CompareResult:
    """Result of `compare`: the comparisons by the name of their set."""

    sets: dict[str, Comparison]


def compare(options: CompareOptions) -> CompareResult:
    """Compare two models by what they answered for the same examples.

    Args:
        options: where the answers are.

    Raises:
        CheckpointError: a file cannot be read, or `output` cannot be written.
        DataError: there are no answers, or they are for other examples, labels or tasks.
    """
    first, second = (_read(Path(name)) for name in (options.first, options.second))
    names = (str(options.first), str(options.second))
    if first.keys() != second.keys():
        raise DataError(f"{names[0]} has the sets {', '.join(first)}, and {names[1]} {', '.join(second)}")
    for name in first:
        _check(names, first[name], second[name])
    result = CompareResult({name: _compared(first[name], second[name]) for name in first})
    if options.output is not None:
        write_text(options.output, _page(names, result, first, second))
    return result


def _read(path: Path) -> dict[str, Outcomes]:
    """Return the outcomes that a folder, a report or a file of outcomes stands for."""
    folder = path.parent if path.name in (REPORT, FILE) else path
    for found in (folder / FILE, folder / "evaluation" / FILE):
        if found.is_file():
            return read_outcomes(found)[1]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    raise DataError(
        f"{path}: no {FILE} in it or in its evaluation/: give an output folder of finetune, distill, or "
        "evaluate --output"
    )


def _check(names: tuple[str, str], first: Outcomes, second: Outcomes) -> None:
    """Raise `DataError` unless both are answers to the same questions."""
    remedy = "evaluate both on one file: pocketbert evaluate MODEL DATA --output FOLDER"
    if first.kind != second.kind:
        raise DataError(f"{names[0]} predicts {first.kind}, and {names[1]} {second.kind}: there is nothing to compare")
    if (first.examples, len(first)) != (second.examples, len(second)):
        raise DataError(
            f"{names[0]} was evaluated on {len(first):,} examples of {first.file}, and {names[1]} on "
            f"{len(second):,} different ones of {second.file}: {remedy}"
        )
    if first.answers != second.answers:
        raise DataError(f"{names[0]} and {names[1]} were evaluated on the same texts with different labels: {remedy}")
    if {*first.labels} != {*second.labels}:
        odd = sorted({*first.labels} ^ {*second.labels})
        raise DataError(f"{names[0]} and {names[1]} have different labels: only one of them has {', '.join(odd[:5])}")


def _compared(first: Outcomes, second: Outcomes) -> Comparison:
    drawn, others = resampled_both(first, second)
    metrics = {}
    for name, value in first.metrics.items():
        if name not in second.metrics:
            continue
        low: float | None = None
        high: float | None = None
        if name in drawn and name in others:
            low, high = interval(others[name] - drawn[name])
        metrics[name] = Difference(value, second.metrics[name], low, high)
    if not metrics:
        raise DataError("the two evaluations have no metric in common: evaluate both models again")
    if "right" not in first.columns:
        return Comparison(len(first), metrics, None, None, None, [], [])
    right, other = first.columns["right"], second.columns["right"]
    only_first, only_second, chance = mcnemar(right, other)
    lines = first.lines or [0] * len(first)
    return Comparison(
        examples=len(first),
        metrics=metrics,
        only_first=only_first,
        only_second=only_second,
        p_value=chance,
        lines_first=[line for line, a, b in zip(lines, right, other, strict=True) if line and a and not b],
        lines_second=[line for line, a, b in zip(lines, right, other, strict=True) if line and b and not a],
    )


def verdict(names: tuple[str, str], one: Comparison) -> str:
    """Return what the comparison shows, in a sentence or two."""
    counts = ""
    if one.p_value is not None:
        counts = (
            f"Of {one.examples:,} examples, only {names[0]} is correct on {one.only_first:,}, and only {names[1]} "
            f"on {one.only_second:,}: p = {one.p_value:.2g} (McNemar's test). "
        )
    if one.better is None:
        return f"{counts}The difference is not significant."
    return f"{counts}{names[one.better == 'second']} is better."


# ── the page ──


def _page(
    names: tuple[str, str], result: CompareResult, first: Mapping[str, Outcomes], second: Mapping[str, Outcomes]
) -> str:
    parts = []
    for name, one in result.sets.items():
        several = f" ({name})" if len(result.sets) > 1 else ""
        rows = [
            [metric, score(each.first), score(each.second), f"{each.second - each.first:+.4f}", limits(each)]
            for metric, each in one.metrics.items()
        ]
        header = ("metric", *names, "difference", "95 % interval")
        parts += [
            section(
                f"Scores{several}",
                f"<p><b>{escape(verdict(names, one))}</b></p>",
                table(header, rows, numbers=(1, 2, 3, 4)),
                note("The interval covers the central 95 % of the differences in resamples of the examples."),
            ),
            _only(f"Only {names[0]} is correct{several}", one.lines_first, second[name].errors),
            _only(f"Only {names[1]} is correct{several}", one.lines_second, first[name].errors),
        ]
    files = ", ".join(dict.fromkeys(f"{len(one):,} examples of {one.file}" for one in first.values()))
    return page(f"{names[0]} and {names[1]}", f"Two models on {files}, compared by PocketBERT.", *parts)


def limits(one: Difference) -> str:
    """Return the interval of a difference as text; nothing where there is none."""
    known = one.low is not None and one.high is not None and math.isfinite(one.low)
    return f"{one.low:+.4f} to {one.high:+.4f}" if known else ""


def _only(title: str, lines: list[int], errors: list[Shown]) -> str:
    """Return the lines that one model alone has right, and the texts that are among the errors of the other."""
    if not lines:
        return ""
    known = [one for one in errors if one.line in {*lines}]
    rows = [(f"{one.line}", one.label, one.predicted, f"{one.text} {one.second or ''}"[:400]) for one in known]
    shown = ", ".join(f"{line}" for line in lines[:200]) + (", …" if len(lines) > 200 else "")
    listing = table(("line", "label", "the other model predicts", "text"), rows, numbers=(0,)) if rows else ""
    return section(title, listing, note(f"Lines: {shown}"))
