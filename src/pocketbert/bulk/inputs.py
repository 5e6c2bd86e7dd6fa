"""The rows of files, in chunks: one chunk becomes one shard of results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pocketbert.bulk.storage import Source, fetched
from pocketbert.data.files import LONGEST_LINE, check_file, not_text, not_utf8, too_long
from pocketbert.data.tables import TableReader
from pocketbert.errors import DataError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_CHARACTERS = 1 << 24  # of a chunk, at most, but for its last row


class Row(NamedTuple):
    """One row of input."""

    text: str
    text_pair: str | None
    kept: tuple[Any, ...]
    line: int


@dataclass
class Chunk:
    """Consecutive rows of the input, and where they come from.

    Args:
        number: of the chunk, from 0.
        rows: at least one.
        files: the place in `rows` of the first row of a file → the file's name.
    """

    number: int
    rows: list[Row] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)

    def place(self, row: int) -> str:
        """The file and line of a row, for messages."""
        first = max(start for start in self.files if start <= row)
        return f"{self.files[first]}, line {self.rows[row].line}"

    def sha256(self) -> str:
        """The hash of what is in the rows."""
        content = json.dumps([row[:3] for row in self.rows], default=str)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Inputs:
    """The rows of several files; iterating reads them again.

    Args:
        sources: the files, all of the same columns.
        text_column: of the text in tables [default: detected].
        pair_column: of the second text in tables [default: detected].
        pair: the second text of lines.
        pairs: whether rows may have two texts.
        keep: columns whose values the rows have as well.
        shard_rows: rows of a chunk, but the last.

    Attributes:
        skipped: rows without text so far.
        fraction: of the input that was read.
    """

    sources: Sequence[Source]
    text_column: str | None = None
    pair_column: str | None = None
    pair: str | None = None
    pairs: bool = False
    keep: tuple[str, ...] = ()
    shard_rows: int = 8192
    skipped: int = 0
    fraction: float = 0.0
    _share: float = field(default=0.0, init=False)  # of the file that is being read, about

    def chunks(self) -> Iterator[Chunk]:
        """Read the rows, a chunk at a time.

        Raises:
            DataError: a file cannot be read, has other columns than the first, or a row cannot be used.
        """
        self.skipped, characters, chunk = 0, 0, Chunk(0)
        for source, row in self._rows():
            if not chunk.files or chunk.files[max(chunk.files)] != source.name:
                chunk.files[len(chunk.rows)] = source.name
            chunk.rows.append(row)
            characters += len(row.text) + len(row.text_pair or "")
            if len(chunk.rows) >= self.shard_rows or characters >= _CHARACTERS:
                yield chunk
                chunk, characters = Chunk(chunk.number + 1), 0
        if chunk.rows:
            yield chunk
        elif not chunk.number:
            raise DataError(f"{self.sources[0].name}: contains no text")

    def _rows(self) -> Iterator[tuple[Source, Row]]:
        total, before = max(1, sum(source.bytes for source in self.sources)), 0
        first: tuple[str, str, str | None] | None = None  # the first file, and its columns of texts
        for source in self.sources:
            with fetched(source) as path, ExitStack() as opened:
                try:
                    is_table = path.suffix.lower() in TABLES
                    reader = self._table(path, opened) if is_table else None
                    found = ("text", self.pair) if reader is None else reader.columns[:2]
                    first = first or (source.name, *found)
                    if found != first[1:]:
                        raise DataError(
                            f"{path}: has its texts in {_columns(*found)}, and {first[0]} in {_columns(*first[1:])}: "
                            "name the column with --text-column, or give files of one kind"
                        )
                    for row in self._lines(path) if reader is None else self._of_table(reader):
                        share = self._share if reader is None else reader.fraction
                        self.fraction = (before + share * source.bytes) / total
                        yield source, row
                except DataError as error:
                    # A copy of a remote file has a name of its own.
                    raise DataError(str(error).replace(str(path), source.name)) from None
            before += source.bytes
            self.fraction = before / total

    def _table(self, path: Path, opened: ExitStack) -> TableReader:
        if self.pair is not None:
            raise DataError(f"{path}: has columns: --pair goes with lines; in a table, select --text-pair-column")
        reader = TableReader(path, text=self.text_column, text_pair=self.pair_column, labelled=False, keep=self.keep)
        opened.callback(reader.close)
        if reader.columns.text_pair is not None and not self.pairs:
            raise DataError(
                f"{path}: has two texts per row ({reader.columns.text}, {reader.columns.text_pair}): "
                "select one with --text-column"
            )
        return reader

    def _of_table(self, reader: TableReader) -> Iterator[Row]:
        before = self.skipped
        for example in reader:
            self.skipped = before + reader.skipped
            yield Row(example.text, example.text_pair, example.kept, example.line)
        self.skipped = before + reader.skipped

    def _lines(self, path: Path) -> Iterator[Row]:
        if self.keep or self.text_column or self.pair_column:
            raise DataError(f"{path}: has no columns to select; files that have: {', '.join(TABLES)}")
        size, characters = check_file(path), 0
        with path.open("rb") as binary:
            if problem := not_text(binary.read(4)):
                raise DataError(f"{path}: {problem}")
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
                if len(line) == LONGEST_LINE:
                    raise DataError(f"{path}, line {number}: {too_long()}")
                if not line.isascii() and (problem := not_utf8(line, path.name)):
                    raise DataError(f"{path}, line {number}: {problem}")
                characters += len(line)
                self._share = min(1.0, characters / size)
                if text := line.strip():
                    yield Row(text, self.pair, (), number)
                else:
                    self.skipped += 1


def _columns(text: str, pair: str | None) -> str:
    return repr(text) if pair is None else f"{text!r} and {pair!r}"


def types_of(names: Sequence[str], rows: Sequence[Row]) -> dict[str, str]:
    """The types of kept columns, by the first value of each in the first chunk; what is not a number becomes text."""
    kinds = {bool: "boolean", int: "bigint", float: "double"}
    types = {}
    for place, name in enumerate(names):
        values = chain((row.kept[place] for row in rows if row.kept[place] is not None), [None])
        types[name] = kinds.get(type(next(values)), "string")
    return types
