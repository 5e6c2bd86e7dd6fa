"""Where bulk inference reads and writes: folders of this machine, and buckets under a URL, by pyarrow.

What is written appears whole or not at all, here by renaming and in a bucket because an object exists once its upload
ends. Object stores are those that pyarrow knows: `s3://`, `gs://`, `abfs://`, `hdfs://`; credentials come from the
environment, and so does the address of another server than Amazon's (AWS_ENDPOINT_URL).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pocketbert.checkpoints.files import atomic_write
from pocketbert.errors import DataError, require

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_GLOB = re.compile(r"[*?\[]")
_OPTIONS = re.compile(r"\?\w+=.*$")  # such as ?endpoint_override=localhost:9000&scheme=http
_BLOCK = 1 << 20  # bytes per read of a remote file


class Source(NamedTuple):
    """A file to read: its name or URL, and its size in bytes."""

    name: str
    bytes: int


class Folder(NamedTuple):
    """A folder of files by name, which the processes of all workers can open: a path, or a URL."""

    where: str

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it is not there. Raises `DataError`."""
        try:
            if not is_url(self.where):
                path = Path(self.where, name)
                return path.read_bytes() if path.exists() else None
            system, base = _remote(self.where)
            if not system.get_file_info(f"{base}/{name}").is_file:
                return None
            with system.open_input_stream(f"{base}/{name}") as file:
                return bytes(file.read())
        except OSError as error:
            raise _unusable(f"{self.where}/{name}", error) from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which replaces an earlier one. Raises `DataError`, or `CheckpointError` as `atomic_write`."""
        if not is_url(self.where):
            with atomic_write(Path(self.where, name)) as file:
                file.write(content)
            return
        try:
            system, base = _remote(self.where)
            if system.type_name not in ("s3", "gcs"):  # those have no folders
                system.create_dir(str(PurePosixPath(base, name).parent), recursive=True)
            with system.open_output_stream(f"{base}/{name}") as file:
                file.write(content)
        except OSError as error:
            raise _unusable(f"{self.where}/{name}", error) from None

    def names(self) -> list[str]:
        """The files in it and below it, sorted; none if it does not exist. Raises `DataError`."""
        try:
            if not is_url(self.where):
                base = Path(self.where)
                if base.exists() and not base.is_dir():
                    raise DataError(f"{self.where}: is a file: --output needs a folder")
                return sorted(path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file())
            system, root = _remote(self.where)
            return sorted(path.removeprefix(f"{root}/") for path, _ in _listed(system, root))
        except OSError as error:
            raise _unusable(self.where, error) from None

    def remove(self, name: str) -> None:
        """Remove a folder in it with all files, if it is there. Raises `DataError`."""
        try:
            if not is_url(self.where):
                shutil.rmtree(Path(self.where, name), ignore_errors=True)
                return
            system, base = _remote(self.where)
            if system.get_file_info(f"{base}/{name}").type.name == "Directory":
                system.delete_dir(f"{base}/{name}")
        except OSError as error:
            raise _unusable(f"{self.where}/{name}", error) from None


def is_url(name: str) -> bool:
    """Whether a name is a URL and not a path of this machine."""
    return _URL.match(name) is not None


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files, or for files elsewhere."""
    return is_url(name) or (_GLOB.search(name) is not None and not Path(name).exists())


def find(pattern: str) -> list[Source]:
    """The files that a name, a pattern with `*`, `?`, `[…]` or `**`, or a URL stands for, in the order of their names.

    Raises:
        DataError: there is none, or the bucket cannot be read.
        MissingExtraError: a URL needs pyarrow.
    """
    try:
        if is_url(pattern):
            found = _find_remote(pattern)
        elif is_pattern(pattern):
            paths = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))  # noqa: PTH207 # absolute ones, too
            found = [Source(path, Path(path).stat().st_size) for path in paths]
        else:
            path = Path(pattern)
            if not path.exists():
                raise DataError(f"{pattern}: there is no such file")
            if path.is_dir():
                raise DataError(f"{pattern}: is a folder: name its files, such as '{pattern.rstrip('/')}/*.parquet'")
            found = [Source(pattern, path.stat().st_size)]
    except OSError as error:
        raise _unusable(pattern, error) from None
    if not found:
        raise DataError(f"{pattern}: there is no such file")
    return found


@contextlib.contextmanager
def fetched(source: Source) -> Iterator[Path]:
    """The path of a file during the block: its own, or that of a copy of a remote one.

    Raises:
        DataError: it cannot be read.
    """
    if not is_url(source.name):
        yield Path(source.name)
        return
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as folder:
        path = Path(folder) / PurePosixPath(_divided(source.name)[0]).name
        try:
            system, place = _remote(source.name)
            with system.open_input_stream(place) as file, path.open("wb") as copy:
                while block := file.read(_BLOCK):
                    copy.write(block)
        except OSError as error:
            raise _unusable(source.name, error) from None
        yield path


# ── object stores ──


def _find_remote(url: str) -> list[Source]:
    start, query = _divided(url)
    whole = _GLOB.search(start)
    beginning = start if whole is None else start[: start.rfind("/", 0, whole.start())]
    system, base = _remote(beginning + query)
    if whole is None:
        info = system.get_file_info(base)
        return [Source(url, info.size)] if info.is_file else []
    scheme = start[: start.index("://") + 3]
    wanted = start.removeprefix(scheme)
    found = [(path, size) for path, size in _listed(system, base) if _matches(path, wanted)]
    return [Source(f"{scheme}{path}{query}", size) for path, size in sorted(found)]


def _divided(url: str) -> tuple[str, str]:
    """A URL before and after the `?` of its options: as a sign of patterns it is followed by no name and value."""
    found = _OPTIONS.search(url)
    return (url, "") if found is None else (url[: found.start()], url[found.start() :])


def _matches(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern, in which `*` stands for a part of a name and `**` for any folders."""
    parts, wanted = path.split("/"), pattern.split("/")

    def fit(i: int, j: int) -> bool:
        if j == len(wanted):
            return i == len(parts)
        if wanted[j] == "**":
            return any(fit(next_, j + 1) for next_ in range(i, len(parts) + 1))
        return i < len(parts) and fnmatchcase(parts[i], wanted[j]) and fit(i + 1, j + 1)

    return fit(0, 0)


def _listed(system: Any, base: str) -> Iterator[tuple[str, int]]:
    from pyarrow import fs

    for info in system.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True)):
        if info.is_file:
            yield info.path, info.size


def _remote(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    require("parquet")
    import pyarrow
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if url.startswith("s3://") and endpoint and _OPTIONS.search(url) is None:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        system = fs.S3FileSystem(endpoint_override=endpoint, region=region)
        return system, url.removeprefix("s3://").rstrip("/")
    try:
        system, path = fs.FileSystem.from_uri(url)
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{url}: is not a location that pyarrow can read: {_first(error)}") from None
    return system, path.rstrip("/")


def _unusable(name: str, error: OSError) -> DataError:
    text = _first(error)
    if "ACCESS_DENIED" in text or "Forbidden" in text or isinstance(error, PermissionError):
        return DataError(f"{name}: no permission there: are the credentials those of its owner? ({text:.200})")
    if "NO_SUCH_BUCKET" in text:
        return DataError(f"{name}: there is no such bucket")
    return DataError(f"{name}: cannot be used: {error.strerror or text:.300}")


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
