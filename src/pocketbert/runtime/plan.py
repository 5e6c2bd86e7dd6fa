"""What a model computes, as plain data.

Everything in an encoder but attention treats every token alone. So a plan is a list of stages in which row programs,
short lists of steps that each row goes through by itself, alternate with attention:

    rows → attention → rows → attention → … → rows

The rows are the tokens of all sequences of a batch, laid end to end; nothing is padded. A step reads and writes
columns of named buffers, which have a row a token (after `Pick`: a row a picked one). `lower` makes plans, `reference`
runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

Index = Literal["word", "next word", "previous word", "position", "segment"]


@dataclass(frozen=True)
class Columns:
    """Columns `start` to `start + width` of a buffer."""

    buffer: str
    width: int
    start: int = 0

    def __str__(self) -> str:
        return f"{self.buffer}[{self.start}:{self.start + self.width}]"


@dataclass(frozen=True)
class Lookup:
    """target = row of `table` for each token's `index`, or added to it; beyond a sequence's ends lie zeros.

    With `scales` ([rows]) the table is int8, its row r standing for table[r] · scales[r].
    """

    target: Columns
    table: str
    index: Index
    add: bool = False
    scales: str | None = None


@dataclass(frozen=True)
class Linear:
    """target = activation(source · weightᵀ + bias) + residual ⊙ residual_scale.

    With `groups` the matrix is block-diagonal: `weight` is [C', C/groups], and block g of the output sees block g of
    the input alone. With `scales` ([C']) the weight is int8, its row c standing for weight[c] · scales[c]; every group
    of every row of the source is then rounded to int8 as well, by its own largest value, and sums are whole numbers.

    `exact` names the same weight in fp32, for a source whose features differ by orders of magnitude. In every row the
    features above max |x| / 2^j, for the largest j ≤ 40 that leaves at most one in 32 of them, are multiplied by it,
    and the others alone are rounded (after Dettmers et al. 2022, LLM.int8(), where outliers are features of all rows).
    """

    source: Columns
    target: Columns
    weight: str
    bias: str
    scales: str | None = None
    exact: str | None = None
    groups: int = 1
    activation: str | None = None
    residual: Columns | None = None
    residual_scale: str | None = None


@dataclass(frozen=True)
class LayerNorm:
    """target = (source - mean) / sqrt(variance + eps) ⊙ weight + bias, mean and variance of the row."""

    source: Columns
    target: Columns
    weight: str
    bias: str
    eps: float


Step = Lookup | Linear | LayerNorm


def tensors_of(step: Step) -> list[str]:
    """The names of what a step multiplies or adds, or looks up."""
    kinds = ("table", "scales", "weight", "exact", "bias", "residual_scale")
    return [name for kind in kinds if (name := getattr(step, kind, None)) is not None]


@dataclass(frozen=True)
class Rows:
    """A row program: `steps` in order, for every row alone."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Attention:
    """target = softmax(query · keyᵀ) · value, a head at a time, among the tokens of each sequence.

    The scale of the scores is in the query's weights already. With `bfloat16`, queries, keys, values and exponentials
    are rounded to that before they are multiplied, where the processor has it; sums and the softmax stay in fp32.
    """

    query: Columns
    key: Columns
    value: Columns
    target: Columns
    heads: int
    bfloat16: bool = False


@dataclass(frozen=True)
class Pick:
    """From here on the rows are some tokens, until another picks others: target = their source.

    They are the first of every sequence, or with `asked` those that the caller asks for, by default all of them. The
    source has a row a token.
    """

    source: Columns
    target: Columns
    asked: bool = False


Stage = Rows | Attention | Pick


@dataclass(frozen=True)
class Plan:
    """Stages, the tensors that their steps name, and where the outputs stand afterwards.

    Attributes:
        stages: in order.
        tensors: by the names that the steps use.
        outputs: what a predictor returns, by name; an output of one column a kind has no axis for it.
        max_tokens: the longest sequence.
    """

    stages: tuple[Stage, ...]
    tensors: Mapping[str, np.ndarray]
    outputs: Mapping[str, Columns | tuple[Columns, int]]
    max_tokens: int

    @property
    def asks(self) -> bool:
        """Whether the caller may ask for tokens."""
        return any(isinstance(stage, Pick) and stage.asked for stage in self.stages)

    @property
    def picked_buffers(self) -> dict[str, Pick]:
        """The names of the buffers that have a row a picked token, and what picked them."""
        found: dict[str, Pick] = {}
        pick = None
        for stage in self.stages:
            pick = stage if isinstance(stage, Pick) else pick
            if pick is not None:
                steps: tuple[Step | Attention | Pick, ...] = stage.steps if isinstance(stage, Rows) else (stage,)
                found.update((step.target.buffer, pick) for step in steps)
        return found

    @property
    def picked(self) -> dict[str, Pick]:
        """The names of the outputs that have a row a picked token, and what picked them."""
        buffers = self.picked_buffers
        places = {name: c if isinstance(c, Columns) else c[0] for name, c in self.outputs.items()}
        return {name: buffers[columns.buffer] for name, columns in places.items() if columns.buffer in buffers}

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(plan: Plan) -> list[str]:
    lines = []
    for number, stage in enumerate(plan.stages):
        steps: tuple[Step | Attention | Pick, ...] = stage.steps if isinstance(stage, Rows) else (stage,)
        lines.append(f"{number:3d} {'rows' if isinstance(stage, Rows) else 'all tokens'}")
        for step in steps:
            parts = [f"{f.name}={value}" for f in fields(step) if (value := getattr(step, f.name)) not in (None, False)]
            lines.append(f"      {type(step).__name__:<9} {'  '.join(parts)}")
    for name, place in plan.outputs.items():
        lines.append(f"  → {name} = {place if isinstance(place, Columns) else f'{place[0]}, column {place[1]}'}")
    return lines
