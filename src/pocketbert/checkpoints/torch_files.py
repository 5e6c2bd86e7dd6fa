"""Weights in files of `torch.save`, read without PyTorch and without unpickling.

Both formats are a pickle that describes tensors (dtype, shape, strides, storage) beside the storages themselves:

- zip (PyTorch 1.6 and later): `NAME/data.pkl`, `NAME/data/KEY` for each storage, `NAME/byteorder`; nothing compressed;
- stream (before): five pickles (a magic number, the version, facts about the machine, the object, the storages' keys),
  then for each storage its number of elements and its bytes, little-endian.

Nothing in the file is trusted: not a size, an offset or a name.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import look_at, plain
from pocketbert.checkpoints.pickles import PickleError, read_pickle
from pocketbert.checkpoints.safetensors_files import Tensors, widen_bf16
from pocketbert.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C  # begins the stream format
PROTOCOL = 1001
MAX_PICKLE = 16 * 2**20  # bytes; a thousand tensors take 150 kB
MAX_DIMS = 32
MAX_SHARING = 16  # tied weights share a storage; all tensors together may not claim more than so many times the file

# bf16 is read as its 16-bit words and widened.
_STORAGES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bf16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1",
    "ByteStorage": "u1", "UntypedStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_LARGEST_DIRECTORY = 4 << 20  # bytes: some 30,000 members, where a model has a few hundred
_WRAPPERS = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class _Storage:
    key: str
    kind: str  # a value of _STORAGES
    numel: int

    def dtype(self, order: str = "=") -> np.dtype[Any]:
        return np.dtype(order + ("u2" if self.kind == "bf16" else self.kind))

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype().itemsize


@dataclass(frozen=True)
class _Tensor:
    """A pickle's description of a tensor; its numbers are read later, if they are needed."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: Path) -> Tensors:
    """The tensors of a file that `torch.save` wrote: a state dict, or one under the key `state_dict` or `model`.

    bf16 comes as float32. Tensors that share memory in the file share it here.

    Raises:
        CheckpointError: the file is missing, empty, truncated, damaged or of another format, or asks for anything but
            tensors and plain values: its message names the object.
    """
    start = look_at(path)
    try:
        with path.open("rb") as file:
            if start.startswith(b"PK\x03\x04"):
                return _read_zip(file)
            if start.startswith(b"\x80"):
                return _read_stream(file)
    except PickleError as error:
        raise CheckpointError(f"{path} is not read: {plain(error)}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    raise CheckpointError(f"{path} is not a PyTorch file: neither a zip nor a stream of pickles")


# ── the zip format ──


def _read_zip(file: io.BufferedReader) -> Tensors:
    size = _size(file)
    entries = _entries(file, size)
    homes = [name.removesuffix("data.pkl") for name in entries if name.count("/") <= 1 and name.endswith("data.pkl")]
    if len(homes) != 1:
        raise PickleError("it is a zip without the data.pkl of a PyTorch file")
    home = homes[0]
    order = {b"little": "<", b"big": ">"}.get(_small(file, entries, home + "byteorder", b"little"))
    if order is None:
        raise PickleError("its byteorder is neither little nor big")
    storages = _Storages()
    state = _state_dict(read_pickle(io.BytesIO(_small(file, entries, home + "data.pkl")), _MAKERS, storages.declare))

    def read(storage: _Storage) -> np.ndarray:
        entry = entries.get(f"{home}data/{storage.key}")
        if entry is None or entry.file_size != storage.nbytes:
            raise PickleError(f"its storage {storage.key!r} is missing or not of the size that its tensors need")
        data = np.empty(storage.nbytes, np.uint8)
        _read_entry(file, entry, data.data)
        return _native(data, storage, order)

    return _build(state, read, size)


class _Bounded:
    """A file for `ZipFile`, which reads a whole directory at once and takes seconds for 100,000 members."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.seek, self.tell, self.seekable, self._file = file.seek, file.tell, file.seekable, file

    def read(self, count: int = -1) -> bytes:
        most = _LARGEST_DIRECTORY + 1
        content = self._file.read(min(count, most) if count >= 0 else most)
        if len(content) == most:
            raise PickleError(f"its zip directory has more than {_LARGEST_DIRECTORY >> 20} MiB")
        return content


def _entries(file: io.BufferedReader, size: int) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(_Bounded(file)) as archive:
            entries = archive.infolist()
    # The standard library's reader lets more than its own error through when the directory is damaged.
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError, OSError) as error:
        raise PickleError(f"its zip directory is damaged or cut off ({error})") from None
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise PickleError(f"{entry.filename!r} in it is compressed or encrypted, which torch.save never does")
        if not 0 <= entry.header_offset <= size - entry.file_size:
            raise PickleError(f"{entry.filename!r} in it lies outside the file")
    named = {entry.filename: entry for entry in entries}
    if len(named) != len(entries):
        raise PickleError("its zip directory lists a file twice")
    return named


def _small(
    file: io.BufferedReader, entries: Mapping[str, zipfile.ZipInfo], name: str, default: bytes | None = None
) -> bytes:
    """The bytes of an entry that is not a storage."""
    entry = entries.get(name)
    if entry is None and default is not None:
        return default
    if entry is None or entry.file_size > MAX_PICKLE:
        raise PickleError(f"{name!r} in it is missing or over {MAX_PICKLE} bytes")
    data = bytearray(entry.file_size)
    _read_entry(file, entry, memoryview(data))
    return bytes(data)


def _read_entry(file: io.BufferedReader, entry: zipfile.ZipInfo, into: memoryview) -> None:
    """Fill `into` with the bytes of an uncompressed entry and check them."""
    file.seek(entry.header_offset)
    header = file.read(30)  # signature, …, length of the name, length of the extra field
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise PickleError(f"{entry.filename!r} in it is not where the zip directory says")
    name_length, extra_length = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    name = file.read(name_length)
    if name != entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437"):
        raise PickleError(f"{entry.filename!r} in it is not where the zip directory says")
    file.seek(extra_length, io.SEEK_CUR)
    if _fill(file, into) != len(into):
        raise PickleError(f"{entry.filename!r} in it goes beyond the end of the file")
    # 0 means "not computed", an option of PyTorch.
    if entry.CRC not in (0, zlib.crc32(into)):
        raise PickleError(f"{entry.filename!r} in it is damaged (its checksum differs): download it again")


# ── the stream format ──


def _read_stream(file: io.BufferedReader) -> Tensors:
    size = _size(file)
    pickles = io.BytesIO(file.read(MAX_PICKLE))
    if read_pickle(pickles, {}) != MAGIC or read_pickle(pickles, {}) != PROTOCOL:
        raise PickleError("it is a pickle, but not one of PyTorch")
    read_pickle(pickles, {})  # the machine: byte order (the storages are little-endian anyway) and sizes of C types
    storages = _Storages()
    state = _state_dict(read_pickle(pickles, _MAKERS, storages.declare))
    keys = read_pickle(pickles, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise PickleError("its list of storages is damaged")

    places: dict[str, int] = {}
    at = pickles.tell()
    for key in keys:
        storage = storages.by_key.get(key)
        if storage is None:
            raise PickleError("its list of storages names one that no tensor uses")
        file.seek(at)
        if int.from_bytes(file.read(8), "little", signed=True) != storage.numel or at + 8 + storage.nbytes > size:
            raise PickleError(f"its storage {key!r} is cut off or not of the size that its tensors need")
        places[key] = at + 8
        at += 8 + storage.nbytes

    def read(storage: _Storage) -> np.ndarray:
        if storage.key not in places:
            raise PickleError(f"its storage {storage.key!r} is missing")
        file.seek(places[storage.key])
        data = np.empty(storage.nbytes, np.uint8)
        if _fill(file, data.data) != storage.nbytes:
            raise PickleError(f"its storage {storage.key!r} is cut off")
        return _native(data, storage, "<")

    return _build(state, read, size)


# ── shared by both formats ──


def _size(file: io.BufferedReader) -> int:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


def _fill(file: io.BufferedReader, into: memoryview) -> int:
    """Read into all of `into`; returns the number of bytes read."""
    done = 0
    while done < len(into) and (count := file.readinto(into[done:])):
        done += count
    return done


def _whole(*numbers: object) -> bool:
    """Whether these are sizes: whole numbers, not negative, small enough to reckon with."""
    return all(type(n) is int and 0 <= n < 2**48 for n in numbers)


class _Storages:
    """The storages that a pickle mentions."""

    def __init__(self) -> None:
        self.by_key: dict[str, _Storage] = {}

    def declare(self, identity: Any) -> _Storage:
        """The storage of a persistent id: ("storage", type, key, device, number of elements[, view])."""
        match identity:
            case ("storage", _Kind(name=kind), str(key), str(), numel, *view) if _whole(numel) and view in ([], [None]):
                storage = self.by_key.setdefault(key, _Storage(key, kind, numel))
                if storage != _Storage(key, kind, numel):
                    raise PickleError(f"it describes its storage {key!r} in two ways")
                return storage
        raise PickleError("it describes a storage in a way that PyTorch does not")


@dataclass(frozen=True)
class _Kind:
    """The type of a storage, as a pickle names it."""

    name: str


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """`torch._utils._rebuild_tensor(_v2)`; the further arguments concern gradients."""
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise PickleError("it describes a tensor in a way that PyTorch does not")
    if (
        len(shape) != len(strides)
        or len(shape) > MAX_DIMS
        or not _whole(offset, *shape, *strides)
        or not _whole(math.prod(n or 1 for n in shape))  # NumPy minds even where one of them is 0
    ):
        raise PickleError("it has a tensor of an impossible shape")
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if count else offset - 1
    # A tensor with more elements than its storage repeats some: `expand`, which nobody saves weights in.
    if last >= storage.numel or count > storage.numel:
        raise PickleError(f"it has a tensor of shape {list(shape)} beyond its storage of {storage.numel} elements")
    return _Tensor(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise PickleError("it has a parameter that is not a tensor")
    return data


def _shape(sizes: Any = ()) -> tuple[Any, ...]:
    if not isinstance(sizes, tuple | list):
        raise PickleError("it has a shape that is not a list of numbers")
    return tuple(sizes)


def _ordered_dict() -> dict[Any, Any]:
    return {}


_MAKERS: dict[str, Callable[..., Any] | _Kind | str] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _shape,
    **{f"torch.{name}": _Kind(kind) for name, kind in _STORAGES.items()},
    "torch.storage.UntypedStorage": _Kind("u1"),
    # A dtype beside the weights is a note, such as the one of the model's configuration.
    **{
        f"torch.{name}": name
        for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    },
}


def _state_dict(value: Any) -> dict[str, _Tensor]:
    """The tensors by name in a file's contents; raises `PickleError` unless it is a state dict, bare or wrapped."""
    for wrapper in _WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
            break
    if not isinstance(value, dict):
        raise PickleError(f"it holds a {type(value).__name__.lstrip('_').lower()}, not a state dict")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            kind = type(tensor).__name__.lstrip("_").lower()
            raise PickleError(f"it is not a state dict: {str(name)[:200]!r} is a {kind}, not a tensor")
    return value


def _native(data: np.ndarray, storage: _Storage, order: str) -> np.ndarray:
    """A storage as numbers of this machine's byte order (and bf16 widened)."""
    if storage.kind == "?":
        truth: np.ndarray = np.not_equal(data, 0)  # any byte but 0 and 1 would be no truth value to NumPy
        return truth
    numbers = data.view(storage.dtype(order)).astype(storage.dtype(), copy=False)
    return widen_bf16(numbers) if storage.kind == "bf16" else numbers


def _build(state: Mapping[str, _Tensor], read: Callable[[_Storage], np.ndarray], size: int) -> Tensors:
    """Read the storages of a file of `size` bytes and cut the tensors out of them."""
    claimed = sum(math.prod(t.shape) * t.storage.dtype().itemsize for t in state.values())
    stored = sum(storage.nbytes for storage in {t.storage for t in state.values()})
    if claimed > MAX_SHARING * size or stored > size:
        raise PickleError(f"its tensors claim {max(claimed, stored):,} bytes, which its {size:,} bytes cannot hold")
    storages: dict[str, np.ndarray] = {}
    tensors: Tensors = {}
    for name, tensor in state.items():
        key = tensor.storage.key
        if key not in storages:
            storages[key] = read(tensor.storage)
        tensors[name] = _cut(storages[key], tensor)
    return tensors


def _cut(numbers: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """A tensor out of its storage: the same memory if it is contiguous, otherwise a copy."""
    if 0 in tensor.shape:
        return np.empty(tensor.shape, numbers.dtype)
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    view = np.ndarray(tensor.shape, numbers.dtype, numbers.data, tensor.offset * numbers.itemsize, strides)
    return np.asarray(view, order="C")
