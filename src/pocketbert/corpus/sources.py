"""Sources of raw text: files, folders of files and data sets of the hub, as documents.

The format of a file follows from its name and its beginning:

- text (`.txt`, `.text`, `.md`, or no suffix): documents separated by blank lines, as in google-research/bert; a line
  break ends a sentence.
- JSON lines (`.jsonl`, `.ndjson`, `.json`, or no suffix and a brace at the beginning): the value of "text".
- Parquet (`.parquet`): the column `text`.
- WikiExtractor's output (a file that begins with `<doc `): its documents, without the title in their first line.
- `hub:NAME`, `hub:NAME:CONFIG` or `hub:NAME:CONFIG:SPLIT`: the column `text` of a data set, by `datasets`.

Sources are cut into parts of about the same size, between documents; each part is read independently.
"""

import html
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from pocketbert.corpus.corpus import sha256
from pocketbert.data.files import LONGEST_LINE, is_unicode, not_text, too_long
from pocketbert.errors import DataError, require

HUB = "hub:"
_TEXT, _JSON = (".txt", ".text", ".md"), (".jsonl", ".ndjson", ".json")
_PART = 32 << 20  # bytes of text
_MOST_PARTS = 500  # so that all shards can be open at the same time
_LONGEST = 1 << 24  # characters of a document in a text file; longer ones are split
_ROWS = 64  # rows per batch of a Parquet file
_JQ = "; convert a JSON list to one object per line (jq -c '.[]')"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """A file or a data set: path, kind, approximate bytes of text, and hash."""

    path: str
    name: str  # relative to the given folder, so that it has no path of this machine
    kind: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Piece:
    """A part of a source: bytes, row groups or rows from `start` to `stop`, exclusive."""

    path: str
    kind: str
    start: int
    stop: int
    bytes: int


Part = tuple[Piece, ...]


def find_sources(names: Sequence[str | Path]) -> list[Source]:
    """Return the sources that files, folders and names of the hub stand for; of folders in the order of file names.

    Raises:
        DataError: a source is missing, empty, compressed, binary or of an unknown kind.
        MissingExtraError: Parquet needs pyarrow, the hub `datasets`.
    """
    sources = []
    for name in map(str, names):
        if name.startswith(HUB):
            sources.append(_hub_source(name))
            continue
        path = Path(name)
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder (a data set of the hub is written hub:NAME)")
        files = [path]
        if path.is_dir():
            inside = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
            files = [path / file for file in sorted(inside) if not any(part.startswith(".") for part in file.parts)]
            if not files:
                raise DataError(f"{path}: has no files in it")
        sources += [_file_source(file, file.relative_to(path.parent).as_posix()) for file in files]
    if not sources:
        raise DataError("no sources: give files, folders, or data sets of the hub")
    return sources


