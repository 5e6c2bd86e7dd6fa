"""What all readers of data files have in common: whether a file can be read at all, JSON lines, texts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketbert.data.tables import check_utf8, is_unicode, json_objects, not_text
from pocketbert.errors import DataError


@contextmanager
def opened(path: Path, *suffixes: str) -> Iterator[None]:
    """A block that reads `path`, a text file; without `suffixes`, of any name.

    Raises:
        DataError: it is missing, a folder, empty, of another kind, not UTF-8, or the disk fails.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file in it, or say which GLUE task it holds (--glue sst-2)")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    if suffixes and path.suffix.lower() not in suffixes:
        raise DataError(f"{path}: is none of {', '.join(suffixes)}")
    try:
        if path.suffix.lower() != ".parquet":
            with path.open("rb") as file:
                start = file.read(4)
            if what := not_text(start):
                raise DataError(f"{path}: {what}")
        yield
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file that has one a line, with the numbers of their lines."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        yield from json_objects(path, file)


def check_text(value: Any, where: str) -> str:
    """`value`, if it is a text with something in it; `where` begins the message of the `DataError` otherwise."""
    if not isinstance(value, str):
        found = "nothing" if value is None else f"a {type(value).__name__}, {value!r:.40}"
        raise DataError(f"{where} holds {found} instead of text")
    if not value.strip():
        raise DataError(f"{where} is an empty text")
    if not is_unicode(value):
        raise DataError(f"{where} holds half a character, which stands for nothing: {value!a:.60}")
    return value


def _undecodable(path: Path) -> DataError:
    """Names the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                check_utf8(line.decode("utf-8", "surrogateescape"), f"{path}, line {number}", path.name)
            except DataError as error:
                return error
    return DataError(f"{path}: is not UTF-8")
