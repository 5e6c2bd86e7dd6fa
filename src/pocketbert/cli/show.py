"""What the shell shows: tables to people, JSON lines to pipes, remarks and progress on standard error."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from pocketbert.cli.commands import bold, option

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

as_json = option("--json/--table", default=None, help="JSON lines, or a table; else a table on a terminal.")

_PATIENCE = 2.0  # seconds before a progress bar is worth its place
_BETWEEN = 0.1  # seconds from one look of a progress bar to the next
_PAGE = 1000  # rows of a table that are shown together
_CELL = 300  # letters of a text in a table
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# ── standard error ──


def console(*, stderr: bool = False) -> Console:
    """Where people read. Texts are shown as they are: no markup, no emoji codes, no guesses at what to colour."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(text: str, kind: str | None = None) -> None:
    """One line on standard error, as `error: …` or `note: …` where a kind is given."""
    start = bold(f"{kind}: ", "red" if kind == "error" else None) if kind else ""
    click.echo(f"{start}{plain(text)}", err=True)


class Notes(logging.Handler):
    """Says what the package logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        say(record.getMessage(), "note")


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say on a terminal, for as long as the block runs, what takes the time."""
    if not sys.stderr.isatty():  # asked here, for importing rich would take longer than the answer
        yield
        return
    with console(stderr=True).status(f"[dim]{what} …[/]"):
        yield


@contextmanager
def progress(unit: str, *, hidden: bool = False) -> Iterator[Callable[[int, float | None], None]]:
    """A bar on a terminal that appears when the work turns out to be long.

    The block calls what it gets with the number of things done in all, and the fraction of all where that is known.
    """
    if hidden or not sys.stderr.isatty():
        yield lambda count, fraction: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    where = console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"), console=where, transient=True
    )
    task = bar.add_task("", total=None, left="")
    begun, shown = time.monotonic(), 0.0

    def advance(count: int, fraction: float | None) -> None:
        nonlocal shown
        seconds = time.monotonic() - begun
        if seconds < max(_PATIENCE, shown + _BETWEEN):
            return
        shown = seconds
        left = f"{timedelta(seconds=round(seconds / fraction - seconds))} left" if fraction else ""
        description = f"{count:,} {unit} · {count / seconds:,.0f}/s"
        bar.update(task, description=description, left=left, total=1.0 if fraction else None, completed=fraction or 0.0)
        bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


# ── standard output ──


def as_lines(wanted: bool | None) -> bool:
    """Whether to write JSON lines: as asked for, or else unless a person looks at standard output."""
    return wanted if wanted is not None else not sys.stdout.isatty()


def line(values: Mapping[str, Any]) -> None:
    """Write one JSON object, at once: a reader may wait for it. UTF-8, whatever the locale.

    It is written to its end, or not at all: signals wait for as long.
    """
    out, content = sys.stdout.buffer, json.dumps(values, ensure_ascii=False).encode() + b"\n"
    with _undisturbed():
        out.write(content)
        out.flush()


@contextmanager
def _undisturbed() -> Iterator[None]:
    if sys.platform == "win32":  # a write is not interrupted there
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def text(value: str) -> None:
    """Write a text as it is, and an end of line."""
    out = sys.stdout.buffer
    out.write(value.encode() + b"\n")
    out.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[RenderableType]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table, long texts cut; the columns named in `numbers` stand to the right and are never broken."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in numbers else "left", no_wrap=name in numbers, overflow="fold")
    for row in rows:
        made.add_row(*(plain(cell, _CELL) if isinstance(cell, str) else cell for cell in row))
    console().print(made)


@contextmanager
def growing_table(*, numbers: Sequence[str]) -> Iterator[Callable[[Sequence[str], Sequence[RenderableType]], None]]:
    """A table of any length, printed page by page; the block adds rows, each with the names of its columns."""
    columns: Sequence[str] = ()
    page: list[Sequence[RenderableType]] = []

    def add(names: Sequence[str], row: Sequence[RenderableType]) -> None:
        nonlocal columns
        columns = names
        page.append(row)
        if len(page) == _PAGE:
            table(columns, page, numbers=numbers)
            page.clear()

    try:
        yield add
    finally:
        if page:
            table(columns, page, numbers=numbers)


def facts(rows: Sequence[tuple[str, RenderableType]]) -> None:
    """Print names and values."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, plain(value) if isinstance(value, str) else value)
    console().print(made)


def plain(text: str, limit: int | None = None) -> str:
    """A text from a file for a terminal: without what would steer it, and cut where it is long."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    return text if limit is None or len(text) <= limit else f"{text[:limit].rstrip()}…"
