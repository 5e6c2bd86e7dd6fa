"""Smoothing: scale features and weights so that int8 rounds both with less error (after SmoothQuant, Xiao et al. 2023).

A token is rounded by its largest value, and trained models have a few features that are many times as large as the
others, always the same ones. Each feature of a norm is divided by a factor; the matrices that read it, and the residual
connection past them, multiply by it: the plan computes the same. Factors are powers of two, so that not a bit is lost.

Random tokens show which features are large as well as text does, so calibration needs no data (SmoothQuant uses text).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pocketbert.errors import CheckpointError
from pocketbert.runtime import reference
from pocketbert.runtime.plan import LayerNorm, Linear, Lookup, Plan, Rows, Step

SEQUENCES, LENGTH = 8, 32  # of random tokens
STRENGTH = 0.65  # of the differences moves to the matrices; the rest stays in the features
FLOOR = 1e-3  # a feature counts as at least this fraction of the largest
Floats = npt.NDArray[np.float32]


@dataclass
class NormScope:
    """The steps that read a norm's features, until others replace them.

    Attributes:
        norm: the step that computes the features.
        readers: the linear steps that read them.
        join: the step that adds them to its result, which replaces them.
    """

    norm: LayerNorm
    readers: list[Linear] = field(default_factory=list)
    join: Linear | None = None


def norm_scopes(plan: Plan) -> list[NormScope]:
    """The norms whose features only linear steps read, and that end in a residual connection."""
    scopes: list[NormScope] = []
    open_scopes: dict[str, NormScope] = {}  # by buffer
    for stage in plan.stages:
        if not isinstance(stage, Rows):
            columns = [getattr(stage, name, None) for name in ("query", "key", "value", "source", "target")]
            for buffer in (c.buffer for c in columns if c is not None):
                open_scopes.pop(buffer, None)
            continue
        for step in stage.steps:
            if isinstance(step, Linear):
                _read(step, open_scopes, scopes)
            elif isinstance(step, LayerNorm):
                open_scopes.pop(step.source.buffer, None)
            open_scopes.pop(step.target.buffer, None)
            if isinstance(step, LayerNorm):
                open_scopes[step.target.buffer] = NormScope(step)
    return scopes


def _read(step: Linear, open_scopes: dict[str, NormScope], scopes: list[NormScope]) -> None:
    scope = open_scopes.get(step.source.buffer)
    if scope is not None and step.source == scope.norm.target:
        scope.readers.append(step)
    elif scope is not None:
        del open_scopes[step.source.buffer]
    ending = None if step.residual is None else open_scopes.pop(step.residual.buffer, None)
    if ending is not None and ending.readers and step.target == step.residual == ending.norm.target:
        ending.join = step
        scopes.append(ending)


def smooth(plan: Plan) -> Plan:
    """The same function, with features that lose less in int8."""
    return apply_factors(plan, find_factors(plan))


def find_factors(plan: Plan) -> dict[str, Floats]:
    """Factors [C] of the features of each norm that can have them, by the name of the norm's weight."""
    largest = _largest(plan)
    factors = {}
    for scope in norm_scopes(plan):
        features = largest[scope.readers[0].weight]
        columns = np.max([_columns(plan.tensors[step.weight], step.groups) for step in scope.readers], axis=0)
        if features.max() > 0 and columns.max() > 0:
            features = np.maximum(features / features.max(), FLOOR)
            columns = np.maximum(columns / columns.max(), FLOOR)
            exponents = STRENGTH * np.log2(features) - (1 - STRENGTH) * np.log2(columns)
            factors[scope.norm.weight] = np.exp2(np.rint(exponents - exponents.mean())).astype(np.float32)
    return factors


def apply_factors(plan: Plan, factors: Mapping[str, Floats]) -> Plan:
    """The plan with these factors; matrices in int8 contain theirs already.

    Raises:
        CheckpointError: `factors` are not of this plan. The message continues the name of the file.
    """
    tensors, residual_scales = dict(plan.tensors), {}
    scopes = {scope.norm.weight: scope for scope in norm_scopes(plan)}
    for name, by in factors.items():
        if name not in scopes or by.shape != tensors[name].shape or not (np.isfinite(by).all() and by.min() > 0):
            raise CheckpointError(f"is damaged: its smoothing factors for {name} do not fit this model")
        scope = scopes[name]
        for weight in (scope.norm.weight, scope.norm.bias):
            tensors[weight] = tensors[weight] / by
        for step in scope.readers:
            if step.scales is None:
                tensors[step.weight] = scale_columns(tensors[step.weight], by, step.groups)
        assert scope.join is not None
        scale = f"{scope.join.weight.removesuffix('.weight')}.residual_scale"
        tensors[scale] = by if scope.join.residual_scale is None else tensors[scope.join.residual_scale] * by
        residual_scales[scope.join.weight] = scale

    def joined(step: Step) -> Step:
        if isinstance(step, Linear) and step.weight in residual_scales:
            return replace(step, residual_scale=residual_scales[step.weight])
        return step

    return replace(plan.map_steps(joined), tensors=tensors)


def scale_columns(weight: Floats, by: Floats, groups: int) -> Floats:
    """[C', C/groups] with the columns of every block multiplied by their features' part of `by` [C]."""
    blocks = weight.reshape(groups, -1, weight.shape[1]) * by.reshape(groups, 1, -1)
    return blocks.reshape(weight.shape)


def _columns(weight: Floats, groups: int) -> Floats:
    """The largest weight that each feature [C] meets."""
    largest: Floats = np.abs(weight.reshape(groups, -1, weight.shape[1])).max(axis=1)
    return largest.reshape(-1)


def _largest(plan: Plan) -> dict[str, Floats]:
    """For each linear step the largest magnitude of every feature of its source, on random tokens."""
    largest: dict[str, Floats] = {}

    def observe(step: Linear, source: Floats) -> None:
        largest[step.weight] = np.abs(source).max(axis=0)

    length = min(LENGTH, plan.max_tokens)
    starts = np.arange(SEQUENCES + 1) * length
    ids = np.random.default_rng(0).integers(0, _vocabulary_size(plan), SEQUENCES * length)
    reference.run(plan, ids, np.zeros_like(ids), starts, observe=observe)
    return largest


def _vocabulary_size(plan: Plan) -> int:
    tables = (step.table for step in plan.steps() if isinstance(step, Lookup) and step.index.endswith("word"))
    return min(len(plan.tensors[table]) for table in tables)
