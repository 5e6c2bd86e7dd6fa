"""Tables of text: CSV, TSV, JSON lines and Parquet files as examples of one text or a pair, with a label.

How a file is read follows from its name:

- `.csv`: comma, or semicolon where the header has no comma; double quotes as in RFC 4180.
- `.tsv`: tabs, one example a line, and **quotes are ordinary characters**, as in the files of GLUE, which are full of
  unbalanced ones. A text with a tab or a line break in it needs CSV, JSON lines or Parquet.
- `.jsonl`, `.ndjson`, `.json`: one JSON object a line.
- `.parquet`: by pyarrow, batch by batch.

Text is UTF-8, with or without a byte order mark. Whatever cannot be read raises `DataError` with file and line.
"""

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

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

Row = Sequence[Any]
#: The number of a row's line in its file (its row number in Parquet), and its values in the order of the columns.
Rows = Iterator[tuple[int, Row]]


class Columns(NamedTuple):
    """The names of the columns in use; None where there is none."""

    text: str
    text_pair: str | None
    label: str | None


class Example(NamedTuple):
    """One row: its text or pair of texts, its label as written (None without one) and its line in the file."""

    text: str
    text_pair: str | None
    label: str | None
    line: int


@dataclass(frozen=True)
class Table:
    """The examples of one file (or of a part of it)."""

    path: Path
    examples: list[Example]
    columns: Columns
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    def part(self, indices: Iterable[int]) -> Self:
        """The table of these rows alone."""
        return replace(self, examples=[self.examples[i] for i in indices])

    def sha256(self) -> str:
        """The hash of the whole file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_table(
    path: str | Path,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    labelled: bool = True,
    header: Sequence[str] | None = None,
    skip_ragged: bool = False,
) -> Table:
    """Read the examples of `path`.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` or `.parquet` file.
        text: the column of the text; recognised by its name (text, sentence, review, …) when not given.
        text_pair: the column of the second text; recognised only when `text` is not given either.
        label: the column of the label; recognised by its name (label, class, score, …) when not given.
        labelled: whether every row must have a label. Without, labels are not read.
        header: the columns of a TSV or CSV file that has no header line.
        skip_ragged: skip and count the lines with too few or too many columns, instead of refusing the file.

    Raises:
        DataError: the file is missing, empty, of another kind or encoding, lacks a column, or has a row that is
            ragged, without text or without label.
    """
    path = Path(path)
    try:
        names, rows = _open(path, header)
        columns = _choose(path, names, text, text_pair, label, labelled=labelled)
        where = [names.index(name) if name is not None else None for name in columns]
        examples, skipped = [], 0
        for line, row in rows:
            if len(row) == len(names):
                examples.append(_example(path, line, *(None if i is None else row[i] for i in where), columns=columns))
            elif skip_ragged:
                skipped += 1
            else:
                raise DataError(_ragged(path, line, len(row), names))
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not examples:
        raise DataError(f"{path}: has no rows" + (" below its header" if header is None else ""))
    return Table(path, examples, columns, skipped)


# ── the formats ──


def not_text(start: bytes) -> str | None:
    """What a file that begins like this is, and what to do with it, if it is known to be no UTF-8 text."""
    return next((what for magic, what in _NOT_TEXT.items() if start.startswith(magic)), None)


def _open(path: Path, header: Sequence[str] | None) -> tuple[list[str], Rows]:
    """The column names of a file, and its rows, read as they are asked for."""
    suffix = path.suffix.lower()
    readers = {".csv": _csv, ".tsv": _tsv}
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file in it, or say which GLUE task it holds (--glue sst-2)")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    if suffix == ".parquet":
        return _parquet(path)
    if suffix not in (*readers, ".jsonl", ".ndjson", ".json"):
        raise DataError(f"{path}: is none of .csv, .tsv, .jsonl, .ndjson, .json, .parquet")
    with path.open("rb") as file:
        start = file.read(4)
    if what := not_text(start):
        raise DataError(f"{path}: {what}")
    if suffix not in readers:
        return _json_lines(path)
    rows = readers[suffix](path)
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


def _csv(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=";" if ";" in header and "," not in header else ",", strict=True)
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


def _tsv(path: Path) -> Rows:
    # newline="\n": a lone carriage return inside a text must not end the line.
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.rstrip("\r\n"):
                yield number, line.rstrip("\r\n").split("\t")


def _json_lines(path: Path) -> tuple[list[str], Rows]:
    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
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

    first = next(objects(), None)
    if first is None:
        raise DataError(f"{path}: is empty")
    names = list(first[1])
    # A key that a later line lacks is a missing value there; which of them matter is decided once the columns are.
    return names, ((number, [value.get(name) for name in names]) for number, value in objects())


def _parquet(path: Path) -> tuple[list[str], Rows]:
    from pocketbert.errors import require

    require("train")
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: is not a Parquet file: {error}") from None
    names = list(file.schema_arrow.names)

    def rows() -> Rows:
        number = 0
        try:
            for batch in file.iter_batches():
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, row
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}: is damaged after row {number}: {error}") from None

    return names, rows()


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
        if not label:
            raise DataError(f"{path}, line {line}: has no label in column {columns.label!r}")
    for name, value in zip(columns, (text, text_pair, label), strict=True):
        if name is not None and not _is_unicode(value):
            raise DataError(
                f"{path}, line {line}: column {name!r} holds half a character, which stands for nothing: {value!a:.60}"
            )
    return Example(text, text_pair, label, line)


def _is_unicode(text: str) -> bool:
    r"""Whether a text has no half of a surrogate pair in it, as JSON can bring: "\ud83d"."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(value: Any) -> str | None:
    """A label as it would stand in a CSV file; None for a missing one, or for what is no label at all."""
    match value:
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


def _undecodable(path: Path) -> DataError:
    """Names the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path}, line {number}: byte 0x{line[error.start]:02X} is not UTF-8. If the file is Latin-1 "
                    f"(Windows), convert it: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
                )
    return DataError(f"{path}: is not UTF-8")
