"""Weights in safetensors files, whole or in shards, to and from NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pocketbert.checkpoints.files import atomic_write, look_at, plain, read_json
from pocketbert.errors import CheckpointError

Tensors = dict[str, np.ndarray]

NUMPY_TYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def read_safetensors(path: Path) -> Tensors:
    """All tensors of one file, in memory of their own; bf16, which NumPy lacks, comes as float32.

    Raises:
        CheckpointError: the file is missing, empty, truncated or no safetensors file, or holds a dtype NumPy lacks.
    """
    start = look_at(path)
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x89HDF")):
        kind = "a Keras file" if start.startswith(b"\x89HDF") else "a PyTorch file; name it pytorch_model.bin"
        raise CheckpointError(f"{path} is not a safetensors file but {kind}")
    tensors: Tensors = {}
    try:
        with safe_open(path, framework="numpy") as file:  # maps the file, and checks every offset in it
            for name in file.keys():  # noqa: SIM118 - the handle is no dict
                dtype = file.get_slice(name).get_dtype()
                if dtype not in NUMPY_TYPES and dtype != "BF16":
                    raise CheckpointError(f"{path}: {name!r} is of type {dtype}, which NumPy does not have")
                tensors[name] = _read_bf16(path, name) if dtype == "BF16" else file.get_tensor(name)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({plain(error)}): download or save it again"
        ) from None
    return tensors


def write_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` as one safetensors file, in one step; `metadata` says `{"format": "pt"}` by default.

    transformers loads nothing without that word.

    Raises:
        CheckpointError: the file cannot be written, or an array is of a type that the format lacks.
    """
    rows = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    try:
        data = save(rows, dict(metadata or {"format": "pt"}))
    except SafetensorError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from None
    with atomic_write(path) as file:
        file.write(data)


def read_shards(index: Path, read: Callable[[Path], Tensors]) -> Tensors:
    """All tensors that `index` (`*.index.json`: tensor → file in the same folder) lists, each file read by `read`.

    The index is the list: what a shard holds beyond it is left out.

    Raises:
        CheckpointError: the index is damaged or leads out of its folder, or a shard or a tensor is missing.
    """
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f'{index}: "weight_map" must say which file holds which tensor')
    tensors: Tensors = {}
    for shard in sorted({_shard_name(index, name, shard) for name, shard in table.items()}):
        found = read(index.parent / shard)
        listed = [name for name, home in table.items() if home == shard]
        lost = [name for name in listed if name not in found]
        if lost:
            raise CheckpointError(f"{index.parent / shard} lacks {', '.join(lost)}, which {index.name} says it holds")
        tensors.update((name, found[name]) for name in listed)
    return tensors


def widen_bf16(words: np.ndarray) -> np.ndarray:
    """uint16 → float32: a bf16 number is the upper half of the float32 of the same value."""
    wide = words.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _read_bf16(path: Path, name: str) -> np.ndarray:
    """One bf16 tensor of a file whose header `safe_open` has checked: 8 bytes of length, JSON, then the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        words = np.frombuffer(file.read(end - begin), "<u2")
    return widen_bf16(words).reshape(entry["shape"])


def _shard_name(index: Path, name: str, shard: object) -> str:
    if not name.isprintable():
        raise CheckpointError(f"{index} lists a tensor with the name {name!r}, which no model has")
    if not isinstance(shard, str) or not shard or shard in (".", "..") or any(c in shard for c in "/\\:\0"):
        raise CheckpointError(f"{index}: {name} is said to be in {shard!r}, which is no file name in that folder")
    return shard
