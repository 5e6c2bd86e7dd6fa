"""Weights in TensorFlow checkpoints (`PREFIX.index` and `PREFIX.data-00000-of-00001`), read without TensorFlow.

The index is a LevelDB table: blocks of sorted entries whose keys omit the prefix that they share with the key before,
each block with a checksum and sometimes compressed with Snappy; a block that lists the blocks; a footer. The entry ""
is a header; each other one is a tensor: type, shape, and where in the data files its bytes are. Formats: TensorFlow's
tensor_bundle.proto, LevelDB's table_format.md, Snappy's format_description.txt.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.crc32c import crc32c, unmask
from pocketbert.checkpoints.files import look_at, plain
from pocketbert.checkpoints.safetensors_files import Tensors, widen_bf16
from pocketbert.errors import CheckpointError

FOOTER = 48  # bytes: two places, padding, the magic number
MAGIC = 0xDB4775248B80FB57
# The index of MobileBERT takes 17 kB. The bounds keep a hostile one from filling the memory: three bytes can repeat a
# long key, or as many numbers as a copy of Snappy may hold.
MAX_BYTES = 16 * 2**20  # of an index, and of a block of it
MAX_TENSORS = 100_000
MAX_NAME = 1000  # bytes
MAX_DIMS = 32
BF16 = 14
STRING = 7
# Numbers of types.proto → NumPy; bf16 as its 16-bit words.
DTYPES = {
    1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 9: "i8", 10: "?", BF16: "u2", 17: "u2", 19: "f2",
    22: "u4", 23: "u8",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """The index's entry of a tensor."""

    dtype: int  # a number of types.proto
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


class Bundle:
    """A TensorFlow checkpoint: `entries` by name, and `read` for their numbers."""

    def __init__(self, prefix: str | Path) -> None:
        """Read the index of the checkpoint `prefix` (with or without `.index`).

        Raises:
            CheckpointError: the index is missing, empty, truncated, damaged or none.
        """
        self.prefix = Path(str(prefix).removesuffix(".index"))
        self.index = Path(f"{self.prefix}.index")
        look_at(self.index)
        try:
            with self.index.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            table = _table(data)
            name, value = next(table, (None, b""))
            if name != b"":
                raise ValueError("it has no header")
            header = dict(_fields(value))
            self.shards = _number(header.get(1, 0))
            self.big_endian = _number(header.get(2, 0)) == 1
            entries = {_name(key): _entry(value) for key, value in itertools.islice(table, MAX_TENSORS)}
        except (ValueError, IndexError) as error:
            raise CheckpointError(f"{self.index} is damaged or no TensorFlow index: {plain(error)}") from None
        except OSError as error:
            raise CheckpointError(f"cannot read {self.index}: {error.strerror}") from error
        # Text, such as the graph of a Keras model, is never a weight.
        self.entries = {name: entry for name, entry in entries.items() if entry.dtype != STRING}

    def read(self, names: Collection[str]) -> Tensors:
        """The tensors of these names, in memory of their own, their checksums compared; bf16 comes as float32.

        Raises:
            CheckpointError: a data file is missing or truncated, or a tensor is damaged or of a type NumPy lacks.
        """
        return {name: self._read(name, self.entries[name]) for name in names}

    def _read(self, name: str, entry: Entry) -> np.ndarray:
        path = Path(f"{self.prefix}.data-{entry.shard:05d}-of-{self.shards:05d}")
        if entry.dtype not in DTYPES:
            raise CheckpointError(f"{self.index}: {name} has the type number {entry.dtype}, which NumPy does not have")
        dtype = np.dtype(DTYPES[entry.dtype]).newbyteorder(">" if self.big_endian else "<")
        if math.prod(entry.shape) * dtype.itemsize != entry.size:
            raise CheckpointError(f"{self.index}: {name} of shape {list(entry.shape)} cannot take {entry.size} bytes")
        look_at(path)
        try:
            if entry.offset + entry.size > path.stat().st_size:
                raise CheckpointError(f"{path} is truncated: {name} lies beyond its end. Download it again")
            data = np.fromfile(path, np.uint8, entry.size, offset=entry.offset)
        except OSError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        if crc32c(data) != entry.checksum:
            raise CheckpointError(f"{path} is damaged: the checksum of {name} differs. Download it again")
        numbers = data.view(dtype).astype(dtype.newbyteorder("="), copy=False)
        return (widen_bf16(numbers) if entry.dtype == BF16 else numbers).reshape(entry.shape)


