"""Rows of a file that cannot be used: an error at the first of them, or a list of all."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pocketbert.errors import DataError

T = TypeVar("T")


class BadRow(NamedTuple):
    """A row that was skipped: its line (0 where lines mean nothing), what is wrong with it, and what it holds."""

    line: int
    problem: str
    row: Any


class BadRows:
    """Receives the rows of a file that cannot be used.

    Args:
        path: the file.
        skip: collect them; otherwise the first one raises `DataError`.
    """

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self.path, self.skip, self.found = path, skip, list[BadRow]()

    def __call__(self, line: int, problem: str, row: Any = None) -> None:
        """Skip a row, or raise `DataError`."""
        if not self.skip:
            raise DataError(f"{self.path}, line {line}: {problem}")
        self.found.append(BadRow(line, problem, row))

    def check(self, good: int) -> None:
        """Raise `DataError` unless more rows are good than bad."""
        if len(self.found) > good:
            first = self.found[0]
            raise DataError(
                f"{self.path}: {len(self.found):,} of {len(self.found) + good:,} rows are bad, too many to be skipped; "
                f"the first is {_placed(first)}"
            )


def looked_at(items: Iterator[T], count: int) -> tuple[list[T], Iterator[T]]:
    """Return up to `count` first items, and all items; an error among the first comes after the items before it."""
    first: list[T] = []
    try:
        for item in islice(items, count):
            first.append(item)  # those before an error count
    except DataError as error:
        return first, chain(first, _raising(error))
    return first, chain(first, items)


def _raising(error: DataError) -> Iterator[Any]:
    yield from ()
    raise error


def _placed(row: BadRow) -> str:
    """Return what is wrong with a row and where, which the problem may say itself."""
    where = f"line {row.line}"
    return row.problem if not row.line or row.problem.startswith(where) else f"{where}: {row.problem}"


def describe_bad_rows(bad: Sequence[BadRow], listed: int = 3) -> str:
    """Return how many rows were skipped, and the first of them, for the log."""
    first = "; ".join(_placed(row)[:180] for row in bad[:listed])
    count = f"{len(bad):,} bad rows" if len(bad) > 1 else "1 bad row"
    return f"skipped {count}: {first}{'; …' if len(bad) > listed else ''}"


def write_bad_rows(path: Path, files: Iterable[tuple[str, Sequence[BadRow]]]) -> None:
    """Write skipped rows as JSON lines: the name of their file, their line, what is wrong, and what they hold."""
    from pocketbert.checkpoints import write_text

    lines = [
        json.dumps({"file": name, **row._asdict()}, ensure_ascii=False, default=str)
        for name, bad in files
        for row in bad
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))
