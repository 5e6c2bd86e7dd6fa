"""Writes TensorFlow checkpoints for the tests: the inverse of `pocketbert.checkpoints.tensorflow_files`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from pocketbert.checkpoints.crc32c import crc32c
from pocketbert.checkpoints.tensorflow_files import DTYPES, MAGIC

Rows = list[tuple[bytes, bytes]]


def write_bundle(
    prefix: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    shards: int = 1,
    order: Literal["<", ">"] = "<",
    snappy: bool = False,
    rows_a_block: int = 50,
) -> None:
    """Write `tensors` as the checkpoint `prefix`, dealt out to the shards in turn."""
    data = [bytearray() for _ in range(shards)]
    rows: Rows = [(b"", number(1, shards) + (number(2, 1) if order == ">" else b"") + message(3, number(1, 1)))]
    for at, name in enumerate(sorted(tensors)):
        array = np.asarray(tensors[name], order="C")
        raw = array.astype(array.dtype.newbyteorder(order)).tobytes()
        shard = at % shards
        rows.append((name.encode(), entry(array.dtype, array.shape, shard, len(data[shard]), raw)))
        data[shard] += raw
    write_index(prefix, rows, snappy=snappy, rows_a_block=rows_a_block)
    for shard in range(shards):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(data[shard])


def write_index(prefix: Path, rows: Rows, *, snappy: bool = False, rows_a_block: int = 50) -> None:
    """Write a table of `rows` as the index of `prefix`."""
    Path(f"{prefix}.index").write_bytes(table(rows, snappy=snappy, rows_a_block=rows_a_block))


def table(rows: Rows, *, snappy: bool = False, rows_a_block: int = 50) -> bytes:
    """A LevelDB table."""
    out = bytearray()
    places: Rows = []
    for _, group in groupby(enumerate(rows), key=lambda item: item[0] // rows_a_block):
        part = [row for _, row in group]
        places.append((part[-1][0], append_block(out, block(part), snappy)))
    nothing = append_block(out, block([]), False)
    index = append_block(out, block(places), snappy)
    return bytes(out) + footer(nothing, index)


def footer(nothing: bytes, index: bytes) -> bytes:
    """The end of a table: the places of two blocks."""
    return (nothing + index).ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def append_block(out: bytearray, content: bytes, snappy: bool) -> bytes:
    """Append a block with its checksum; where it is."""
    return append_raw(out, compress(content) if snappy else content, snappy)


def append_raw(out: bytearray, stored: bytes, snappy: bool) -> bytes:
    """Append the stored form of a block, with its checksum; where it is."""
    stored += bytes([snappy])
    place = varint(len(out)) + varint(len(stored) - 1)
    out += stored + struct.pack("<I", mask(crc32c(np.frombuffer(stored, np.uint8))))
    return place


def block(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Entries that share the beginnings of their keys, whole every 16th time."""
    out, restarts, last = bytearray(), [0], b""
    for at, (key, value) in enumerate(rows):
        shared = 0
        if at % 16:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif at:
            restarts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + b"".join(struct.pack("<I", at) for at in (*restarts, len(restarts)))


def entry(dtype: np.dtype, shape: tuple[int, ...], shard: int, offset: int, raw: bytes) -> bytes:
    """A `BundleEntryProto`; zeros are left out, as protocol buffers do."""
    (kind,) = {number for number, name in DTYPES.items() if np.dtype(name) == dtype and number != 14}
    dimensions = b"".join(message(2, number(1, n)) for n in shape)
    checksum = struct.pack("<BI", 6 << 3 | 5, mask(crc32c(np.frombuffer(raw, np.uint8))))
    return (
        number(1, kind) + message(2, dimensions) + number(3, shard) + number(4, offset) + number(5, len(raw)) + checksum
    )


def mask(crc: int) -> int:
    """As TensorFlow and LevelDB do."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def number(field: int, value: int) -> bytes:
    """A field of a protocol buffer."""
    return varint(field << 3) + varint(value) if value else b""


def message(field: int, content: bytes) -> bytes:
    """A field that holds a message or text."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Seven bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def compress(data: bytes) -> bytes:
    """Snappy: a greedy search for what was there before, with every kind of element."""
    out, seen, at, start = bytearray(varint(len(data))), dict[bytes, int](), 0, 0
    while at < len(data):
        four = data[at : at + 4]
        before = seen.get(four) if len(four) == 4 else None
        seen[four] = at
        if before is None:
            at += 1
            continue
        length = 4
        while length < 64 and at + length < len(data) and data[before + length] == data[at + length]:
            length += 1
        out += literal(data[start:at]) + copy(at - before, length)
        at += length
        start = at
    return bytes(out + literal(data[start:]))


def literal(data: bytes) -> bytes:
    """An element that is the bytes themselves."""
    if not data:
        return b""
    size = len(data) - 1
    if size < 60:
        return bytes([size << 2]) + data
    extra = (size.bit_length() + 7) // 8
    return bytes([59 + extra << 2]) + size.to_bytes(extra, "little") + data


def copy(back: int, length: int) -> bytes:
    """An element that repeats `length` bytes from `back` bytes before."""
    if length < 12 and back < 2048:
        return bytes([1 | length - 4 << 2 | back >> 8 << 5, back & 255])
    if back < 2**16:
        return bytes([2 | length - 1 << 2]) + back.to_bytes(2, "little")
    return bytes([3 | length - 1 << 2]) + back.to_bytes(4, "little")
