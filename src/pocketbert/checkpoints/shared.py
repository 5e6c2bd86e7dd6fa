"""Tensors that a file leaves to a bundled model: task models of one encoder need its table of words only once.

A safetensors file whose metadata has `KEY`, {"model": name, "tensors": {name: checksum}} as JSON, lacks these tensors;
they are read from the bundled model of this name, which must have them with the same checksums. A newer version of
PocketBERT whose encoder has changed therefore refuses the file, and never computes with other numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from pocketbert.bundles import BUNDLED, bundled_models
from pocketbert.checkpoints.checksums import checksum, read_checksums
from pocketbert.checkpoints.safetensors_files import LazyTensors, Tensors, open_safetensors
from pocketbert.errors import CheckpointError

KEY = "shared"
_LEAST = 4096  # bytes of a tensor that is worth leaving out
_SAME = 1e-6  # relative difference of scales that were computed again from the same numbers


def leave_out(tensors: Mapping[str, np.ndarray], scale: str) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors that no bundled model has, and the metadata of their file.

    Args:
        tensors: of the new file; `NAME + scale` are the scales of an int8 matrix NAME.
        scale: suffix of the names of scales.

    Raises:
        CheckpointError: no bundled model has any of the large tensors.
    """
    best: dict[str, np.ndarray] = {}
    model = ""
    for name in bundled_models():
        bundled = open_safetensors(BUNDLED / name / "model.safetensors")
        equal = {
            key: bundled[key]
            for key in bundled
            if key in tensors and (tensors[key].nbytes >= _LEAST or key.endswith(scale))
            if _equal(bundled[key], tensors[key], key.endswith(scale))
        }
        for key in [*equal]:  # a matrix goes with its scales
            whole = key.removesuffix(scale)
            is_pair = f"{whole}{scale}" in tensors
            if is_pair and not {whole, f"{whole}{scale}"} <= equal.keys():
                del equal[key]
        if sum(one.nbytes for one in equal.values()) > sum(one.nbytes for one in best.values()):
            best, model = equal, name
    if not best:
        names = ", ".join(bundled_models())
        raise CheckpointError(
            f"no bundled model ({names}) has tensors of this one: fine-tune one of them with --freeze embeddings"
        )
    sums = {key: checksum(np.ascontiguousarray(one).reshape(-1).view(np.uint8)) for key, one in sorted(best.items())}
    described = json.dumps({"model": model, "tensors": sums})
    return {key: one for key, one in tensors.items() if key not in best}, {"format": "pt", KEY: described}


def with_shared(tensors: LazyTensors, source: object) -> LazyTensors:
    """Return the tensors of a file with those that it leaves to a bundled model.

    Raises:
        CheckpointError: the description is damaged, or the bundled model is missing or has other tensors.
    """
    if KEY not in tensors.metadata:
        return tensors
    try:
        described = json.loads(tensors.metadata[KEY])
        model, sums = str(described["model"]), dict(described["tensors"])
    except (ValueError, TypeError, KeyError):
        raise CheckpointError(f"{source} is damaged: the description of its shared tensors cannot be read") from None
    if model not in bundled_models():
        raise CheckpointError(
            f"{source} needs tensors of the bundled model {model}, which this version lacks: quantise the original "
            "again"
        )
    bundled = open_safetensors(BUNDLED / model / "model.safetensors")
    stored = read_checksums(bundled.metadata)
    for name, sum_ in sums.items():
        if name in tensors or stored.get(name) != sum_:
            raise CheckpointError(
                f"{source} needs {name} of another version of the bundled model {model}: quantise the original again"
            )
    return LazyTensors({**tensors.readers, **{name: bundled.readers[name] for name in sums}})


def _equal(one: np.ndarray, other: np.ndarray, is_scale: bool) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(np.allclose(one, other, rtol=_SAME, atol=0) if is_scale else np.array_equal(one, other))
