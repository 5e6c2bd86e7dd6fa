"""Weights in int8, as `pocketbert quantize` writes them, back in fp32 for training.

In the file, a matrix in int8 has its official name and shape, and its scales [C'] the same name with `SCALE` behind:
one per row, or per column of a matrix that is stored transposed. `SMOOTHED` in the `quantization_config` of the file
lists, by norm, the matrices whose columns were multiplied by the norm's factors; these are the norm's name with
`SMOOTHING` behind.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pocketbert.checkpoints.safetensors_files import Tensors
from pocketbert.errors import CheckpointError
from pocketbert.families import family_of
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Family

SCALE = "_scale"
SMOOTHING = ".balance"  # behind the name of a norm: the factors that its features were divided by
SMOOTHED = "smoothed"


def dequantized(config: PreTrainedConfig, tensors: Mapping[str, np.ndarray], source: object) -> Tensors:
    """Return the tensors of a quantised model in fp32, each number off by half a step of its row at most.

    Args:
        config: of the file.
        tensors: of the file.
        source: name of the file, for messages.

    Raises:
        CheckpointError: scales or factors are missing, or do not fit.
    """
    how, family = config.extra["quantization_config"], family_of(config)
    transposed = stored_transposed(family)
    divisors: Tensors = {}
    for norm, matrices in how.get(SMOOTHED, {}).items():
        divisors |= dict.fromkeys(matrices, _positive(tensors, f"{norm}{SMOOTHING}", source))
    if unlisted := [name for name in tensors if name.endswith(SMOOTHING) and SMOOTHED not in how]:
        raise CheckpointError(
            f"{source} was quantised by an earlier version, without the matrices that {unlisted[0]} belongs to: "
            "quantise the original again"
        )
    result: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith(SMOOTHING) or (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors):
            continue
        result[name] = tensor
        if tensor.dtype == np.int8:
            scale, rows = _positive(tensors, f"{name}{SCALE}", source), tensor.reshape(len(tensor), -1)
            by_column = family.short(name) in transposed
            if scale.shape != (rows.shape[1] if by_column else len(rows),):
                raise CheckpointError(f"{source}: {name}{SCALE} of shape {list(scale.shape)} does not fit {name}")
            weights = rows * (scale if by_column else scale[:, None])
            if name in divisors:
                weights = _divided(weights, divisors[name], name, source)
            result[name] = weights.reshape(tensor.shape)
    return result


def stored_transposed(family: Family) -> tuple[str, ...]:
    """Return the matrices of a family whose columns in the file are what a product computes, with their own scales."""
    return () if family.words is None or family.words.rest is None else (f"{family.words.rest}.weight",)


def _positive(tensors: Mapping[str, np.ndarray], name: str, source: object) -> np.ndarray:
    if name not in tensors:
        raise CheckpointError(f"{source} lacks {name}")
    values = np.asarray(tensors[name], np.float32)
    if values.ndim != 1 or not (np.isfinite(values).all() and (values > 0).all()):
        raise CheckpointError(f"{source}: {name} contains values that are not positive numbers")
    return values


def _divided(weights: np.ndarray, by: np.ndarray, name: str, source: object) -> np.ndarray:
    """[C', C/groups] with the columns of every block divided by their features' part of `by` [C]."""
    groups, rest = divmod(len(by), weights.shape[1])
    if rest or not groups or len(weights) % groups:
        raise CheckpointError(f"{source}: {len(by)} smoothing factors do not fit {name} {list(weights.shape)}")
    blocks = weights.reshape(groups, -1, weights.shape[1]) / by.reshape(groups, 1, -1)
    return np.asarray(blocks.reshape(weights.shape), np.float32)
