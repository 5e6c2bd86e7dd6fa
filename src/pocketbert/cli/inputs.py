"""Input texts of a command: its arguments, the rows of a file, or standard input as it arrives."""

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

from pocketbert.cli import console
from pocketbert.errors import DataError, InputError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_BLOCK = 1 << 16  # bytes per read


class Item(NamedTuple):
    """One text, or pair of texts, and its location in the input."""

    text: str
    pair: str | None
    location: str


@dataclass
class TextSource:
    """Texts to read, and how far reading has come; made by `text_source`.

    Everything is read as it arrives, so that files of any size need little memory and a line typed into a pipe is
    answered at once. Lines without text are skipped and counted.
    """

    arguments: Sequence[str]
    file: str | None
    pair: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    pairs: bool = False
    #: The fraction of the input that has been read, where its size is known.
    fraction: float | None = None
    skipped: int = 0

    def items(self) -> Iterator[Item | None]:
        """Iterate over the texts, with None wherever the next one has not arrived yet.

        Raises `InputError` or `DataError` for what is empty or cannot be read, after the items before it.
        """
        is_empty = True
        for item in self._read():
            is_empty = is_empty and item is None
            yield item
        if is_empty:
            raise InputError(f"{self.name}: contains no text")

    @property
    def name(self) -> str:
        """The input's name in messages."""
        return "standard input" if self.file == "-" else str(self.file)

    def _read(self) -> Iterator[Item | None]:
        if self.file is None:
            yield from (Item(text, self.pair, "") for text in self.arguments)
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
                f"{path}: has two texts per row ({rows.columns.text}, {rows.columns.text_pair}): "
                "select one with --text-column"
            )
        for row in rows:
            self.fraction, self.skipped = rows.fraction, rows.skipped
            yield Item(row.text, row.text_pair, f"line {row.line}")
        self.skipped = rows.skipped

    def _lines(self, file: BinaryIO) -> Iterator[Item | None]:
        size, done, number = _size(file), 0, 0
        parts: list[bytes] = []  # of a line whose end has not arrived yet
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
        location = f"line {number}"
        if number == 1:
            self._refuse_binary(line)
        text = decode(line, f"{self.name}, {location}").strip()
        if number == 1:
            self._note_rows(text)
        if not text:
            self.skipped += 1
            return None
        return Item(text, self.pair, location)

    def _refuse_binary(self, first: bytes) -> None:
        """Raise `DataError` for an input that begins as a document or archive does, parts of which may be text."""
        from pocketbert.data.files import not_text

        if problem := not_text(first):
            raise DataError(f"{self.name}: {problem}")

    def _note_rows(self, first: str) -> None:
        """Note that lines look like the rows of a table, which are read as texts, as a whole."""
        from pocketbert.data.formats import row_format

        if found := row_format(first):
            kind, suffix = found
            ending = f"a file whose name ends in {suffix}"
            how = f"save them as {ending}, and read it with --file" if self.file == "-" else f"rename it to {ending}"
            console.print_line(f"{self.name} looks like {kind}, and each of its lines is read as a text; {how}", "note")


def _check_length(line: Sequence[bytes], location: str) -> None:
    from pocketbert.data.files import LONGEST_LINE, too_long

    if sum(map(len, line)) > LONGEST_LINE:
        raise DataError(f"{location}: {too_long()}")


def _blocks(file: BinaryIO) -> Iterator[bytes | None]:
    """Blocks of a file as they arrive, and None before each wait for more."""
    while block := file.read1(_BLOCK):  # type: ignore[attr-defined] # returns what has arrived, without waiting
        yield block
        if not _is_ready(file):
            yield None


def _is_ready(file: BinaryIO) -> bool:
    """Whether a file is known to have more to read now."""
    try:
        return bool(select.select([file], [], [], 0)[0])
    except (OSError, ValueError):  # not a file of the system, or a pipe on Windows
        return False


def text_source(
    arguments: Sequence[str],
    file: str | None,
    *,
    pair: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    pairs: bool = False,
) -> TextSource:
    """The texts that a command line selects; standard input for "-", and when it selects none and pipes some in.

    Raises:
        click.UsageError: the arguments contradict each other, or select no text.
        InputError: an argument is empty or not UTF-8.
    """
    if arguments and file is not None:
        raise click.UsageError("give either TEXT or --file, not both")
    if list(arguments) == ["-"]:
        arguments, file = (), "-"
    if not arguments and file is None:
        if sys.stdin.isatty():
            raise click.UsageError("no text: give TEXT or --file, or pipe lines in")
        file = "-"
    for number, text in enumerate(arguments, start=1):
        check_text(text, f"text {number}")
        note_file(text, "--file")
    if pair is not None:
        check_text(pair, "the text of --pair")
    is_table = file is not None and Path(file).suffix.lower() in TABLES
    if (text_column or pair_column) and not is_table:
        raise click.UsageError(f"columns can only be selected in a --file that has columns: {', '.join(TABLES)}")
    if pair is not None and is_table:
        raise click.UsageError("--pair goes with TEXT and lines; in a table, select the column with --text-pair-column")
    return TextSource(arguments, file, pair, text_column, pair_column, pairs)


def read_texts(path: str | Path) -> Iterator[str]:
    """The texts of a file: its lines, or a column of a table."""
    return (item.text for item in text_source((), str(path)).items() if item is not None)


def read_passage(text: str | None, file: str | None) -> str:
    """One long text: `text` itself, a whole file, or all of standard input."""
    if text is not None and file is not None:
        raise click.UsageError("give either --context or --file, not both")
    if text is None and file in (None, "-"):
        if file is None and sys.stdin.isatty():
            raise click.UsageError("no passage: give --context or --file, or pipe it in")
        file, content = "standard input", sys.stdin.buffer.read()
    elif text is None:
        content = Path(str(file)).read_bytes()
    else:
        check_text(text, "the text of --context")
        note_file(text, "--file")
        return text
    passage = decode(content, str(file))
    if not passage.strip():
        raise InputError(f"{file}: contains no text")
    return passage


def note_file(text: str, option: str) -> None:
    """Note that a text is the name of a file, which `option` reads."""
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return
    if is_file:
        console.print_line(
            f"{text} is used as a text, but a file of that name exists: {option} reads what it holds", "note"
        )


def check_text(text: str, name: str) -> None:
    """Raise `InputError` for a text that is empty, or was not UTF-8 where it came from."""
    if not text.strip():
        raise InputError(f"{name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is not UTF-8: {text!r:.60}") from None


def decode(content: bytes, name: str) -> str:
    """Decode UTF-8, with or without a byte order mark. Raises `DataError`."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        from pocketbert.data.files import not_text

        problem = not_text(content) or (
            f"byte 0x{content[error.start]:02X} is not UTF-8. If it is Latin-1 (Windows), convert it: "
            "iconv -f WINDOWS-1252 -t UTF-8"
        )
        raise DataError(f"{name}: {problem}") from None


def _size(file: BinaryIO) -> int:
    """The size of a regular file in bytes; 0 for anything else."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
