"""The display of `bench`: results as they come, and the time left."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from pocketbert.cli import console
from pocketbert.cli.cells import Text

if TYPE_CHECKING:
    from pocketbert.bench.report import Report, Row

REFRESH = 0.5  # seconds between two updates of a terminal
NOTE = (
    "other work on the machine slowed these rows; 'disturbed' in the JSON gives the reason. Run again on a quiet "
    "machine, or compare the least times"
)


class Display:
    """Shows what is being done and what was measured; a context manager.

    Results go to standard output as tables or, where that is for JSON, to standard error. While the run goes on, a
    terminal shows the current step, the time left and the current figures. Where JSON is written and no terminal shows
    the results, standard error gets a line per row.

    Args:
        json: whether standard output is for JSON.
        full: whether to show the column of full runs.
    """

    def __init__(self, *, json: bool, full: bool) -> None:
        self.left: Callable[[], float] = lambda: 0.0  # seconds
        self._full, self._shown = full, 0
        self._json, self._lines = json, json and not sys.stderr.isatty()
        self._activity, self._refreshed = "", 0.0
        self._current: tuple[Sequence[Row], Report] | None = None  # rows that are not final
        self._measuring, self._ended = threading.Event(), threading.Event()
        self._moving, self._turn = console.MovingLines(), threading.Lock()

    def __enter__(self) -> Display:
        if sys.stderr.isatty():
            threading.Thread(target=self._keep_time, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._ended.set()
            self._moving.clear()

    def _refresh(self) -> None:
        """Show the line of the current step, and the table of the current rows."""
        left = timedelta(seconds=round(self.left()))
        line = Text(f"{left} left  " if left else "", "bold").append(console.plain(self._activity), "dim")
        table = [] if (current := self._current) is None else self._table(*current)
        with self._turn:
            if not self._ended.is_set():
                self._moving.show([line, *table])

    def _keep_time(self) -> None:
        while not self._ended.wait(REFRESH):
            if not self._measuring.is_set():  # else `watch` does it between turns, so that it disturbs none
                self._refresh()

    def describe(self, activity: str) -> None:
        """Show what is being done."""
        self._activity, self._current = activity, None
        self._measuring.clear()
        self._refresh()

    def watch(self, rows: Sequence[Row], report: Report) -> None:
        """Show rows that are not final."""
        self._current = rows, report
        self._measuring.set()
        if time.monotonic() - self._refreshed > REFRESH:
            self._refresh()
            self._refreshed = time.monotonic()

    def show(self, report: Report) -> None:
        """Show the rows that are new in the report, as final ones."""
        for (model, batch, length), rows in groupby(
            report.shapes[self._shown :], lambda row: (row.model, row.batch, row.length)
        ):
            if self._lines:
                for row in rows:
                    console.print_line(f"{model} {batch}×{length}, {_sentence(row, report)}")
            else:
                self._print([Text(f"{model}, {batch}×{length} tokens", "bold"), *self._table(list(rows), report)])
        self._shown, self._current = len(report.shapes), None
        self._measuring.clear()

    def _print(self, lines: Sequence[Text]) -> None:
        console.echo(lines, stderr=self._json)

    def _table(self, rows: Sequence[Row], report: Report) -> list[Text]:
        columns = ["Median\nms", "Least\nms", *(["After\nothers"] if self._full else []), "Of\npeak"]
        shown = []
        for place, row in enumerate(sorted(rows, key=lambda row: row.median_ms)):
            times = [f"{'~' if row.disturbed else ''}{row.median_ms:.2f}", f"{row.least_ms:.2f}"]
            times += [f"{row.after_others_ms:.2f}"] if self._full else []
            engine = f"{row.engine:{len('PocketBERT int8')}}"  # so that columns keep their places from table to table
            shown.append((engine, row.kernels, *times, _percent(report, row), "" if place else "fastest"))
        return console.table(["Engine", "Kernels", *columns, ""], shown, numbers=columns)

    def finish(self, report: Report) -> None:
        """Show all that is not about a single shape."""
        if self._lines:
            return
        if report.texts:
            numbers = ["Texts", "Tokens/s"]
            shown = []
            for row in report.texts:
                batch = f"{row.batch}, padded" if row.batch else "all, unpadded"
                shown.append((row.model, f"{row.texts:,}", row.engine, batch, f"{row.tokens_per_second:,.0f}"))
            self._print(console.table(["Model", "Texts", "Engine", "Batch", "Tokens/s"], shown, numbers=numbers))
        self._print(console.facts(list(_facts(report))))


def _percent(report: Report, row: Row) -> str:
    share = report.share(row)
    if share is None:
        return ""
    return f"{100 * share:.0f} %" if share <= 1 else ">100 %"  # the peak was measured while something else ran


def _sentence(row: Row, report: Report) -> str:
    kernels = f" ({row.kernels})" if row.kernels else ""
    share = f", {percent} of the peak" if (percent := _percent(report, row)) else ""
    disturbed = f"; disturbed: {row.disturbed}" if row.disturbed else ""
    return f"{row.engine}{kernels}: median {row.median_ms:.2f} ms, least {row.least_ms:.2f} ms{share}{disturbed}"


def _facts(report: Report) -> list[tuple[str, str]]:
    facts = [("machine", f"{report.machine}, {report.threads} threads")]
    for kernels, rates in report.peaks.items():
        facts.append(
            (f"peak, {kernels}", ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in rates.items()) + " GOP/s")
        )
    if not report.peaks:
        facts.append(("peak", "unknown: the native core is not built"))
    if report.disturbed:
        facts.append(("~ disturbed", f"{len(report.disturbed)} of {len(report.shapes)} rows: {NOTE}"))
    return facts + [("without", f"{', '.join(names)}: {reason}") for reason, names in _missing(report).items()]


def _missing(report: Report) -> dict[str, list[str]]:
    """By reason, the engines that did not take part; one that did in no form is listed once."""
    took_part = {_engine(row.engine) for row in report.shapes}
    missing: dict[str, list[str]] = {}
    for name, reason in report.missing.items():
        short = name if _engine(name) in took_part or reason.startswith("failed") else _engine(name)
        if short not in missing.setdefault(reason, []):
            missing[reason].append(short)
    return missing


def _engine(name: str) -> str:
    """The name of an engine without its precision and form."""
    return re.split(r" (?:fp32|bf16|int8)\b", name)[0]
