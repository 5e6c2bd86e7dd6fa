"""Tables of text: CSV, TSV, JSON lines and Parquet files as examples of one text or a pair, with a label.

How a file is read follows from its name:

- `.csv`: comma, or semicolon where the header has no comma; double quotes as in RFC 4180.
- `.tsv`: tabs, one example a line, and **quotes are ordinary characters**, as in the files of GLUE, which are full of
  unbalanced ones. A text with a tab or a line break in it needs CSV, JSON lines or Parquet.
- `.jsonl`, `.ndjson`, `.json`: one JSON object a line.
- `.parquet`: by pyarrow, batch by batch.

Text is UTF-8, with or without a byte order mark; a line has at most 16 million characters. Whatever cannot be read
raises `DataError` with file and line, after the rows before it.

`TableReader` gives the rows as they are read, in memory that does not grow with the file; `read_table` gives all.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from pocketbert.data.examples import Examples
from pocketbert.errors import DataError

# What to look for when no column is named, best first; compared without regard to case.
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

_NOT_TEXT = {
    b"\xff\xfe": "is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"PK\x03\x04": "is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
}

LONGEST_LINE = 1 << 24  # characters
_BATCH = 1024  # rows of a Parquet file at a time
_BOM = "\ufeff"

Row = Sequence[Any]
#: The number of a row's line in its file (its row number in Parquet), and its values in the order of the columns.
Rows = Iterator[tuple[int, Row]]


class Columns(NamedTuple):
    """The names of the columns in use; None where there is none."""

    text: str
    text_pair: str | None
    label: str | None


class Example(NamedTuple):
    """One row: its text or pair of texts, its label as written (None without one) and its line in the file.

    A list of labels in JSON or Parquet is a tuple here, of as many as there are: none, one or several.
    """

    text: str
    text_pair: str | None
    label: str | tuple[str, ...] | None
    line: int


@dataclass(frozen=True)
class Table(Examples[Example]):
    """The rows of one file (or of a part of it)."""

    columns: Columns


class TableReader:
    """The examples of a file, read as they are asked for: an iterator.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` or `.parquet` file.
        text: the column of the text; recognised by its name (text, sentence, review, …) when not given.
        text_pair: the column of the second text; recognised only when `text` is not given either.
        label: the column of the label; recognised by its name (label, class, score, …) when not given.
        labelled: whether every row must have a label. Without, labels are not read.
        header: the columns of a TSV or CSV file that has no header line.
        skip_ragged: skip and count the lines with too few or too many columns, instead of refusing the file.

    Raises:
        DataError: at once, if the file is missing, empty, of another kind or encoding, or lacks a column; when it is
            reached, for a row that is ragged, without text or without label, and at the end if there was no row.
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
        """How much of the file has been read."""
        return self._fraction()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Example:
        return next(self._examples)

    def close(self) -> None:
        """Close the file, which the last row or an error does too."""
        self._opened.close()

    def _read(self) -> Iterator[Example]:
        names, found = self._names, False
        where = [names.index(name) if name is not None else None for name in self.columns]
        with self._opened:
            try:
                for line, row in self._rows:
                    if len(row) == len(names):
                        cells = (None if i is None else row[i] for i in where)
                        yield _example(self.path, line, *cells, columns=self.columns)
                        found = True
                    elif self._skip_ragged:
                        self.skipped += 1
                    else:
                        raise DataError(_ragged(self.path, line, len(row), names))
            except OSError as error:
                raise self._unreadable(error) from None
        if not found:
            raise DataError(f"{self.path}: has no rows" + (" below its header" if self._header is None else ""))

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: cannot be read: {error.strerror or error}")


def read_table(path: str | Path, **options: Any) -> Table:
    """All examples of `path`; the options and errors are those of `TableReader`."""
    reader = TableReader(path, **options)
    return Table(reader.path, list(reader), reader.columns, skipped=reader.skipped)


# ── the formats ──


def not_text(start: bytes) -> str | None:
    """What a file that begins like this is, and what to do with it, if it is known to be no UTF-8 text."""
    return next((what for magic, what in _NOT_TEXT.items() if start.startswith(magic)), None)


def _open(path: Path, header: Sequence[str] | None, opened: ExitStack) -> tuple[list[str], Rows, Callable[[], float]]:
    """The column names of a file, its rows, read as they are asked for, and how much of it has been read.

    The file stays open until `opened` closes it.
    """
    suffix = path.suffix.lower()
    readers = {".csv": _csv, ".tsv": _tsv}
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file in it, or say which GLUE task it holds (--glue sst-2)")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: is empty")
    if suffix == ".parquet":
        return _parquet(path, opened)
    if suffix not in (*readers, ".jsonl", ".ndjson", ".json"):
        raise DataError(f"{path}: is none of .csv, .tsv, .jsonl, .ndjson, .json, .parquet")
    with path.open("rb") as start:
        if what := not_text(start.read(4)):
            raise DataError(f"{path}: {what}")
    # A wrong byte is found when its line is reached. Of line breaks, only CSV knows others than "\n": a lone carriage
    # return inside a text must not end the line.
    newline = "" if suffix == ".csv" else "\n"
    binary = opened.enter_context(path.open("rb"))
    file = opened.enter_context(TextIOWrapper(binary, "utf-8", errors="surrogateescape", newline=newline))
    lines = _lines(path, file)
    names, rows = _with_header(path, readers[suffix](path, lines), header) if suffix in readers else _json(path, lines)
    return names, rows, lambda: 1.0 if binary.closed else min(1.0, binary.tell() / size)


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
        text = line.removeprefix(_BOM) if number == 1 else line
        if not text.isascii():
            check_utf8(text, f"{path}, line {number}", path.name)
        if len(line) == LONGEST_LINE:
            raise DataError(f"{path}, line {number}: {too_long()}")
        yield text


def too_long() -> str:
    """What to say of a line that no text can be."""
    return f"has over {LONGEST_LINE:,} characters: is there one text a line?"


def check_utf8(text: str, where: str, name: str) -> None:
    """Raise `DataError` if `text`, decoded with the handler "surrogateescape", was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: byte 0x{ord(text[error.start]) & 0xFF:02X} is not UTF-8. If the file is Latin-1 (Windows), "
            f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {name} > utf8-{name}"
        ) from None


def _with_header(path: Path, rows: Rows, header: Sequence[str] | None) -> tuple[list[str], Rows]:
    if header is not None:
        return list(header), rows
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: is empty")
    names = [str(name).strip() for name in first[1]]
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise DataError(f"{path}, line {first[0]}: two columns are called {', '.join(twice)}")
    return names, rows


def _csv(path: Path, lines: Iterator[str]) -> Rows:
    header = next(lines, "")
    delimiter = ";" if ";" in header and "," not in header else ","
    reader = csv.reader(chain([header], lines), delimiter=delimiter, strict=True)
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {start}: {error}. Is a double quote left open? A quote inside a quoted field is "
            f"written twice; fields of over {csv.field_size_limit():,} characters need JSON lines or Parquet"
        ) from None


def _tsv(path: Path, lines: Iterator[str]) -> Rows:
    for number, line in enumerate(lines, start=1):
        if line.rstrip("\r\n"):
            yield number, line.rstrip("\r\n").split("\t")


def _json(path: Path, lines: Iterator[str]) -> tuple[list[str], Rows]:
    objects = json_objects(path, lines)
    first = next(objects, None)
    if first is None:
        raise DataError(f"{path}: is empty")
    names = list(first[1])
    # A key that a later line lacks is a missing value there; which of them matter is decided once the columns are.
    return names, ((number, [value.get(name) for name in names]) for number, value in chain([first], objects))


def json_objects(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of lines that hold one each, with the numbers of their lines."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # also digits or brackets without end
            hint = "; a JSON list must become one object a line (jq -c '.[]')" if line[0] == "[" else ""
            raise DataError(f"{path}, line {number}: is not JSON: {error}{hint}") from None
        if not isinstance(value, dict):
            raise DataError(
                f"{path}, line {number}: holds a {type(value).__name__}, not an object like "
                '{"text": …, "label": …}; a JSON list must become one object a line (jq -c \'.[]\')'
            )
        yield number, value


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
    there = f"the columns are: {', '.join(names)}"
    for flag, name in (("--text-column", text), ("--text-pair-column", pair), ("--label-column", label)):
        if name is not None and name not in names:
            raise DataError(f"{path}: has no column {name!r} ({flag}); {there}")
    lower = {name.lower(): name for name in reversed(names)}
    if text is None and pair is None:
        text, pair = next(((lower[a], lower[b]) for a, b in _PAIRS if a in lower and b in lower), (None, None))
    if text is None:
        text = next((lower[name] for name in _TEXTS if name in lower and lower[name] != pair), None)
    if label is None and labelled:
        label = next((lower[name] for name in _LABELS if name in lower), None)
    for flag, what, found in (("--text-column", "text", text), ("--label-column", "label", label or not labelled)):
        if not found:
            raise DataError(f"{path}: no column looks like the {what}; name it with {flag}; {there}")
    assert text is not None
    return Columns(text, pair, label if labelled else None)


def _example(path: Path, line: int, text: Any, text_pair: Any, label: Any, *, columns: Columns) -> Example:
    for name, value in ((columns.text, text), (columns.text_pair, text_pair)):
        if name is not None and not isinstance(value, str):
            found = "nothing" if value is None else f"a {type(value).__name__}, {value!r:.40}"
            raise DataError(f"{path}, line {line}: column {name!r} holds {found} instead of text")
        if name is not None and not value.strip():
            raise DataError(f"{path}, line {line}: the text in column {name!r} is empty")
    if columns.label is not None:
        label = _label(label)
        if label is None or label == "":
            raise DataError(f"{path}, line {line}: has no label in column {columns.label!r}")
    for name, value in zip(columns, (text, text_pair, label), strict=True):
        if name is not None and not all(map(is_unicode, value if isinstance(value, tuple) else (value,))):
            raise DataError(
                f"{path}, line {line}: column {name!r} holds half a character, which stands for nothing: {value!a:.60}"
            )
    return Example(text, text_pair, label, line)


def is_unicode(text: str) -> bool:
    r"""Whether a text has no half of a surrogate pair in it, as JSON can bring: "\ud83d"."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(value: Any) -> str | tuple[str, ...] | None:
    """A label as it would stand in a CSV file, or several; None for a missing one, or for what is no label at all."""
    match value:
        case list():
            several = [_label(one) for one in value]
            return tuple(one for one in several if isinstance(one, str) and one) if all(several) else None
        case bool():
            return "true" if value else "false"
        case float() if math.isnan(value):
            return None
        case str() | int() | float():
            return str(value).strip()
        case _:
            return None


def _ragged(path: Path, line: int, found: int, names: list[str]) -> str:
    message = f"{path}, line {line}: has {found} columns, the header has {len(names)} ({', '.join(names)})"
    if path.suffix.lower() == ".tsv":
        return f"{message}; in a TSV file every tab separates and quotes protect nothing: use CSV for such text"
    return f"{message}; a text with the separator in it needs double quotes around it"
