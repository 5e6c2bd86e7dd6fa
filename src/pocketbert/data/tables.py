"""Tables of text: CSV, TSV, JSON lines and Parquet files as examples of one text or a pair, with a label.

How a file is read follows from its name:

- `.csv`: commas, semicolons, tabs or vertical bars, whichever header and rows agree on; double quotes as in RFC 4180.
- `.tsv`: tabs, one example per line, and **quotes are ordinary characters**, as in the files of GLUE, which are full of
  unbalanced ones. A text with a tab or a line break in it needs CSV, JSON lines or Parquet.
- `.jsonl`, `.ndjson`, `.json`: one JSON object a line, or one list of objects, which is read as a whole.
- `.parquet`: by pyarrow, batch by batch.
- any name, if the first line begins with `__label__`: fastText's files, one text per line with its labels before it.

Text is UTF-8, with or without a byte order mark; a line has at most 16 million characters. Whatever cannot be read
raises `DataError` with file and line, after the rows before it, or is skipped, counted and listed.

`TableReader` yields rows as they are read, in memory that does not grow with the file; `read_table` reads all.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Self

from pocketbert.data.bad_rows import BadRows, looked_at
from pocketbert.data.columns import Columns, choose
from pocketbert.data.examples import Examples
from pocketbert.data.files import is_unicode, type_of
from pocketbert.data.formats import LABEL_PREFIX, has_label_prefix
from pocketbert.data.memory import Memory
from pocketbert.data.rows import Rows, open_rows
from pocketbert.data.separated import title_above
from pocketbert.data.spellings import Label, read_lists, truth
from pocketbert.errors import DataError

_EXCEL_ERRORS = ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#NV", "#BEZUG!", "#WERT!")


class Example(NamedTuple):
    """One row: its text or pair of texts, its label as written (None without a label) and its line in the file.

    A list of labels is a tuple of any length; `kept` are the values of other columns that the reader was asked for.
    """

    text: str
    text_pair: str | None
    label: Label
    line: int
    kept: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Table(Examples[Example]):
    """The rows of one file (or of a part of it).

    `classes` are the labels that have columns of their own; `weights` say how much each row counts, if they differ.
    """

    columns: Columns
    classes: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None

    def part(self, indices: Iterable[int]) -> Self:
        """Return these examples only."""
        chosen = list(indices)
        part = super().part(chosen)
        return part if self.weights is None else replace(part, weights=tuple(self.weights[i] for i in chosen))

    def relabelled(self, labels: Sequence[Label]) -> Self:
        """Return these examples with other labels."""
        examples = [one._replace(label=label) for one, label in zip(self.examples, labels, strict=True)]
        return replace(self, examples=examples)


class TableReader:
    """An iterator over the examples of a file, which reads lazily.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` or `.parquet` file; or rows in memory.
        text: column of the text [default: detected by its name: text, sentence, review, …].
        text_pair: column of the second text [default: detected, unless `text` is given].
        label: column of the label, or columns with truth values, separated by commas [default: detected by its name:
            label, class, score, …; or the columns that are left].
        labelled: whether every row must have a label; otherwise labels are not read.
        keep: columns whose values are read as well, as they are.
        header: columns of a TSV or CSV file without a header line.
        skip_ragged: skip and count lines with too few or too many columns, instead of raising an error.
        skip_bad: skip all rows that cannot be used; `bad` lists them.

    Without labels, rows without a text are skipped and counted as well: nothing can be said of them.

    Raises:
        DataError: immediately, if the file is missing, empty, of another type or encoding, or lacks a column; at a row
            that is ragged, without text or without label; and at the end of a file without rows.
    """

    def __init__(
        self,
        path: str | Path | Memory,
        *,
        text: str | None = None,
        text_pair: str | None = None,
        label: str | None = None,
        labelled: bool = True,
        keep: Sequence[str] = (),
        header: Sequence[str] | None = None,
        skip_ragged: bool = False,
        skip_bad: bool = False,
    ) -> None:
        self.path, self.skipped = path.path if isinstance(path, Memory) else Path(path), 0
        self._header, self._skip_ragged = header, skip_ragged
        self.bad = BadRows(self.path, skip=skip_bad)
        with ExitStack() as opened:
            rows: Rows
            try:
                if isinstance(path, Memory):
                    self._names, rows, self._fraction = path.columns, path.rows(), _none_of_it
                else:
                    self._names, rows, self._fraction = open_rows(self.path, header, opened, self.bad)
                start, self._rows = looked_at(rows, 1)
                first = start[0][1] if start else None
            except OSError as error:
                raise self._unreadable(error) from None
            if first is not None and header is None and (problem := title_above(self._names, first)):
                raise DataError(f"{self.path}, line 1: {problem}")
            self.columns, self.classes = choose(
                self.path, self._names, text, text_pair, label, labelled=labelled, first=first
            )
            if missing := [name for name in keep if name not in self._names]:
                names = ", ".join(f"{name:.40}" for name in self._names)
                raise DataError(f"{self.path}: has no column {missing[0]!r} (--keep); the columns are: {names}")
            self._kept = [self._names.index(name) for name in keep]
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
        text, pair, label = (names.index(name) if name in names else None for name in self.columns)
        classes = [(name, names.index(name)) for name in self.classes]
        with self._opened:
            try:
                for line, row in self._rows:
                    if len(row) > len(names) and not any(row[len(names) :]):
                        row = row[: len(names)]  # separators that spreadsheets leave at the end
                    if list(row) == names:  # where files were joined
                        continue
                    if len(row) != len(names):
                        if self._skip_ragged:
                            self.skipped += 1
                        else:
                            self.bad(line, _ragged(self.path, len(row), names), row)
                        continue
                    cells = [None if i is None else row[i] for i in (text, pair, label)]
                    if self.columns.label is None and _has_no_text(cells, self.columns):
                        self.skipped += 1
                        continue
                    try:
                        if classes:
                            cells[2] = _of_classes([(name, row[i]) for name, i in classes])
                        example = _example(line, *cells, columns=self.columns)
                    except _UnusableError as error:
                        self.bad(line, str(error), dict(zip(names, row, strict=True)))
                        continue
                    has_rows = True
                    yield example._replace(kept=tuple(row[i] for i in self._kept)) if self._kept else example
            except OSError as error:
                raise self._unreadable(error) from None
        if not has_rows:
            self.bad.check(0)
            raise DataError(f"{self.path}: has no rows" + (" below its header" if self._header is None else ""))

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: cannot be read: {error.strerror or error}")


def read_table(path: str | Path | Memory, **options: Any) -> Table:
    """Return all examples of `path`; options and errors as of `TableReader`.

    Raises:
        DataError: more rows are bad than good, although bad rows are skipped.
    """
    reader = TableReader(path, **options)
    examples = list(reader)
    reader.bad.check(len(examples))
    skipped = reader.skipped + len(reader.bad.found)
    bad = tuple(sorted(reader.bad.found, key=lambda row: row.line))
    digest = path.sha256() if isinstance(path, Memory) else None
    table = Table(reader.path, examples, reader.columns, reader.classes, skipped=skipped, bad=bad, digest=digest)
    labels = read_lists([example.label for example in examples])
    if (
        digest is None
        and has_label_prefix(reader.path)
        and all(isinstance(label, tuple) and len(label) == 1 for label in labels)
    ):
        labels = [label[0] for label in labels if label]
    if all(isinstance(label, str) and label.startswith(LABEL_PREFIX) for label in labels):
        labels = [str(label).removeprefix(LABEL_PREFIX) for label in labels]
    return table.relabelled(labels)


def _none_of_it() -> float:
    return 0.0  # of rows in memory, whose number is not known


# ── cells ──


def _has_no_text(cells: Sequence[Any], columns: Columns) -> bool:
    texts = cells if columns.text_pair is not None else cells[:1]
    return any(text is None or (isinstance(text, str) and not text.strip()) for text in texts[:2])


class _UnusableError(ValueError):
    """A row cannot be used; the message continues its place."""


def _example(line: int, text: Any, text_pair: Any, label: Any, *, columns: Columns) -> Example:
    for name, value in ((columns.text, text), (columns.text_pair, text_pair)):
        if name is not None and not isinstance(value, str):
            raise _UnusableError(f"column {name!r} holds {type_of(value)} instead of text")
        if name is not None and not value.strip():
            raise _UnusableError(f"the text in column {name!r} is empty")
    if columns.label is not None:
        try:
            label = _label(label)
        except ValueError as error:
            raise _UnusableError(f"column {columns.label!r} holds {error} instead of a label") from None
        if label is None or label == "":
            raise _UnusableError(f"has no label in column {columns.label!r}")
    for name, value in zip(columns, (text, text_pair, label), strict=True):
        if name is not None and not all(map(is_unicode, value if isinstance(value, tuple) else (value,))):
            raise _UnusableError(
                f"column {name!r} holds an unpaired surrogate, which is not a character: {value!a:.60}"
            )
        if name is not None and value in _EXCEL_ERRORS:
            raise _UnusableError(f"column {name!r} holds {value}, which is an error value of Excel")
    return Example(text, text_pair, label, line)


def _of_classes(cells: Sequence[tuple[str, Any]]) -> list[str]:
    """Return the names of the columns that hold a truth value of true."""
    found = []
    for name, value in cells:
        has = truth(value, marked=True)
        if has is None:
            raise _UnusableError(
                f"column {name!r} holds {value!r:.40} instead of 0 or 1; name the label with --label-column"
            )
        found += [name] if has else []
    return found


def _label(value: Any) -> Label:
    """Return a label as it is in a CSV file, or several; None for a missing label.

    Raises:
        ValueError: the value cannot be a label.
    """
    match value:
        case list():
            labels = [_label(item) for item in value]
            return tuple(label for label in labels if isinstance(label, str) and label) if all(labels) else None
        case dict() if value and all(truth(one) is not None for one in value.values()):
            return tuple(str(name).strip() for name, one in value.items() if truth(one))
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


def _ragged(path: Path, columns: int, names: list[str]) -> str:
    message = f"has {columns} columns, the header has {len(names)} ({', '.join(names)})"
    if path.suffix.lower() == ".tsv":
        return f"{message}; in a TSV file every tab separates columns, also inside quotes: use CSV for such text"
    return f"{message}; a text with the separator in it must be in double quotes"
