"""Make the features of a plan more alike before int8 rounds them.

A token is rounded by its largest value, and trained models have a few features that are many times as large as the
others, always the same ones. Each feature of a norm is divided by a factor; the matrices that read it, and the residual
connection past them, multiply by it: the plan computes the same. Factors are powers of two, so that not a bit is lost.

Which features are large shows on random tokens as well as on text, so no data is needed (after SmoothQuant, Xiao et al.
2023, who calibrate with text).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pocketbert.errors import CheckpointError
from pocketbert.runtime import reference
from pocketbert.runtime.plan import Attention, LayerNorm, Linear, Lookup, Plan, Rows, Step

SEQUENCES, LENGTH = 8, 32  # of random tokens
SHARE = 0.65  # of the differences goes to the matrices; the rest stays in the features
SPAN = 1e-3  # a feature counts as at least this fraction of the largest
Floats = npt.NDArray[np.float32]


@dataclass
class Span:
    """What happens to normalised features until something else stands in their place.

    Attributes:
        norm: which makes them.
        readers: the matrices that read them.
        join: the step that adds them to its result, which replaces them.
    """

    norm: LayerNorm
    readers: list[Linear] = field(default_factory=list)
    join: Linear | None = None


def spans(plan: Plan) -> list[Span]:
    """The norms whose features only linear steps read, and that end in a residual connection."""
    found: list[Span] = []
    alive: dict[str, Span] = {}
    for stage in plan.stages:
        if not isinstance(stage, Rows):
            read = (stage.query, stage.key, stage.value) if isinstance(stage, Attention) else (stage.source,)
            for columns in (*read, stage.target):
                alive.pop(columns.buffer, None)
            continue
        for step in stage.steps:
            if isinstance(step, Linear):
                _read(step, alive, found)
            elif isinstance(step, LayerNorm):
                alive.pop(step.source.buffer, None)
            alive.pop(step.target.buffer, None)
            if isinstance(step, LayerNorm):
                alive[step.target.buffer] = Span(step)
    return found


def _read(step: Linear, alive: dict[str, Span], found: list[Span]) -> None:
    span = alive.get(step.source.buffer)
    if span is not None and step.source == span.norm.target:
        span.readers.append(step)
    elif span is not None:
        del alive[step.source.buffer]
    ends = None if step.residual is None else alive.pop(step.residual.buffer, None)
    if ends is not None and ends.readers and step.target == step.residual == ends.norm.target:
        ends.join = step
        found.append(ends)


def balance(plan: Plan) -> Plan:
    """The same function, with features that lose less in int8."""
    return apply_factors(plan, find_factors(plan))


def find_factors(plan: Plan) -> dict[str, Floats]:
    """Factors [C] of the features of each norm that can have them, by the name of the norm's weight."""
    largest = _largest(plan)
    factors = {}
    for span in spans(plan):
        features = largest[span.readers[0].weight]
        columns = np.max([_columns(plan.tensors[step.weight], step.groups) for step in span.readers], axis=0)
        if features.max() > 0 and columns.max() > 0:
            features = np.maximum(features / features.max(), SPAN)
            columns = np.maximum(columns / columns.max(), SPAN)
            exponents = SHARE * np.log2(features) - (1 - SHARE) * np.log2(columns)
            factors[span.norm.weight] = np.exp2(np.rint(exponents - exponents.mean())).astype(np.float32)
    return factors


def apply_factors(plan: Plan, factors: Mapping[str, Floats]) -> Plan:
    """The plan with these factors; matrices in int8 have theirs already.

    Raises:
        CheckpointError: `factors` are not of this plan. The message goes on after the name of the file.
    """
    tensors, joins = dict(plan.tensors), {}
    there = {span.norm.weight: span for span in spans(plan)}
    for name, by in factors.items():
        if name not in there or by.shape != tensors[name].shape or not (np.isfinite(by).all() and by.min() > 0):
            raise CheckpointError(f"is damaged: its factors for {name} do not fit")
        span = there[name]
        for weight in (span.norm.weight, span.norm.bias):
            tensors[weight] = tensors[weight] / by
        for step in span.readers:
            if step.scales is None:
                tensors[step.weight] = widened(tensors[step.weight], by, step.groups)
        assert span.join is not None
        scale = f"{span.join.weight.removesuffix('.weight')}.residual_scale"
        tensors[scale] = by if span.join.residual_scale is None else tensors[span.join.residual_scale] * by
        joins[span.join.weight] = scale

    def joined(step: Step) -> Step:
        if isinstance(step, Linear) and step.weight in joins:
            return replace(step, residual_scale=joins[step.weight])
        return step

    stages = (
        Rows(tuple(joined(step) for step in stage.steps)) if isinstance(stage, Rows) else stage for stage in plan.stages
    )
    return replace(plan, stages=tuple(stages), tensors=tensors)


def widened(weight: Floats, by: Floats, groups: int) -> Floats:
    """[C', C/groups] with the columns of every block multiplied by their features' part of `by` [C]."""
    blocks = weight.reshape(groups, -1, weight.shape[1]) * by.reshape(groups, 1, -1)
    return blocks.reshape(weight.shape)


def _columns(weight: Floats, groups: int) -> Floats:
    """The largest weight that each feature [C] meets."""
    largest: Floats = np.abs(weight.reshape(groups, -1, weight.shape[1])).max(axis=1)
    return largest.reshape(-1)


def _largest(plan: Plan) -> dict[str, Floats]:
    """The largest magnitude of every feature of what each linear step reads, on random tokens."""
    found: dict[str, Floats] = {}

    class Watched(reference._Run):
        def linear(self, step: Linear) -> None:
            found[step.weight] = np.abs(self.read(step.source)).max(axis=0)
            super().linear(step)

    length = min(LENGTH, plan.max_tokens)
    starts = np.arange(SEQUENCES + 1) * length
    ids = np.random.default_rng(0).integers(0, _vocabulary(plan), SEQUENCES * length)
    Watched(plan, ids, np.zeros_like(ids), starts).outputs()
    return found


def _vocabulary(plan: Plan) -> int:
    steps = (step for stage in plan.stages if isinstance(stage, Rows) for step in stage.steps)
    return min(len(plan.tensors[s.table]) for s in steps if isinstance(s, Lookup) and s.index.endswith("word"))
