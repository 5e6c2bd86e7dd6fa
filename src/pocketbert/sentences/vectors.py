"""Vectors compared with each other, and in fewer bits. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.checkpoints import atomic_write
from pocketbert.errors import InputError

Floats = NDArray[np.floating[Any]]
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def _rows(vectors: Any) -> Floats:
    """[vectors, width] from that, from one vector, or from a list of vectors."""
    array = np.asarray(vectors)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        raise InputError(f"vectors must be numbers in one or two dimensions, not {array.dtype} {list(array.shape)}")
    array = np.atleast_2d(array)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _units(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _euclidean(a: Floats, b: Floats) -> Floats:
    a, b = a.astype(np.float64), b.astype(np.float64)
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(-np.sqrt(np.maximum(squares, 0)))


#: Name → similarity of all pairs, [m, n] from [m, width] and [n, width]; a distance counts negative.
ALL_PAIRS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "cosine": lambda a, b: _units(a) @ _units(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": _euclidean,
    "manhattan": lambda a, b: -np.stack([np.abs(row - b).sum(axis=1) for row in a]),
}
#: Name → similarity of the rows at the same place, [n] from [n, width] twice.
PAIRWISE: dict[str, Callable[[Floats, Floats], Floats]] = {
    "cosine": lambda a, b: (_units(a) * _units(b)).sum(axis=1),
    "dot": lambda a, b: (a * b).sum(axis=1),
    "euclidean": lambda a, b: -np.linalg.norm(a - b, axis=1),
    "manhattan": lambda a, b: -np.abs(a - b).sum(axis=1),
}


def similarity(a: Any, b: Any, how: str) -> NDArray[np.float32]:
    """[m, n] similarities of all vectors of `a` with all of `b`; one vector counts as a row of one."""
    return ALL_PAIRS[how](*_alike(a, b)).astype(np.float32)


def similarity_pairwise(a: Any, b: Any, how: str) -> NDArray[np.float32]:
    """[n] similarities of the vectors of `a` with those of `b` at the same place."""
    first, second = _alike(a, b)
    if len(first) != len(second):
        raise InputError(f"{len(first)} vectors and {len(second)} do not make pairs")
    return PAIRWISE[how](first, second).astype(np.float32)


def _alike(a: Any, b: Any) -> tuple[Floats, Floats]:
    first, second = _rows(a), _rows(b)
    if first.shape[1] != second.shape[1]:
        raise InputError(f"vectors of {first.shape[1]} numbers cannot be compared with vectors of {second.shape[1]}")
    return first, second


def quantize_vectors(vectors: Floats, precision: str) -> np.ndarray:
    """Vectors [n, width] in another precision, as sentence-transformers' indexes hold them.

    "int8" and "uint8" cut the range that each number takes in these vectors into 256 steps; "binary" and "ubinary" keep
    the signs, 8 to a byte, as int8 and uint8.

    Raises:
        InputError: an unknown precision, or a single vector, which has no range.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} must be one of {', '.join(map(repr, PRECISIONS))}")
    if precision == "float32":
        return vectors.astype(np.float32, copy=False)
    if precision in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if len(vectors) < 2:
        raise InputError(f"precision={precision!r} needs several vectors: its scale is computed from their range")
    low = vectors.min(axis=0)
    steps = (vectors.max(axis=0) - low) / 255
    steps = np.where(steps == 0, 1, steps)
    whole = np.clip(np.floor((vectors - low) / steps), 0, 255)
    return whole.astype(np.uint8) if precision == "uint8" else (whole - 128).astype(np.int8)


def write_vectors(path: str | Path, vectors: Iterable[Any]) -> tuple[int, int]:
    """Write vectors as they come to a file that `numpy.load` reads as a float32 array; returns its shape.

    The file appears when all is written; nothing is kept in memory.

    Raises:
        CheckpointError: the file cannot be written.
    """
    count = width = 0
    with atomic_write(path) as file:
        file.write(_header(0, 0))
        for vector in vectors:
            row = np.asarray(vector, dtype="<f4")
            file.write(row.tobytes())
            count, width = count + 1, len(row)
        file.seek(0)
        file.write(_header(count, width))
    return count, width


def _header(count: int, width: int) -> bytes:
    """The beginning of an npy file, always 128 bytes long."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {width}), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + f"{text:<117}\n".encode()
