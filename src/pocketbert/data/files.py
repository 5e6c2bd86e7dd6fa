"""Helpers of all readers of data files: checks of files and texts, JSON lines."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from pocketbert.data.bad_rows import BadRows
from pocketbert.errors import DataError, require

_NOT_TEXT = {
    b"\xff\xfe\0\0": "is UTF-32; save it as UTF-8 (iconv -f UTF-32 -t UTF-8)",
    b"\xff\xfe": "is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"PK\x03\x04": "is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook or Word document; save the sheet as CSV",
    b"%PDF": "is a PDF; export its text",
    b"PAR1": "is a Parquet file; rename it to end in .parquet",
    b"ARROW1"[:4]: "is an Arrow file; save it as Parquet",
    b"BZh": "is compressed with bzip2; unpack it first",
    b"\xfd7zX": "is compressed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first",
    b"7z\xbc\xaf": "is a 7z archive; unpack it first",
    b"\x89PNG": "is a picture",
    b"\xff\xd8\xff": "is a picture",
    b"\x89HDF": "is an HDF5 file; save its table as Parquet or CSV",
    b"FEA1": "is a Feather file; save it as Parquet",
    b"\x93NUM": "is a NumPy array; save its texts as JSON lines",
    b"SQLi": "is an SQLite database; export its table as CSV",
    b"{\\rt": "is rich text; save it as plain text or CSV",
    **{b"\x80%c" % version: "is a pickle, which is not read; save it as Parquet or CSV" for version in range(2, 6)},
}

LONGEST_LINE = 1 << 24  # characters


def check_file(path: Path, suffixes: Sequence[str] = ()) -> int:
    """Return the size of a data file.

    Raises:
        DataError: it is missing, a folder, empty, or has none of the `suffixes`, if there are any.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder: name a file in it, or the GLUE task that it holds (--glue sst-2)")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if not path.is_file():
        raise DataError(f"{path}: is a pipe or a device: save its content as a file")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: is empty")
    if suffixes and path.suffix.lower() not in suffixes:
        with path.open("rb") as file:
            what = None if path.suffix.lower() == ".parquet" else not_text(file.read(4))
        wanted = f"must be a file with one of the suffixes {', '.join(suffixes)}"
        raise DataError(f"{path}: {what or wanted}")
    return size


@contextmanager
def opened(path: Path, *suffixes: str) -> Iterator[None]:
    """Check a text file before a block reads it, and turn errors of the block into errors for users.

    Args:
        path: the file.
        suffixes: allowed suffixes [default: any].

    Raises:
        DataError: the file is missing, a folder, empty, of another type, not UTF-8, or cannot be read.
    """
    check_file(path, suffixes)
    try:
        if path.suffix.lower() != ".parquet":
            with path.open("rb") as file:
                start = file.read(4)
            if problem := not_text(start):
                raise DataError(f"{path}: {problem}")
        yield
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def not_text(start: bytes) -> str | None:
    """Return what a file with this beginning is, and what to do, if it is known not to be UTF-8 text."""
    return next((problem for magic, problem in _NOT_TEXT.items() if start.startswith(magic)), None)


def too_long() -> str:
    """Return the message about a line that is too long for a text."""
    return f"has more than {LONGEST_LINE:,} characters: does the file have one text per line?"


def not_utf8(text: str, name: str) -> str | None:
    """Return what is wrong with a text that was decoded with the handler "surrogateescape", if it was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"byte 0x{ord(text[error.start]) & 0xFF:02X} is not UTF-8. If the file is Latin-1 (Windows), "
            f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {name} > utf8-{name}"
        )
    return None


def json_objects(path: Path, lines: Iterable[str], bad: BadRows | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of lines with one object each, or of one list of objects, with the numbers of their lines.

    Args:
        path: the file, for messages.
        lines: its lines.
        bad: receives lines that hold no object [default: the first of them is an error].
    """
    bad = BadRows(path) if bad is None else bad
    numbered = enumerate(lines, start=1)
    for number, line in numbered:
        if not line.strip():
            continue
        if number == 1 and line.lstrip()[0] == "[":
            yield from _list_of_objects(path, "".join(chain([line], (one for _, one in numbered))), bad)
            return
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # endless digits or brackets as well
            hint = "; one object per line is needed (jq -c .)" if line.strip() == "{" else ""
            bad(number, f"is not JSON: {error}{hint}", line)
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            bad(number, _no_object(value), line)


def _no_object(value: Any) -> str:
    return f'holds a {type(value).__name__}, not an object like {{"text": …, "label": …}}'


def _list_of_objects(path: Path, text: str, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a list, which is read as a whole."""
    decoder, start = json.JSONDecoder(), text.index("[") + 1
    line = text.count("\n", 0, start) + 1
    try:
        end = _after_space(text, start)
        while text[end] != "]":
            line, start = line + text.count("\n", start, end), end
            value, end = decoder.raw_decode(text, start)
            if isinstance(value, dict):
                yield line, value
            else:
                bad(line, _no_object(value), value)
            end = _after_space(text, end)
            if text[end] not in ",]":
                raise ValueError("the objects of a list must be separated by commas")
            end = _after_space(text, end + 1) if text[end] == "," else end
    except (ValueError, RecursionError, IndexError) as error:
        problem = "the list ends too early" if isinstance(error, IndexError) else error
        raise DataError(f"{path}, line {line}: is not JSON: {problem}") from None
    if text[end + 1 :].strip():
        line += text.count("\n", start, end)
        raise DataError(f"{path}, line {line}: more follows than the list that ends here")


def _after_space(text: str, start: int) -> int:
    while text[start].isspace():
        start += 1
    return start


def json_lines(path: Path, bad: BadRows | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file with one object per line, with the numbers of their lines; see `json_objects`."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        yield from json_objects(path, file, bad)


def parquet_rows(path: Path) -> tuple[Iterator[tuple[int, dict[str, Any]]], dict[str, Sequence[str]]]:
    """Return the rows of a Parquet file with their numbers, and the names of numbered tags that `datasets` stored."""
    require("train")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: is not a Parquet file that can be read: {error}") from None
    metadata = table.schema.metadata or {}
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    stored: dict[str, Sequence[str]] = {}
    for name, feature in features.items():
        inner = feature.get("feature", {}) if isinstance(feature, dict) else {}
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            stored[name] = tuple(map(str, inner["names"]))
    return iter(enumerate(table.to_pylist(), start=1)), stored


def check_text(value: Any, where: str) -> str:
    """Return `value` if it is a text that is not empty; else raise `DataError`, whose message starts with `where`."""
    if not isinstance(value, str):
        raise DataError(f"{where} holds {type_of(value)} instead of text")
    if not value.strip():
        raise DataError(f"{where} is an empty text")
    if not is_unicode(value):
        raise DataError(f"{where} holds an unpaired surrogate, which is not a character: {value!a:.60}")
    return value


def is_unicode(text: str) -> bool:
    r"""Return whether a text has no unpaired surrogates, which JSON can contain: "\ud83d"."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def type_of(value: Any) -> str:
    """Return the type of a value, and the value, for error messages."""
    return "nothing" if value is None else f"a {type(value).__name__}, {value!r:.40}"


def _undecodable(path: Path) -> DataError:
    """Return an error that names the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if problem := not_utf8(line.decode("utf-8", "surrogateescape"), path.name):
                return DataError(f"{path}, line {number}: {problem}")
    return DataError(f"{path}: is not UTF-8")
