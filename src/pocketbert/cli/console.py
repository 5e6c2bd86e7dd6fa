"""Console output: tables on a terminal, JSON lines in a pipe; messages and progress on standard error."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click

from pocketbert.cli import cells
from pocketbert.cli.cells import Column, Text, styled
from pocketbert.cli.commands import click_option

json_option = click_option(
    "--json/--table",
    default=None,
    default_text="table on a terminal",
    help="Write JSON lines, or a table.",
)

_PATIENCE = 2.0  # seconds before a progress bar is worth its space
_INTERVAL = 0.1  # seconds between two updates of a progress bar
_PAGE = 1000  # rows of a table that are printed together
_CELL = 300  # characters of a text in a table
_BAR = 40  # columns of a progress bar
_NARROWEST = 40  # columns: in less, a table loses its texts
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# ── standard error ──


def columns_of_terminal() -> int:
    """The width of the terminal, or 80 where nobody knows it."""
    return max(_NARROWEST, shutil.get_terminal_size().columns)  # which some shells and schedulers say is 0


class MovingLines:
    """Lines at the end of standard error that are replaced as often as they change; nothing where that cannot be."""

    _shown: MovingLines | None = None  # there is one at a time; what is printed goes above it
    _turn = threading.RLock()

    def __init__(self) -> None:
        self._count = 0

    def show(self, lines: Sequence[Text]) -> None:
        """Replace the lines; what does not fit the terminal is left out."""
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return
        columns, rows = shutil.get_terminal_size()
        fitting = [str(cells.cut(line, columns - 1)) for line in lines[: rows - 1]]
        with self._turn:
            self.clear()
            click.echo("\n".join(fitting), err=True, nl=False)
            self._count = len(fitting)
            MovingLines._shown = self

    def clear(self) -> None:
        """Remove the lines."""
        with self._turn:
            if self._count:
                up = f"\x1b[{self._count - 1}A" if self._count > 1 else ""
                click.echo(f"\r{up}\x1b[J", err=True, nl=False)
            self._count, MovingLines._shown = 0, None


def echo(lines: Sequence[str | Text], *, stderr: bool = False) -> None:
    """Print lines, above those that move."""
    if (moving := MovingLines._shown) is not None:
        moving.clear()
    click.echo("\n".join(map(str, lines)), err=stderr)


def print_line(text: str, kind: str | None = None) -> None:
    """Print one line on standard error, with `kind` as its prefix: `error: …`, `note: …`."""
    prefix = styled(f"{kind}: ", "bold red" if kind == "error" else "bold") if kind else ""
    echo([f"{prefix}{plain(text)}"], stderr=True)


class LogHandler(logging.Handler):
    """Prints the log messages of the package as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print_line(record.getMessage(), "note")


@contextmanager
def busy(activity: str) -> Iterator[None]:
    """Show on a terminal what is being done, as long as the block runs."""
    line = MovingLines()
    line.show([Text(f"{activity} …", "dim")])
    try:
        yield
    finally:
        line.clear()


@contextmanager
def progress(unit: str, *, hidden: bool = False) -> Iterator[Callable[[int, float | None], None]]:
    """A progress bar on a terminal, which appears when the work takes long.

    Yields a function that takes the number of units done, and the fraction of the work where that is known.
    """
    line = MovingLines()
    started, updated = time.monotonic(), 0.0

    def advance(count: int, fraction: float | None) -> None:
        nonlocal updated
        seconds = time.monotonic() - started
        if hidden or seconds < max(_PATIENCE, updated + _INTERVAL):
            return
        updated = seconds
        shown = Text(f"{count:,} {unit} · {count / seconds:,.0f}/s")
        if fraction:
            done = round(_BAR * min(1.0, fraction))
            shown.append(" ").append("━" * done, "magenta").append("━" * (_BAR - done), "dim")
            shown.append(f" {timedelta(seconds=round(seconds / fraction - seconds))} left")
        line.show([shown])

    try:
        yield advance
    finally:
        line.clear()


# ── standard output ──


def use_json(json: bool | None) -> bool:
    """Whether to write JSON lines: as --json or --table chose, or by default when standard output is no terminal."""
    return json if json is not None else not sys.stdout.isatty()


def print_json(values: Mapping[str, Any]) -> None:
    """Write one JSON object as a line and flush it, for a reader may be waiting. UTF-8 in every locale.

    The line is written whole or not at all: signals are blocked meanwhile.
    """
    out, content = sys.stdout.buffer, json.dumps(values, ensure_ascii=False).encode() + b"\n"
    with signals_blocked():
        out.write(content)
        out.flush()


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block ends."""
    waiting: list[int] = []
    before: dict[signal.Signals, Any] = {}
    # A signal that this thread alone blocks goes to another one, such as one of NumPy's, and interrupts here anyway.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda received, _: waiting.append(received))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
        for received in dict.fromkeys(waiting):
            signal.raise_signal(received)


def print_text(text: str) -> None:
    """Write a text unchanged, and a line break."""
    out = sys.stdout.buffer
    out.write(text.encode() + b"\n")
    out.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]], *, numbers: Sequence[str] = ()) -> list[Text]:
    """The lines of a table; the columns in `numbers` are right-aligned and never wrapped."""
    heads = [Column(plain(name), name in numbers) for name in columns]
    return cells.table(heads, rows, columns_of_terminal())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table with long texts truncated; `numbers` as for `table`."""
    shown = [[plain(cell, _CELL) if isinstance(cell, str) else cell for cell in row] for row in rows]
    echo(table(columns, shown, numbers=numbers))


def print_wrapped(text: Text) -> None:
    """Print a text in lines that fit the terminal."""
    echo(cells.wrapped(text, columns_of_terminal()))


def directed(text: str) -> str:
    """A text with its own direction inside of a line of a terminal, if it is written from right to left."""
    return cells.isolated(Text(text)).plain


def print_metrics(columns: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics as a table: column → metric → value."""
    metrics = next(iter(columns.values()))
    rows = [(name, *(f"{values[name]:.4f}" for values in columns.values())) for name in metrics]
    print_table(["Metric", *columns], rows, numbers=list(columns))


@contextmanager
def growing_table(*, numbers: Sequence[str]) -> Iterator[Callable[[Sequence[str], Sequence[str | Text]], None]]:
    """A table of any length, printed page by page. Yields a function that adds a row, given its column names."""
    columns: Sequence[str] = ()
    page: list[Sequence[str | Text]] = []

    def add(names: Sequence[str], row: Sequence[str | Text]) -> None:
        nonlocal columns
        columns = names
        page.append(row)
        if len(page) == _PAGE:
            print_table(columns, page, numbers=numbers)
            page.clear()

    try:
        yield add
    finally:
        if page:
            print_table(columns, page, numbers=numbers)


def print_facts(rows: Sequence[tuple[str, str | Text]]) -> None:
    """Print names and their values, as a table without lines."""
    echo(facts(rows))


def facts(rows: Sequence[tuple[str, str | Text]]) -> list[Text]:
    """The lines of names and their values."""
    shown = [(Text(name, "dim"), plain(value) if isinstance(value, str) else value) for name, value in rows]
    return cells.grid(shown, columns_of_terminal())


def plain(text: str, limit: int | None = None) -> str:
    """A text that is safe for a terminal: control characters replaced, and truncated to `limit` characters."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    return text if limit is None or len(text) <= limit else f"{text[:limit].rstrip()}…"
