"""The texts that a command is asked about: arguments, the rows of a file, or standard input as it comes in."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import click

from pocketbert.errors import DataError, InputError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_BLOCK = 1 << 16  # bytes read at a time
_CHUNK = 256  # rows of a table at a time


class Item(NamedTuple):
    """One text, or pair, and where it stands."""

    text: str
    pair: str | None
    place: str


@dataclass
class Texts:
    """What to read, and how far that is; made by `source`.

    Lines are read as they come, so that files of any size need little memory and whoever types into a pipe is answered
    at once. Lines without text are skipped and counted.
    """

    given: Sequence[str]
    file: str | None
    pair: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    pairs: bool = False
    #: The part of all that has been read, where that is known.
    fraction: float | None = None
    skipped: int = 0

    def chunks(self) -> Iterator[list[Item]]:
        """Some texts at a time. Raises `InputError` or `DataError` for what is empty or cannot be read."""
        found = False
        for chunk in self._read():
            found = found or bool(chunk)
            if chunk:
                yield chunk
        if not found:
            raise InputError(f"{self._name}: has no text in it")

    @property
    def _name(self) -> str:
        return "standard input" if self.file == "-" else str(self.file)

    def _read(self) -> Iterator[list[Item]]:
        if self.file is None:
            yield [Item(text, self.pair, "") for text in self.given]
        elif self.file == "-":
            yield from self._lines(sys.stdin.buffer)
        elif Path(self.file).suffix.lower() in TABLES:
            yield from self._rows(Path(self.file))
        else:
            with Path(self.file).open("rb") as file:
                yield from self._lines(file)

    def _rows(self, path: Path) -> Iterator[list[Item]]:
        from pocketbert.data.tables import read_table

        table = read_table(path, text=self.text_column, text_pair=self.pair_column, labelled=False)
        if table.columns.text_pair is not None and not self.pairs:
            raise DataError(
                f"{path}: has two texts a row ({table.columns.text}, {table.columns.text_pair}): "
                "name one with --text-column"
            )
        for start in range(0, len(table), _CHUNK):
            rows = table.examples[start : start + _CHUNK]
            self.fraction = (start + len(rows)) / len(table)
            yield [Item(row.text, row.text_pair, f"line {row.line}") for row in rows]

    def _lines(self, file: BinaryIO) -> Iterator[list[Item]]:
        size, rest, number = _size(file), b"", 0
        while block := file.read1(_BLOCK):  # type: ignore[attr-defined] # what there is, without waiting for more
            *whole, rest = (rest + block).split(b"\n")
            items = [self._item(line, number + i) for i, line in enumerate(whole, start=1)]
            number += len(whole)
            self.fraction = file.tell() / size if size else None
            yield [item for item in items if item is not None]
        last = self._item(rest, number + 1) if rest else None
        yield [] if last is None else [last]

    def _item(self, line: bytes, number: int) -> Item | None:
        place = f"line {number}"
        text = decode(line, f"{self._name}, {place}").strip()
        if not text:
            self.skipped += 1
            return None
        return Item(text, self.pair, place)


def source(
    given: Sequence[str],
    file: str | None,
    *,
    pair: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    pairs: bool = False,
) -> Texts:
    """What the arguments name; standard input if they name "-", or nothing and it is no terminal.

    Raises:
        click.UsageError: the arguments contradict each other, or name nothing.
        InputError: an argument is empty or not UTF-8.
    """
    if given and file is not None:
        raise click.UsageError("give either TEXT or --file, not both")
    if list(given) == ["-"]:
        given, file = (), "-"
    if not given and file is None:
        if sys.stdin.isatty():
            raise click.UsageError("there is no text: give TEXT, name a --file, or pipe lines in")
        file = "-"
    for number, text in enumerate(given, start=1):
        check(text, f"text {number}")
    if pair is not None:
        check(pair, "the text of --pair")
    is_table = file is not None and Path(file).suffix.lower() in TABLES
    if (text_column or pair_column) and not is_table:
        raise click.UsageError(f"columns can be named of a --file that has some: {', '.join(TABLES)}")
    if pair is not None and is_table:
        raise click.UsageError("--pair goes with TEXT and lines; of a table name the column with --text-pair-column")
    return Texts(given, file, pair, text_column, pair_column, pairs)


def passage(text: str | None, file: str | None) -> str:
    """One long text: the one given, or a whole file, or all of standard input."""
    if text is not None and file is not None:
        raise click.UsageError("give either --context or --file, not both")
    if text is None and file in (None, "-"):
        if file is None and sys.stdin.isatty():
            raise click.UsageError("there is no passage: give --context TEXT, name a --file, or pipe it in")
        file, content = "standard input", sys.stdin.buffer.read()
    elif text is None:
        content = Path(str(file)).read_bytes()
    else:
        check(text, "the text of --context")
        return text
    found = decode(content, str(file))
    if not found.strip():
        raise InputError(f"{file}: has no text in it")
    return found


def check(text: str, what: str) -> None:
    """Refuse a text that is empty, or was not UTF-8 where it came from."""
    if not text.strip():
        raise InputError(f"{what} is empty: there is nothing to read in it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} is not UTF-8: {text!r:.60}") from None


def decode(content: bytes, what: str) -> str:
    """Bytes as UTF-8, with or without a byte order mark; raises `DataError`."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        from pocketbert.data.tables import not_text

        found = not_text(content) or (
            f"byte 0x{content[error.start]:02X} is not UTF-8. If it is Latin-1 (Windows), convert it: "
            "iconv -f WINDOWS-1252 -t UTF-8"
        )
        raise DataError(f"{what}: {found}") from None


def _size(file: BinaryIO) -> int:
    """The size of a regular file; 0 for what has none, or is none."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