def cut(sources: Iterable[Source]) -> list[Part]:
    """Return the sources, in order, as parts of about the same size.

    Raises:
        DataError: a file has a line that is too long to be cut.
    """
    sources = list(sources)
    size = max(_PART, sum(source.bytes for source in sources) // _MOST_PARTS)
    parts: list[Part] = []
    open_part: list[Piece] = []
    for source in sources:
        for piece in _pieces(source, size):
            open_part.append(piece)
            if sum(part.bytes for part in open_part) >= size:
                parts.append(tuple(open_part))
                open_part = []
    return parts + ([tuple(open_part)] if open_part else [])


def read(part: Part) -> Iterator[str]:
    """Yield the text of every document of a part, one paragraph per line.

    Raises:
        DataError: a source cannot be read; the message names the position and the remedy.
    """
    for piece in part:
        yield from _READERS[piece.kind](piece)


# ── finding and cutting ──


def _file_source(path: Path, name: str) -> Source:
    try:
        kind = _kind(path)
        size = path.stat().st_size if kind != "parquet" else sum(_parquet(path)[1])
        return Source(str(path), name, kind, size, sha256(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    if suffix == ".parquet":
        return "parquet"
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if problem := not_text(start[:4]):
        raise DataError(f"{path}: {problem}")
    if b"\0" in start:
        raise DataError(f"{path}: is binary, not text")
    begin = start.removeprefix(_BOM).lstrip()
    if begin.startswith(b"<doc "):
        return "wiki"
    if suffix in _JSON or (not suffix and begin.startswith(b"{")):
        return "json"
    if suffix in _TEXT or not suffix or suffix[1:].isdigit():
        return "text"
    raise DataError(f"{path}: must be one of {', '.join((*_TEXT, *_JSON, '.parquet'))}, or WikiExtractor's output")


def _pieces(source: Source, size: int) -> Iterator[Piece]:
    if source.kind == "parquet":
        groups = _parquet(Path(source.path))[1]
        yield from (Piece(source.path, "parquet", i, i + 1, weight) for i, weight in enumerate(groups))
    elif source.kind == "hub":
        rows = len(_hub(source.path))
        cuts = [*range(0, rows, max(1, rows * size // max(1, source.bytes))), rows]
        yield from (
            Piece(source.path, "hub", start, stop, source.bytes * (stop - start) // rows)
            for start, stop in pairwise(cuts)
        )
    else:
        start = 0
        with Path(source.path).open("rb") as file:
            while start < source.bytes:
                stop = _boundary(file, source, start + size)
                yield Piece(source.path, source.kind, start, stop, stop - start)
                start = stop


def _boundary(file: IO[bytes], source: Source, position: int) -> int:
    """Return the beginning of the first document after a byte position."""
    if position >= source.bytes:
        return source.bytes
    file.seek(position - 1)
    _line(file, source.path)
    while source.kind != "json":
        line = _line(file, source.path)
        if not line:
            return source.bytes
        if source.kind == "text" and not line.strip():
            break
        if source.kind == "wiki" and line.startswith(b"<doc "):
            return file.tell() - len(line)
    return file.tell()


def _line(file: IO[bytes], path: str) -> bytes:
    line = file.readline(LONGEST_LINE)
    if len(line) == LONGEST_LINE:
        raise DataError(f"{path}, byte {file.tell() - len(line)}: a line {too_long()}")
    return line


# ── readers ──


def _lines(piece: Piece) -> Iterator[tuple[int, str]]:
    """Yield the lines of a piece, each with its byte position."""
    try:
        with Path(piece.path).open("rb") as file:
            file.seek(piece.start)
            while (position := file.tell()) < piece.stop:
                line = _line(file, piece.path)
                if b"\0" in line:
                    raise DataError(f"{_where(piece.path, position)}: is binary, not text")
                try:
                    yield position, (line.removeprefix(_BOM) if position == 0 else line).decode()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{_where(piece.path, position)}: byte 0x{line[error.start]:02X} is not UTF-8; convert a "
                        "Latin-1 file with iconv -f WINDOWS-1252 -t UTF-8"
                    ) from None
    except OSError as error:
        raise DataError(f"{piece.path}: cannot be read: {error.strerror or error}") from None


def _where(path: str, position: int) -> str:
    """Return the file and the number of the line at a byte position."""
    number, left = 1, position
    with Path(path).open("rb") as file:
        while left and (block := file.read(min(left, 1 << 20))):
            number, left = number + block.count(b"\n"), left - len(block)
    return f"{path}, line {number}"


def _read_text(piece: Piece) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, line in _lines(piece):
        if lines and (not line.strip() or size > _LONGEST):
            yield "".join(lines)
            lines, size = [], 0
        if line.strip():
            lines.append(line)
            size += len(line)
    if lines:
        yield "".join(lines)


def _read_json(piece: Piece) -> Iterator[str]:
    for position, line in _lines(piece):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{_where(piece.path, position)}: is not JSON: {error}{_JQ if line[0] == '[' else ''}"
            ) from None
        if not isinstance(value, dict):
            raise DataError(f"{_where(piece.path, position)}: holds a {type(value).__name__}, not an object{_JQ}")
        text: Any = value.get("text")
        if problem := _problem(text):
            raise DataError(f'{_where(piece.path, position)}: "text" {problem}')
        yield text


def _read_wiki(piece: Piece) -> Iterator[str]:
    lines: list[str] | None = None
    title = ""
    for position, line in _lines(piece):
        if line.startswith("<doc "):
            if lines is not None:
                raise DataError(
                    f"{_where(piece.path, position)}: a document begins before the previous one ends (</doc>)"
                )
            lines, title = [], html.unescape(line.partition('title="')[2].rpartition('"')[0])
        elif line.startswith("</doc>") and lines is not None:
            yield "".join(lines)
            lines = None
        elif lines is not None and (lines or (line.strip() and html.unescape(line.strip()) != title)):
            lines.append(html.unescape(line))
    if lines is not None:
        raise DataError(f"{piece.path}: ends within the document {title!r}: the file is truncated")


def _read_parquet(piece: Piece) -> Iterator[str]:
    import pyarrow

    number = 0
    try:
        file, _ = _parquet(Path(piece.path))
        with file:
            for batch in file.iter_batches(_ROWS, row_groups=range(piece.start, piece.stop), columns=["text"]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    if problem := _problem(text):
                        raise DataError(f'{piece.path}, row group {piece.start}, row {number}: "text" {problem}')
                    yield text
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{piece.path}: is damaged in row group {piece.start}: {error}") from None


def _parquet(path: Path) -> tuple[Any, list[int]]:
    """Return an open file, and the bytes of its row groups in the column `text`."""
    require("parquet")
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a Parquet file: {error}") from None
    names = file.schema_arrow.names
    if "text" not in names:
        raise DataError(f"{path}: has no column 'text'; the columns are: {', '.join(names)}")
    if not file.metadata.num_rows:
        raise DataError(f"{path}: has no rows")
    column = names.index("text")
    groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
    return file, [group.column(column).total_uncompressed_size for group in groups]


def _hub_source(name: str) -> Source:
    rows = _hub(name)
    kind = str(rows.features["text"].dtype)
    if kind not in ("string", "large_string"):
        raise DataError(f"{name}: the column 'text' holds {kind}, not text")
    size = int(rows.data.nbytes)
    return Source(name, name, "hub", size, str(rows._fingerprint))


@lru_cache(maxsize=4)
def _hub(name: str) -> Any:
    require("datasets")
    import datasets

    parts = name.removeprefix(HUB).split(":")
    try:
        rows = datasets.load_dataset(*parts[:2], split=parts[2] if len(parts) > 2 else "train")
    except Exception as error:  # of whatever type the many libraries below raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}: datasets cannot read it: {first}") from error
    if "text" not in rows.column_names:
        raise DataError(f"{name}: has no column 'text'; the columns are: {', '.join(rows.column_names)}")
    return rows.select_columns(["text"])


def _read_hub(piece: Piece) -> Iterator[str]:
    rows = _hub(piece.path)
    for number in range(piece.start, piece.stop):
        text = rows[number]["text"]
        if problem := _problem(text):
            raise DataError(f'{piece.path}, row {number}: "text" {problem}')
        yield text


def _problem(text: Any) -> str | None:
    """Return the problem of a value that should be a text, which may be empty."""
    if not isinstance(text, str):
        return f"holds {'nothing' if text is None else f'a {type(text).__name__}'} instead of text"
    return None if text.isascii() or is_unicode(text) else "holds an unpaired surrogate, which is not a character"


_READERS: dict[str, Callable[[Piece], Iterator[str]]] = {
    "text": _read_text,
    "json": _read_json,
    "wiki": _read_wiki,
    "parquet": _read_parquet,
    "hub": _read_hub,
}
