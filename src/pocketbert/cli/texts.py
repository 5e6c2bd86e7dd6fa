"""The texts that a command is asked about: arguments, the rows of a file, or standard input as it comes in."""

from __future__ import annotations

import os
import select
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


class Item(NamedTuple):
    """One text, or pair, and where it stands."""

    text: str
    pair: str | None
    place: str


@dataclass
class Texts:
    """What to read, and how far that is; made by `source`.

    All is read as it comes, so that files of any size need little memory and whoever types into a pipe is answered at
    once. Lines without text are skipped and counted.
    """

    given: Sequence[str]
    file: str | None
    pair: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    pairs: bool = False
    #: The part of all that has been given out, where that is known.
    fraction: float | None = None
    skipped: int = 0

    def items(self) -> Iterator[Item | None]:
        """Every text, and None where the next one is not there yet.

        Raises `InputError` or `DataError` for what is empty or cannot be read, after what stands before it.
        """
        found = False
        for item in self._read():
            found = found or item is not None
            yield item
        if not found:
            raise InputError(f"{self.name}: has no text in it")

    @property
    def name(self) -> str:
        """What is read, for people."""
        return "standard input" if self.file == "-" else str(self.file)

    def _read(self) -> Iterator[Item | None]:
        if self.file is None:
            yield from (Item(text, self.pair, "") for text in self.given)
        elif self.file == "-":
            yield from self._lines(sys.stdin.buffer)
        elif Path(self.file).suffix.lower() in TABLES:
            yield from self._rows(Path(self.file))
        else:
            with Path(self.file).open("rb") as file:
                yield from self._lines(file)

    def _rows(self, path: Path) -> Iterator[Item]:
        from pocketbert.data.tables import TableReader

        rows = TableReader(path, text=self.text_column, text_pair=self.pair_column, labelled=False)
        if rows.columns.text_pair is not None and not self.pairs:
            rows.close()
            raise DataError(
                f"{path}: has two texts a row ({rows.columns.text}, {rows.columns.text_pair}): "
                "name one with --text-column"
            )
        for row in rows:
            self.fraction = rows.fraction
            yield Item(row.text, row.text_pair, f"line {row.line}")

    def _lines(self, file: BinaryIO) -> Iterator[Item | None]:
        size, done, number = _size(file), 0, 0
        parts: list[bytes] = []  # of a line whose end is not there yet
        for block in _blocks(file):
            if block is None:
                yield None
                continue
            *ends, rest = block.split(b"\n")
            for end in ends:
                number += 1
                line, parts = b"".join((*parts, end)), []
                done += len(line) + 1
                self.fraction = done / size if size else None
                if (item := self._item(line, number)) is not None:
                    yield item
            parts.append(rest)
            if len(parts) > 1:
                _check_length(parts, f"{self.name}, line {number + 1}")
        if (rest := b"".join(parts)) and (item := self._item(rest, number + 1)) is not None:
            yield item

    def _item(self, line: bytes, number: int) -> Item | None:
        place = f"line {number}"
        text = decode(line, f"{self.name}, {place}").strip()
        if not text:
            self.skipped += 1
            return None
        return Item(text, self.pair, place)


def _check_length(line: Sequence[bytes], where: str) -> None:
    from pocketbert.data.tables import LONGEST_LINE, too_long

    if sum(map(len, line)) > LONGEST_LINE:
        raise DataError(f"{where}: {too_long()}")


def _blocks(file: BinaryIO) -> Iterator[bytes | None]:
    """What there is, and None before a wait for more."""
    while block := file.read1(_BLOCK):  # type: ignore[attr-defined] # what there is, without waiting for more
        yield block
        if not _is_ready(file):
            yield None


def _is_ready(file: BinaryIO) -> bool:
    """Whether something is known to be there."""
    try:
        return bool(select.select([file], [], [], 0)[0])
    except (OSError, ValueError):  # no file of the system, or a pipe of Windows
        return False


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