# ── the table ──


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table, in order; raises `ValueError` or `IndexError` where it is damaged."""
    footer = data[-FOOTER:]
    if len(footer) < FOOTER or int.from_bytes(footer[-8:], "little") != MAGIC:
        raise ValueError("its end is not that of a table, perhaps the file is cut off")
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has over {MAX_BYTES:,} bytes")
    _, at = _place(footer, 0)  # an index of more data about the table, which TensorFlow leaves empty
    place, _ = _place(footer, at)
    done, last = 0, None
    for _, value in _block(data, *place):
        (offset, length), _ = _place(value, 0)
        if offset < done:
            raise ValueError("its blocks overlap")
        done = offset + length
        for key, entry in _block(data, offset, length):
            if last is not None and key <= last:
                raise ValueError("its names are out of order")
            last = key
            yield key, entry


def _place(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and length of a block."""
    offset, at = _varint(data, at)
    length, at = _varint(data, at)
    return (offset, length), at


def _block(data: bytes, offset: int, length: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; a byte (compression) and four (checksum) follow it."""
    end = offset + length
    if end + 5 > len(data):
        raise ValueError("a block goes beyond the end of the file")
    (checksum,) = struct.unpack_from("<I", data, end + 1)
    if crc32c(np.frombuffer(data, np.uint8, length + 1, offset)) != unmask(checksum):
        raise ValueError("the checksum of a block differs")
    if data[end] > 1:
        raise ValueError(f"it has a compression that TensorFlow does not use ({data[end]})")
    block = _unsnappy(data[offset:end]) if data[end] else data[offset:end]

    # Entries, then the offsets of those with a whole key, then the number of offsets.
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4) if len(block) >= 4 else (0,)
    end = len(block) - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        size, at = _varint(block, at)
        if shared > len(key) or shared + own > MAX_NAME or at + own + size > end:
            raise ValueError("an entry goes beyond its block, or its name is too long")
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + size]
        at += own + size


def _unsnappy(data: bytes) -> bytes:
    """Decompress a Snappy block: literals, and copies of earlier output."""
    length, at = _varint(data, 0)
    if length > MAX_BYTES:
        raise ValueError(f"a compressed block claims to have {length} bytes")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            count = tag >> 2
            if count >= 60:  # so many bytes more give the length
                extra = count - 59
                count = int.from_bytes(data[at : at + extra], "little")
                at += extra
            out += data[at : at + count + 1]
            at += count + 1
        else:
            extra = (0, 1, 2, 4)[tag & 3]
            count = 4 + (tag >> 2 & 7) if extra == 1 else 1 + (tag >> 2)
            back = int.from_bytes(data[at : at + extra], "little") | (tag >> 5 << 8 if extra == 1 else 0)
            at += extra
            if not 0 < back <= len(out):
                raise ValueError("a compressed block copies from before its beginning")
            start = len(out) - back
            source = out[start : start + count]
            out += (source * (count // back + 1))[:count]  # a copy may overlap itself: then it repeats
        if len(out) > length or at > len(data):
            break
    if len(out) != length or at != len(data):
        raise ValueError("a compressed block is damaged")
    return bytes(out)


# ── protocol buffers ──


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number has no end")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value = message[at : at + size]
            at += size
            if at > len(message):
                raise ValueError("a message is cut off")
        else:
            raise ValueError(f"a message has a field of kind {kind}")
        yield tag >> 3, value


def _name(key: bytes) -> str:
    name = key.decode()
    if not name.isprintable():
        raise ValueError(f"it has a tensor with the name {name!r}, which no model has")
    return name


def _entry(message: bytes) -> Entry:
    """A `BundleEntryProto`."""
    numbers: dict[int, Any] = {1: 0, 2: b"", 3: 0, 4: 0, 5: 0, 6: b"\0\0\0\0"}
    for field, value in _fields(message):
        if field == 7:
            raise ValueError("it has a partitioned tensor, which is not supported")
        numbers[field] = value
    if not isinstance(numbers[2], bytes) or not isinstance(numbers[6], bytes) or len(numbers[6]) != 4:
        raise ValueError("an entry is damaged")
    shape = tuple(_dimensions(numbers[2]))
    if len(shape) > MAX_DIMS:
        raise ValueError(f"it has a tensor of {len(shape)} dimensions")
    _number(math.prod(n or 1 for n in shape))  # NumPy minds even where one of them is 0
    return Entry(
        dtype=_number(numbers[1]),
        shape=shape,
        shard=_number(numbers[3]),
        offset=_number(numbers[4]),
        size=_number(numbers[5]),
        checksum=unmask(int.from_bytes(numbers[6], "little")),
    )


def _dimensions(message: bytes) -> Iterator[int]:
    """The sizes in a `TensorShapeProto`."""
    for field, dimension in _fields(message):
        if field == 3:
            raise ValueError("it has a tensor of unknown shape")
        if field == 2:
            if not isinstance(dimension, bytes):
                raise ValueError("a shape is damaged")
            yield _number(dict(_fields(dimension)).get(1, 0))


def _number(value: int | bytes) -> int:
    if not isinstance(value, int) or value >= 2**48:
        raise ValueError("a number is out of range")
    return value
