"""Weights in safetensors files, whole or in shards, to and from NumPy."""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pocketbert.checkpoints.checksums import checksum, read_checksums, with_checksums
from pocketbert.checkpoints.files import atomic_write, look_at, plain, read_json
from pocketbert.errors import CheckpointError

Tensors = dict[str, np.ndarray]

LARGE = 1 << 20  # bytes

NUMPY_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?", "BF16": "<u2",
}  # fmt: skip


class LazyTensors(Mapping[str, np.ndarray]):
    """Tensors that are read on every access, so that few need to be in memory at once.

    Attributes:
        readers: by name, the function that reads a tensor.
        metadata: of the file, if it is a single one.
    """

    def __init__(
        self, readers: Mapping[str, Callable[[], np.ndarray]], metadata: Mapping[str, str] | None = None
    ) -> None:
        self.readers, self.metadata = readers, metadata or {}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.readers[name]()

    def __contains__(self, name: object) -> bool:  # which would read it otherwise
        return name in self.readers

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)


def open_safetensors(path: Path) -> LazyTensors:
    """The tensors of one file, each in memory of its own; bf16, which NumPy lacks, comes as float32.

    They are read and not memory-mapped: truncating a mapped file would end the process, and overwriting it would change
    the model of a running process. Memory that is read also counts once, not as a page of the file as well.

    Raises:
        CheckpointError: the file is missing, empty, truncated or not a safetensors file, or has a dtype that NumPy
            lacks; from a tensor: the file has changed.
    """
    start = look_at(path)
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x89HDF")):
        kind = "a Keras file" if start.startswith(b"\x89HDF") else "a PyTorch file; name it pytorch_model.bin"
        raise CheckpointError(f"{path} is not a safetensors file but {kind}")
    readers: dict[str, Callable[[], np.ndarray]] = {}
    try:
        with path.open("rb") as opened, safe_open(path, framework="numpy") as file:  # which checks every offset
            length = int.from_bytes(opened.read(8), "little")
            entries, version = json.loads(opened.read(length)), _version(opened)
            metadata = entries.get("__metadata__")
            sums = read_checksums(metadata)
            for name in file.keys():  # noqa: SIM118 - the handle is not a dict
                dtype, shape = file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()
                if dtype not in NUMPY_TYPES:
                    raise CheckpointError(f"{path}: {name!r} is of type {dtype}, which NumPy does not have")
                place = 8 + length + entries[name]["data_offsets"][0]
                readers[name] = partial(_read, path, version, place, dtype, shape, sums.get(name), name)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({plain(error)}): download or save it again"
        ) from None
    return LazyTensors(readers, metadata)


def _version(file: IO[bytes]) -> tuple[int, ...]:
    """Values that change when a file is replaced or written to."""
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _memory(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """An array whose memory, where it is large, goes back to the system as soon as it is let go.

    Memory of malloc stays with the process while smaller blocks behind it are in use: loading took twice the model's
    size.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or os.name != "posix":
        return np.empty(shape, dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype).reshape(shape)


def _read(
    path: Path, version: tuple[int, ...], place: int, dtype: str, shape: Sequence[int], sum_: str | None, name: str
) -> np.ndarray:
    """The numbers from the byte `place` on."""
    array = _memory(shape, np.dtype(NUMPY_TYPES[dtype]))
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(place)
            content = array.reshape(-1).view(np.uint8)
            rest = content.data
            while rest and (count := file.readinto(rest)):
                rest = rest[count:]
            changed = bool(rest) or _version(file) != version
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if changed:
        raise CheckpointError(f"{path} has changed while it was read: read it again")
    if sum_ is not None and sum_ != checksum(content):
        raise CheckpointError(f"{path} is damaged: {name} does not have its checksum; copy or download the file again")
    return widen_bf16(array) if dtype == "BF16" else array


def write_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` as one safetensors file with checksums, in one step.

    `metadata` is `{"format": "pt"}` by default: transformers loads no file without it.

    Raises:
        CheckpointError: the file cannot be written, or an array is of a type that the format lacks.
    """
    rows = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    try:
        data = save(rows, dict(metadata or {"format": "pt"}))
    except SafetensorError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from None
    with atomic_write(path) as file:
        file.writelines(with_checksums(data))


def open_shards(index: Path, read: Callable[[Path], Mapping[str, np.ndarray]]) -> LazyTensors:
    """All tensors that `index` (`*.index.json`: tensor → file in the same folder) lists, each file read by `read`.

    The index is the list: further tensors of a shard are ignored.

    Raises:
        CheckpointError: the index is damaged or leads out of its folder, or a shard or a tensor is missing.
    """
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f'{index}: "weight_map" must map tensors to files')
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for shard in sorted({_shard_name(index, name, shard) for name, shard in table.items()}):
        found = read(index.parent / shard)
        listed = [name for name, home in table.items() if home == shard]
        lost = [name for name in listed if name not in found]
        if lost:
            raise CheckpointError(f"{index.parent / shard} lacks {', '.join(lost)}, which {index.name} lists in it")
        readers.update((name, partial(found.__getitem__, name)) for name in listed)
    return LazyTensors(readers)


def widen_bf16(words: np.ndarray) -> np.ndarray:
    """uint16 → float32: a bf16 number is the upper half of the float32 of the same value."""
    wide = words.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _shard_name(index: Path, name: str, shard: object) -> str:
    if not name.isprintable():
        raise CheckpointError(f"{index} lists a tensor with the name {name!r}, which no model has")
    if not isinstance(shard, str) or not shard or shard in (".", "..") or any(c in shard for c in "/\\:\0"):
        raise CheckpointError(f"{index}: {name} is listed in {shard!r}, which is not a file name in that folder")
    return shard
