"""Tables of text: CSV, TSV, JSON lines and Parquet files as examples of one text or a pair, with a label.

How a file is read follows from its name:

- `.csv`: commas, semicolons, tabs or vertical bars, whichever header and rows agree on; double quotes as in RFC 4180.
- `.tsv`: tabs, one example per line, and **quotes are ordinary characters**, as in the files of GLUE, which are full of
  unbalanced ones. A text with a tab or a line break in it needs CSV, JSON lines or Parquet.
- `.jsonl`, `.ndjson`, `.json`: one JSON object a line.
- `.parquet`: by pyarrow, batch by batch.

Text is UTF-8, with or without a byte order mark; a line has at most 16 million characters. Whatever cannot be read
raises `DataError` with file and line, after the rows before it.

`TableReader` yields rows as they are read, in memory that does not grow with the file; `read_table` reads all.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from pocketbert.data.examples import Examples
from pocketbert.data.files import (
    LONGEST_LINE,
    check_file,
    check_utf8,
    is_unicode,
    json_objects,
    not_text,
    too_long,
    type_of,
)
from pocketbert.data.separated import csv_rows, header_of, looks_like_example, no_header, tsv_rows
from pocketbert.data.spellings import Label, read_lists
from pocketbert.errors import DataError

# Names of columns to detect, best first; case is ignored.
_PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("query", "passage"),
)
_TEXTS = (
    "text", "sentence", "review", "content", "comment", "document", "body", "message", "tweet", "question", "utterance",
    "sentence1", "premise", "title",
)  # fmt: skip
_LABELS = (
    "label", "labels", "label_text", "gold_label", "class", "category", "target", "sentiment", "intent", "score",
    "rating", "stars", "topic",
)  # fmt: skip

_BATCH = 1024  # rows of a Parquet file at a time
_BOM = "\ufeff"

Row = Sequence[Any]
#: The line number of a row (its row number in Parquet), and its values in the order of the columns.
Rows = Iterator[tuple[int, Row]]


class Columns(NamedTuple):
    """The names of the columns in use, or None."""

    text: str
    text_pair: str | None
    label: str | None


class Example(NamedTuple):
    """One row: its text or pair of texts, its label as written (None without a label) and its line in the file.

    A list of labels is a tuple of any length.
    """

    text: str
    text_pair: str | None
    label: Label
    line: int


@dataclass(frozen=True)
class Table(Examples[Example]):
    """The rows of one file (or of a part of it)."""

    columns: Columns

    def relabelled(self, labels: Sequence[Label]) -> Self:
        """Return these examples with other labels."""
        examples = [one._replace(label=label) for one, label in zip(self.examples, labels, strict=True)]
        return replace(self, examples=examples)


class TableReader:
    """An iterator over the examples of a file, which reads lazily.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` or `.parquet` file.
        text: column of the text [default: detected by its name: text, sentence, review, …].
        text_pair: column of the second text [default: detected, unless `text` is given].
        label: column of the label [default: detected by its name: label, class, score, …].
        labelled: whether every row must have a label; otherwise labels are not read.
        header: columns of a TSV or CSV file without a header line.
        skip_ragged: skip and count lines with too few or too many columns, instead of raising an error.

    Without labels, rows without a text are skipped and counted as well: nothing can be said of them.

    Raises:
        DataError: immediately, if the file is missing, empty, of another type or encoding, or lacks a column; at a row
            that is ragged, without text or without label; and at the end of a file without rows.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        text: str | None = None,
        text_pair: str | None = None,
        label: str | None = None,
        labelled: bool = True,
        header: Sequence[str] | None = None,
        skip_ragged: bool = False,
    ) -> None:
        self.path, self.skipped = Path(path), 0
        self._header, self._skip_ragged = header, skip_ragged
        with ExitStack() as opened:
            try:
                self._names, self._rows, self._fraction = _open(self.path, header, opened)
            except OSError as error:
                raise self._unreadable(error) from None
            self.columns = _choose(self.path, self._names, text, text_pair, label, labelled=labelled)
            self._opened = opened.pop_all()
        self._examples = self._read()

    @property
    def fraction(self) -> float:
        """Fraction of the file that has been read."""
        return self._fraction()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Example:
        return next(self._examples)

    def close(self) -> None:
        """Close the file; the last row and errors close it as well."""
        self._opened.close()

    def _read(self) -> Iterator[Example]:
        names, has_rows = self._names, False
        indices = [names.index(name) if name is not None else None for name in self.columns]
        with self._opened:
            try:
                for line, row in self._rows:
                    if len(row) == len(names):
                        cells = [None if i is None else row[i] for i in indices]
                        if self.columns.label is None and _has_no_text(cells, self.columns):
                            self.skipped += 1
                            continue
                        yield _example(self.path, line, *cells, columns=self.columns)
                        has_rows = True
                    elif self._skip_ragged:
                        self.skipped += 1
                    else:
                        raise DataError(_ragged(self.path, line, len(row), names))
            except OSError as error:
                raise self._unreadable(error) from None
        if not has_rows:
            raise DataError(f"{self.path}: has no rows" + (" below its header" if self._header is None else ""))

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: cannot be read: {error.strerror or error}")


def read_table(path: str | Path, **options: Any) -> Table:
    """Return all examples of `path`; options and errors as of `TableReader`."""
    reader = TableReader(path, **options)
    table = Table(reader.path, list(reader), reader.columns, skipped=reader.skipped)
    return table.relabelled(read_lists([example.label for example in table.examples]))


# ── the formats ──


def _open(path: Path, header: Sequence[str] | None, opened: ExitStack) -> tuple[list[str], Rows, Callable[[], float]]:
    """Return the column names of a file, its rows, read lazily, and a function for the fraction that has been read.

    `opened` closes the file.
    """
    suffix = path.suffix.lower()
    readers = {".csv": csv_rows, ".tsv": tsv_rows}
    size = check_file(path, (*readers, ".jsonl", ".ndjson", ".json", ".parquet"))
    if suffix == ".parquet":
        return _parquet(path, opened)
    with path.open("rb") as start:
        if problem := not_text(start.read(4)):
            raise DataError(f"{path}: {problem}")
    # An invalid byte is reported when its line is reached. Only CSV has line breaks other than "\n": a single carriage
    # return inside a text must not end the line.
    newline = "" if suffix == ".csv" else "\n"
    binary = opened.enter_context(path.open("rb"))
    file = opened.enter_context(TextIOWrapper(binary, "utf-8", errors="surrogateescape", newline=newline))
    lines = _lines(path, file)
    if suffix in readers:
        rows: Rows = readers[suffix](path, lines)
        names = header_of(path, rows) if header is None else list(header)
    else:
        names, rows = _json(path, lines)
    return names, rows, lambda: 1.0 if binary.closed else min(1.0, binary.tell() / size)


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
        text = line.removeprefix(_BOM) if number == 1 else line
        if not text.isascii():
            check_utf8(text, f"{path}, line {number}", path.name)
        if len(line) == LONGEST_LINE:
            raise DataError(f"{path}, line {number}: {too_long()}")
        yield text


def _json(path: Path, lines: Iterator[str]) -> tuple[list[str], Rows]:
    objects = json_objects(path, lines)
    first = next(objects, None)
    if first is None:
        raise DataError(f"{path}: is empty")
    names = list(first[1])
    # A key that a later line lacks is a missing value, which is an error only in a column in use.
    return names, ((number, [value.get(name) for name in names]) for number, value in chain([first], objects))


def _parquet(path: Path, opened: ExitStack) -> tuple[list[str], Rows, Callable[[], float]]:
    from pocketbert.errors import require

    require("train")
    import pyarrow
    import pyarrow.parquet

    try:
        file = opened.enter_context(pyarrow.parquet.ParquetFile(path))
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: is not a Parquet file: {error}") from None
    number = 0

    def rows() -> Rows:
        nonlocal number
        try:
            for batch in file.iter_batches(_BATCH):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, row
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}: is damaged after row {number}: {error}") from None

    return list(file.schema_arrow.names), rows(), lambda: number / max(1, file.metadata.num_rows)


# ── columns and cells ──


def _choose(
    path: Path, names: list[str], text: str | None, pair: str | None, label: str | None, *, labelled: bool
) -> Columns:
    listed = f"the columns are: {', '.join(f'{name:.40}' for name in names)}"
    if looks_like_example(names):
        listed = no_header()
    for flag, name in (("--text-column", text), ("--text-pair-column", pair), ("--label-column", label)):
        if name is not None and name not in names:
            raise DataError(f"{path}: has no column {name!r} ({flag}); {listed}")
    lower = {name.lower(): name for name in reversed(names)}
    if text is None and pair is None:
        text, pair = next(((lower[a], lower[b]) for a, b in _PAIRS if a in lower and b in lower), (None, None))
    if text is None:
        text = next((lower[name] for name in _TEXTS if name in lower and lower[name] != pair), None)
    if label is None and labelled:
        label = next((lower[name] for name in _LABELS if name in lower), None)
    for flag, role, column in (("--text-column", "text", text), ("--label-column", "label", label or not labelled)):
        if not column:
            remedy = "" if looks_like_example(names) else f"name it with {flag}; "
            raise DataError(f"{path}: no column looks like the {role}; {remedy}{listed}")
    assert text is not None
    return Columns(text, pair, label if labelled else None)


def _has_no_text(cells: Sequence[Any], columns: Columns) -> bool:
    texts = cells if columns.text_pair is not None else cells[:1]
    return any(text is None or (isinstance(text, str) and not text.strip()) for text in texts[:2])


def _example(path: Path, line: int, text: Any, text_pair: Any, label: Any, *, columns: Columns) -> Example:
    for name, value in ((columns.text, text), (columns.text_pair, text_pair)):
        if name is not None and not isinstance(value, str):
            raise DataError(f"{path}, line {line}: column {name!r} holds {type_of(value)} instead of text")
        if name is not None and not value.strip():
            raise DataError(f"{path}, line {line}: the text in column {name!r} is empty")
    if columns.label is not None:
        try:
            label = _label(label)
        except ValueError as error:
            raise DataError(f"{path}, line {line}: column {columns.label!r} holds {error} instead of a label") from None
        if label is None or label == "":
            raise DataError(f"{path}, line {line}: has no label in column {columns.label!r}")
    for name, value in zip(columns, (text, text_pair, label), strict=True):
        if name is not None and not all(map(is_unicode, value if isinstance(value, tuple) else (value,))):
            raise DataError(
                f"{path}, line {line}: column {name!r} holds an unpaired surrogate, which is not a character: "
                f"{value!a:.60}"
            )
    return Example(text, text_pair, label, line)


def _label(value: Any) -> Label:
    """Return a label as it is in a CSV file, or several; None for a missing label.

    Raises:
        ValueError: the value cannot be a label.
    """
    match value:
        case list():
            labels = [_label(item) for item in value]
            return tuple(label for label in labels if isinstance(label, str) and label) if all(labels) else None
        case bool():
            return "true" if value else "false"
        case float() if math.isnan(value):
            return None
        case str() | int() | float():
            return str(value).strip()
        case Decimal():
            return f"{value:f}" if value.is_finite() else None
        case None:
            return None
        case _:
            raise ValueError(type_of(value))


def _ragged(path: Path, line: int, columns: int, names: list[str]) -> str:
    message = f"{path}, line {line}: has {columns} columns, the header has {len(names)} ({', '.join(names)})"
    if path.suffix.lower() == ".tsv":
        return f"{message}; in a TSV file every tab separates columns, also inside quotes: use CSV for such text"
    return f"{message}; a text with the separator in it must be in double quotes"
