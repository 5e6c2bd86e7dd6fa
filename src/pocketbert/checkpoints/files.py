"""Atomic writing of files and folders, and checks of a weight file before it is parsed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from pocketbert.errors import CheckpointError

LARGEST_JSON = 16 << 20  # bytes: a thousand times the largest of its kind, but for tokenizers

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and save again",
    errno.EDQUOT: "the quota is used up: free some space and save again",
    errno.EFBIG: "the file exceeds the size limit (ulimit -f): raise the limit and save again",
    errno.EACCES: "no permission to write there: choose another folder",
    errno.EPERM: "no permission to write there: choose another folder",
    errno.EROFS: "that disk is read-only: choose another folder",
    errno.EEXIST: "a file of that name exists: choose another folder",
    errno.ENOTDIR: "a file of that name exists: choose another folder",
    errno.EISDIR: "a folder of that name exists: choose another name",
}


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` when the block ends well, and leaves no trace when it does not.

    Missing folders are made. Text is UTF-8 with plain newlines. An earlier file at `path` stays until it is replaced.

    Raises:
        CheckpointError: the disk is full, there is no permission, …
    """
    path = Path(path)
    # Not `tempfile`: its files are private to the user, and the permissions would stay after the renaming.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open(mode.replace("w", "x"), **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except CheckpointError:
        raise
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, str(error))
        raise CheckpointError(f"cannot write {path}: {advice}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def refuse_existing(folder: Path) -> None:
    """Raise `CheckpointError` unless `folder` does not exist, or is empty."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists already: choose another folder")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears as `out` when the block ends well, and leaves no trace when it does not.

    Raises:
        CheckpointError: it cannot be written.
    """
    import shutil  # slow to import; the engine, which imports this module, does without

    temporary = out.with_name(f".{out.name}.{os.urandom(4).hex()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(out)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 in one step; raises `CheckpointError` as `atomic_write` does."""
    with atomic_write(path, "w") as file:
        file.write(text)


def check_regular(path: Path, largest: int | None = None) -> None:
    """Raise `CheckpointError` unless `path` is a regular file of at most `largest` bytes.

    In a folder of somebody else's, a name can stand for a pipe, which blocks whoever opens it, or a device without end.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode):
        raise CheckpointError(f"{path} is a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is not a regular file but a pipe, a socket or a device")
    if largest is not None and found.st_size > largest:
        size, limit = found.st_size >> 20, largest >> 20
        raise CheckpointError(f"{path} has {size:,} MiB; files of its kind have at most {limit} MiB")


def read_json_bytes(path: Path, largest: int | None = LARGEST_JSON) -> bytes:
    """The content of a regular file of at most `largest` bytes; raises `CheckpointError`."""
    check_regular(path, largest)
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path, largest: int | None = LARGEST_JSON) -> dict[str, Any]:
    """The JSON object in `path`; raises `CheckpointError` for any other content, and for more than `largest` bytes."""
    content = read_json_bytes(path, largest)
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except json.JSONDecodeError as error:
        look_at(path)  # raises if the file is empty, a web page or a git-lfs pointer
        raise CheckpointError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # digits without end, brackets without end
        raise CheckpointError(f"{path}: not JSON that can be read: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value


def plain(error: Exception) -> str:
    """The message of `error`, safe to print: it may contain characters of a damaged file."""
    text = str(error)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def look_at(path: Path) -> bytes:
    """The first bytes of `path`, once it is known to be a file with something in it that may be weights.

    Raises:
        CheckpointError: the file is missing, unreadable, empty, not a regular file, a web page or a git-lfs pointer.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if not start:
        raise CheckpointError(f"{path} is empty: download or save it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page that was saved under this name: download the file itself")
    return start
