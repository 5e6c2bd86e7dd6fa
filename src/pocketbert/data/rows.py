"""Rows of a table's file as they are read: CSV, TSV, JSON lines, Parquet and fastText's files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from pocketbert.data.bad_rows import BadRows, looked_at
from pocketbert.data.files import LONGEST_LINE, check_file, json_objects, not_text, not_utf8, too_long
from pocketbert.data.formats import fasttext_rows, has_label_prefix, not_a_table
from pocketbert.data.separated import csv_rows, header_of, tsv_rows
from pocketbert.errors import DataError

_BATCH = 1024  # rows of a Parquet file at a time
_BOM = "\ufeff"
_LOOKED_AT = 64  # objects whose keys are the columns

Row = Sequence[Any]
#: The line number of a row (its row number in Parquet), and its values in the order of the columns.
Rows = Iterator[tuple[int, Row]]


def open_rows(
    path: Path, header: Sequence[str] | None, opened: ExitStack, bad: BadRows
) -> tuple[list[str], Rows, Callable[[], float]]:
    """Return the column names of a file, its rows, read lazily, and a function for the fraction that has been read.

    `opened` closes the file; `bad` receives rows that cannot be read.
    """
    suffix, suffixes = path.suffix.lower(), (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
    suffix = ".tsv" if suffix == ".tab" else suffix
    is_fasttext = path.is_file() and has_label_prefix(path)
    size = check_file(path, () if is_fasttext else (*suffixes, ".tab"))
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
    lines = _lines(path, file, bad)
    rows: Rows
    if is_fasttext:
        names, rows = ["text", "label"], fasttext_rows(lines)
    elif suffix in (".csv", ".tsv"):
        beginning, lines = looked_at(lines, 1)
        if beginning and (problem := not_a_table(beginning[0])):
            raise DataError(f"{path}: {problem}")
        rows = csv_rows(path, lines, bad) if suffix == ".csv" else tsv_rows(path, lines)
        names = header_of(path, rows) if header is None else list(header)
    else:
        names, rows = _json(path, lines, bad)
    return names, rows, lambda: 1.0 if binary.closed else min(1.0, binary.tell() / size)


def _lines(path: Path, file: TextIO, bad: BadRows) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
        text = line.removeprefix(_BOM) if number == 1 else line
        if not text.isascii() and (problem := not_utf8(text, path.name)):
            bad(number, problem, text)
            text = "\n"
        if len(line) == LONGEST_LINE:
            raise DataError(f"{path}, line {number}: {too_long()}")
        yield text


def _json(path: Path, lines: Iterator[str], bad: BadRows) -> tuple[list[str], Rows]:
    first, objects = looked_at(json_objects(path, lines, bad), _LOOKED_AT)
    if not first:
        next(objects, None)  # raises what is wrong with the first
        raise DataError(f"{path}: is empty")
    if len(first) == 1 and not any(isinstance(value, str) for value in first[0][1].values()):
        lists = [name for name, value in first[0][1].items() if isinstance(value, list | dict)]
        if lists:
            raise DataError(
                f"{path}: holds one object of lists ({', '.join(lists)[:60]}), and one object per example is needed: "
                f"write JSON lines (pandas: orient='records', lines=True; a list within it: jq -c '.{lists[0]}[]')"
            )
    names = list(dict.fromkeys(name for _, value in first for name in value))
    # A key that a line lacks is a missing value, which is an error only in a column in use.
    return names, ((number, [value.get(name) for name in names]) for number, value in objects)


def _parquet(path: Path, opened: ExitStack) -> tuple[list[str], Rows, Callable[[], float]]:
    from pocketbert.errors import require

    require("parquet")
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
