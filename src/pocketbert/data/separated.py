"""Lines of text with separators, CSV and TSV → rows of cells."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pocketbert.data.bad_rows import BadRows, looked_at
from pocketbert.data.spellings import number
from pocketbert.errors import DataError

#: The line number of a row, and its cells.
Rows = Iterator[tuple[int, list[str]]]

_SEPARATORS = ",;\t|"  # in the order in which they are preferred
_OTHER_SEPARATORS = "，；،؛"  # of full width, and Arabic: also what texts are full of
_FITTING = 0.9  # of the rows, that must have as many columns as the header for one of these
_SENTENCE_ENDS = re.compile("[。！？؟]")
_LOOKED_AT = 64  # lines that decide the separator
_DECLARED = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # as Excel writes and obeys it
_SPACED_QUOTE = re.compile(r'[,;|] +"')  # which opens a quoted cell in files that people write by hand
_FORMULA = re.compile(r'="(.*)"', re.DOTALL)  # as Excel keeps numbers from becoming numbers
_EXCEL_BREAK = "_x000D_"  # a carriage return, as programs that read workbooks write it


def csv_rows(path: Path, lines: Iterator[str], bad: BadRows | None = None) -> Rows:
    """Yield the rows of a CSV file; rows without any content are passed over.

    The separator is the one that a first line `sep=;` declares, or else the one with which the header and the most of
    the first rows have the same number of columns, more than one.

    Args:
        path: the file, for messages.
        lines: its lines.
        bad: receives rows with quotes at wrong places [default: the first of them is an error].

    Raises:
        DataError: a quote is not closed.
    """
    bad = BadRows(path) if bad is None else bad
    first, lines = looked_at(lines, _LOOKED_AT)
    declared = _DECLARED.fullmatch(first[0].strip("\r\n")) if first else None
    separator = declared[1] if declared else _separator(first)
    before = 1 if declared else 0
    spaced = any(map(_SPACED_QUOTE.search, first))
    reader = csv.reader(islice(lines, before, None), delimiter=separator, strict=True, skipinitialspace=spaced)
    start = 1 + before
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            problem = (
                f"{error}. Is a double quote not closed? A quote inside a quoted field is written twice; fields of "
                f"more than {csv.field_size_limit():,} characters need JSON lines or Parquet"
            )
            if "end of data" in str(error):  # nobody knows how many rows were taken for one cell
                raise DataError(f"{path}, line {start}: {problem}") from None
            bad(start, problem)
        else:
            if row is None:
                return
            if any(map(str.strip, row)):
                yield start, [_as_shown(cell) if cell[:2] == '="' or _EXCEL_BREAK in cell else cell for cell in row]
        start = reader.line_num + 1 + before


def _as_shown(cell: str) -> str:
    """A cell as Excel shows it."""
    formula = _FORMULA.fullmatch(cell)
    return (formula[1] if formula else cell).replace(f"{_EXCEL_BREAK}\n", "\n").replace(_EXCEL_BREAK, "\n")


def _separator(lines: Sequence[str]) -> str:
    """Return the separator of a file that begins with these lines."""
    best, most = _SEPARATORS[0], -1.0
    for separator in _SEPARATORS + _OTHER_SEPARATORS:
        rows: list[list[str]] = []
        with suppress(csv.Error):  # another separator, or the excerpt ends within quotes
            rows.extend(row for row in csv.reader(lines, delimiter=separator, strict=True) if any(row))
        if rows and len(rows[0]) > 1:
            fitting = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
            if fitting > most and (separator in _SEPARATORS or (most < 0 and fitting >= _FITTING)):
                best, most = separator, fitting
    return best


def tsv_rows(path: Path, lines: Iterator[str]) -> Rows:
    """Yield the rows of a TSV file, in which quotes are ordinary; rows without any content are passed over."""
    for line_number, line in enumerate(lines, start=1):
        if line.strip():
            yield line_number, line.rstrip("\r\n").split("\t")


def header_of(path: Path, rows: Iterator[tuple[int, Sequence[str]]]) -> list[str]:
    """Return the names of the columns, which the first row holds.

    Raises:
        DataError: there is no row, or a name stands twice.
    """
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: is empty")
    names = [name.strip() for name in first[1]]
    repeated = sorted({name for name in names if names.count(name) > 1 and name})
    if repeated:
        if looks_like_example(names):
            raise DataError(f"{path}, line {first[0]}: {no_header()}")
        raise DataError(f"{path}, line {first[0]}: two columns are called {', '.join(repeated)}; rename one of them")
    return names


def title_above(names: Sequence[str], following: Sequence[object]) -> str | None:
    """Return the message about a line above the names of the columns; None where the first row has names."""
    if sum(map(bool, names)) == 1 < len([cell for cell in following if cell not in (None, "")]):
        return "has one cell, and the next line more: the first line must name the columns; delete the lines above it"
    return None


def looks_like_example(names: Sequence[str]) -> bool:
    """Whether a first row holds texts or numbers rather than names of columns."""
    return any(
        number(name) is not None or len(name) > 60 or len(name.split()) > 5 or _SENTENCE_ENDS.search(name)
        for name in names
    )


def no_header() -> str:
    """Return the message about a file without names of columns."""
    return "the first line looks like an example; the first line must name the columns, such as text,label"
