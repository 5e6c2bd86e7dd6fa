"""Console output: tables on a terminal, JSON lines in a pipe; messages and progress on standard error."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from pocketbert.cli.commands import bold, click_option

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

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
_NARROWEST, _USUAL = 40, 80  # columns: in less than the first, a table loses its texts
_ISOLATE, _END_OF_ISOLATE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# ── standard error ──


def rich_console(*, stderr: bool = False) -> Console:
    """A rich console that prints texts as they are: no markup, no emoji codes, no automatic colours."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if console.width < _NARROWEST:  # 0 is what some shells and schedulers say of a width that they do not know
        console.width = _NARROWEST if console.width > 0 else _USUAL
    return console


def print_line(text: str, kind: str | None = None) -> None:
    """Print one line on standard error, with `kind` as its prefix: `error: …`, `note: …`."""
    prefix = bold(f"{kind}: ", "red" if kind == "error" else None) if kind else ""
    click.echo(f"{prefix}{plain(text)}", err=True)


class LogHandler(logging.Handler):
    """Prints the log messages of the package as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print_line(record.getMessage(), "note")


@contextmanager
def busy(activity: str) -> Iterator[None]:
    """Show on a terminal what is being done, as long as the block runs."""
    if not sys.stderr.isatty():  # checked here, since importing rich takes longer than an inference
        yield
        return
    with rich_console(stderr=True).status(f"[dim]{activity} …[/]"):
        yield


@contextmanager
def progress(unit: str, *, hidden: bool = False) -> Iterator[Callable[[int, float | None], None]]:
    """A progress bar on a terminal, which appears when the work takes long.

    Yields a function that takes the number of units done, and the fraction of the work where that is known.
    """
    if hidden or not sys.stderr.isatty():
        yield lambda count, fraction: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
        console=rich_console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None, left="")
    started, updated = time.monotonic(), 0.0

    def advance(count: int, fraction: float | None) -> None:
        nonlocal updated
        seconds = time.monotonic() - started
        if seconds < max(_PATIENCE, updated + _INTERVAL):
            return
        updated = seconds
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


def table(columns: Sequence[str], *, numbers: Sequence[str] = ()) -> Table:
    """An empty table; the columns in `numbers` are right-aligned and never wrapped."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=name in numbers, overflow="fold")
    return table


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[RenderableType]], *, numbers: Sequence[str] = ()
) -> None:
    """Print a table with long texts truncated; `numbers` as for `table`."""
    filled = table(columns, numbers=numbers)
    for row in rows:
        filled.add_row(*(isolated(plain(cell, _CELL) if isinstance(cell, str) else cell) for cell in row))
    rich_console().print(filled)


def directed(text: str) -> str:
    """A text with its own direction inside of a line of a terminal, if it is written from right to left."""
    from pocketbert.words import is_right_to_left  # which imports NumPy, that --help does without

    return f"{_ISOLATE}{text}{_END_OF_ISOLATE}" if sys.stdout.isatty() and is_right_to_left(text) else text


def isolated(cell: RenderableType) -> RenderableType:
    """A cell that stays in its column where a terminal orders its lines by the directions of scripts."""
    from rich.text import Text

    from pocketbert.words import is_right_to_left

    text = Text(cell) if isinstance(cell, str) else cell
    return Isolated(text) if isinstance(text, Text) and is_right_to_left(text.plain) else cell


class Isolated:
    """A text that is isolated from its neighbours, line by line, with the direction of its first letter.

    Otherwise a number or bracket after Arabic moves to its left, by Unicode's bidirectional algorithm (annex 9).
    """

    def __init__(self, text: Text) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the lines."""
        lines = self.text.wrap(console, options.max_width, overflow=options.overflow, no_wrap=options.no_wrap)
        for line in lines:
            line.rstrip()
            yield line.assemble(_ISOLATE, line, _END_OF_ISOLATE) if console.is_terminal else line

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Measure the text."""
        from rich.measure import Measurement

        return Measurement.get(console, options, self.text)


def print_metrics(columns: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics as a table: column → metric → value."""
    metrics = next(iter(columns.values()))
    rows = [(name, *(f"{values[name]:.4f}" for values in columns.values())) for name in metrics]
    print_table(["Metric", *columns], rows, numbers=list(columns))


@contextmanager
def growing_table(*, numbers: Sequence[str]) -> Iterator[Callable[[Sequence[str], Sequence[RenderableType]], None]]:
    """A table of any length, printed page by page. Yields a function that adds a row, given its column names."""
    columns: Sequence[str] = ()
    page: list[Sequence[RenderableType]] = []

    def add(names: Sequence[str], row: Sequence[RenderableType]) -> None:
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


def facts(rows: Sequence[tuple[str, RenderableType]]) -> Table:
    """Names and their values, as a table without lines."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, isolated(plain(value) if isinstance(value, str) else value))
    return table


def print_facts(rows: Sequence[tuple[str, RenderableType]]) -> None:
    """Print names and their values."""
    rich_console().print(facts(rows))


def plain(text: str, limit: int | None = None) -> str:
    """A text that is safe for a terminal: control characters replaced, and truncated to `limit` characters."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    return text if limit is None or len(text) <= limit else f"{text[:limit].rstrip()}…"
