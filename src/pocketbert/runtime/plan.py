"""The computation of a model, as plain data.

Everything in an encoder but attention treats every token independently. So a plan is a list of stages in which row
programs, short lists of steps that each row goes through by itself, alternate with attention:

    rows → attention → rows → attention → … → rows

The rows are the tokens of all sequences of a batch, laid end to end; nothing is padded. A step reads and writes
columns of named buffers, which have one row per token (after `Gather`: one per gathered row). `lowering` makes plans,
`reference` interprets them, `engine` runs them on the native core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np

Index = Literal["word", "next word", "previous word", "position", "segment"]


@dataclass(frozen=True)
class Columns:
    """Columns `start` to `start + width` of a buffer."""

    buffer: str
    width: int
    start: int = 0

    def overlaps(self, other: Columns) -> bool:
        """Whether both have a column in common."""
        ends = self.start + self.width, other.start + other.width
        return self.buffer == other.buffer and self.start < ends[1] and other.start < ends[0]

    def __str__(self) -> str:
        return f"{self.buffer}[{self.start}:{self.start + self.width}]"


@dataclass(frozen=True)
class Lookup:
    """target = row of `table` for each token's `index`, or added to it; zeros beyond the ends of a sequence.

    With `scales` ([rows]) the table is int8, its row r standing for table[r] · scales[r]. With `uncounted`, the id of
    a word, positions count the other words from 1 on, and this word itself has position 0; only one such id can be in
    a plan.
    """

    target: Columns
    table: str
    index: Index
    add: bool = False
    scales: str | None = None
    uncounted: int | None = None


@dataclass(frozen=True)
class Linear:
    """target = activation(source · weightᵀ + bias) + residual ⊙ residual_scale.

    With `groups` the matrix is block-diagonal: `weight` is [C', C/groups], and block g of the output reads block g of
    the input only. With `scales` ([C']) the weight is int8, its row c standing for weight[c] · scales[c]; every group
    of every row of the source is then rounded to int8 as well, by its own largest value, and sums are whole numbers.

    `outlier_weight` names the same weight in fp32, for a source whose features differ by orders of magnitude. In every
    row the features above max |x| / 2^j, for the largest j ≤ 40 that leaves at most one in 32 of them, are outliers:
    they are multiplied by it, and only the others are rounded (after Dettmers et al. 2022, LLM.int8(), where outliers
    are features of all rows).
    """

    source: Columns
    target: Columns
    weight: str
    bias: str
    scales: str | None = None
    outlier_weight: str | None = None
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
    """The names of the tensors that a step reads."""
    kinds = ("table", "scales", "weight", "outlier_weight", "bias", "residual_scale")
    return [name for kind in kinds if (name := getattr(step, kind, None)) is not None]


@dataclass(frozen=True)
class Rows:
    """A row program: `steps` in order, for every row independently."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Attention:
    """target = softmax(query · keyᵀ + bias) · value, per head, among the tokens of each sequence.

    The scale of the scores is folded into the query's weights. With `bfloat16`, queries, keys, values and exponentials
    are rounded to bfloat16 before they are multiplied, where the processor has it; sums and the softmax stay in fp32.

    `bias` names a table [heads, 2·reach + 1]: what is added to a score by the distance from the query to the key, from
    -reach to reach; beyond these, as at the nearer end. With it attention is always in fp32.
    """

    query: Columns
    key: Columns
    value: Columns
    target: Columns
    heads: int
    bfloat16: bool = False
    bias: str | None = None


@dataclass(frozen=True)
class Gather:
    """Continue with some of the tokens as rows, until another `Gather` chooses others: target = their source.

    The tokens are the first of every sequence, or with `selected` those that the caller selects, all of them by
    default. The source has one row per token.
    """

    source: Columns
    target: Columns
    selected: bool = False


Stage = Rows | Attention | Gather


def operations_of(stage: Stage) -> tuple[Step | Attention | Gather, ...]:
    """The steps of a row program; of another stage, the stage itself."""
    return stage.steps if isinstance(stage, Rows) else (stage,)


@dataclass(frozen=True)
class Plan:
    """Stages, the tensors that their steps name, and where the outputs are afterwards.

    Attributes:
        stages: in order.
        tensors: by the names that the steps use.
        outputs: of a predictor, by name; an output with a column number is that one column, without an axis for it.
        max_tokens: the longest sequence.
        stacked: matrices whose rows are those of several tensors of the checkpoint, scaled: name → their names. Every
            other matrix that could be made int8 in a checkpoint has its checkpoint's name.
    """

    stages: tuple[Stage, ...]
    tensors: Mapping[str, np.ndarray]
    outputs: Mapping[str, Columns | tuple[Columns, int]]
    max_tokens: int
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def steps(self) -> Iterator[Step]:
        """The steps of all row programs, in order."""
        return (step for stage in self.stages if isinstance(stage, Rows) for step in stage.steps)

    def linear_steps(self) -> Iterator[Linear]:
        """The linear ones of `steps`."""
        return (step for step in self.steps() if isinstance(step, Linear))

    def map_steps(self, change: Callable[[Step], Step]) -> Plan:
        """The plan with every step changed, in order."""
        stages = (
            Rows(tuple(change(step) for step in stage.steps)) if isinstance(stage, Rows) else stage
            for stage in self.stages
        )
        return replace(self, stages=tuple(stages))

    def with_attention_in(self, *, bfloat16: bool) -> Plan:
        """The plan with all attention in bfloat16, but that with a bias, or all in fp32."""
        stages = (
            replace(stage, bfloat16=bfloat16 and stage.bias is None) if isinstance(stage, Attention) else stage
            for stage in self.stages
        )
        return replace(self, stages=tuple(stages))

    def buffers(self) -> tuple[dict[str, int], set[str]]:
        """The width of every buffer, and which of them outlive a row program."""
        widths: dict[str, int] = {}
        shared = {(c if isinstance(c, Columns) else c[0]).buffer for c in self.outputs.values()}
        for stage in self.stages:
            written: set[str] = set()
            for operation in operations_of(stage):
                for name, columns in _columns_of(operation).items():
                    widths[columns.buffer] = max(widths.get(columns.buffer, 0), columns.start + columns.width)
                    if isinstance(stage, Attention | Gather) or (name != "target" and columns.buffer not in written):
                        shared.add(columns.buffer)
                written.add(operation.target.buffer)
        return widths, shared

    def stages_to_run(self) -> tuple[Stage, ...]:
        """The stages, with "gelu_to_int8", cheaper and exact to 2e-4, where values of GELU are only rounded to int8."""
        _, shared = self.buffers()
        stages: list[Stage] = []
        for stage in self.stages:
            if isinstance(stage, Rows):
                steps = enumerate(stage.steps, 1)
                stages.append(Rows(tuple(_with_coarser_gelu(step, stage.steps[i:], shared) for i, step in steps)))
            else:
                stages.append(stage)
        return tuple(stages)

    def take_tensors(self) -> dict[str, np.ndarray]:
        """Move the tensors out of the plan, which has none afterwards: the caller can release them one by one."""
        tensors = dict(self.tensors)
        object.__setattr__(self, "tensors", {})
        return tensors

    @property
    def selects(self) -> bool:
        """Whether the caller can select tokens."""
        return any(isinstance(stage, Gather) and stage.selected for stage in self.stages)

    @property
    def gathered_buffers(self) -> dict[str, Gather]:
        """The names of the buffers that have one row per gathered token, and the stage that gathered them."""
        buffers: dict[str, Gather] = {}
        gather = None
        for stage in self.stages:
            gather = stage if isinstance(stage, Gather) else gather
            if gather is not None:
                buffers.update((operation.target.buffer, gather) for operation in operations_of(stage))
        return buffers

    @property
    def gathered(self) -> dict[str, Gather]:
        """The names of the outputs that have one row per gathered token, and the stage that gathered them."""
        buffers = self.gathered_buffers
        columns = {name: c if isinstance(c, Columns) else c[0] for name, c in self.outputs.items()}
        return {name: buffers[c.buffer] for name, c in columns.items() if c.buffer in buffers}

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _columns_of(operation: Step | Attention | Gather) -> dict[str, Columns]:
    names = ("query", "key", "value", "source", "residual", "target")
    return {name: columns for name in names if (columns := getattr(operation, name, None)) is not None}


def _with_coarser_gelu(step: Step, later: tuple[Step, ...], shared: set[str]) -> Step:
    """The step, changed if its GELU is only rounded to int8, by `later` steps of its row program."""
    if not isinstance(step, Linear) or step.activation != "gelu" or step.target.buffer in shared:
        return step
    rounded = False
    for each in later:
        uses = {name for name, columns in _columns_of(each).items() if columns.overlaps(step.target)}
        rounds = isinstance(each, Linear) and each.scales is not None and each.outlier_weight is None
        if uses and not (rounds and uses == {"source"}):
            return step
        rounded = rounded or bool(uses)
    return replace(step, activation="gelu_to_int8") if rounded else step


def _lines(plan: Plan) -> list[str]:
    lines = []
    for number, stage in enumerate(plan.stages):
        lines.append(f"{number:3d} {'rows' if isinstance(stage, Rows) else 'all tokens'}")
        for operation in operations_of(stage):
            values = ((f.name, getattr(operation, f.name)) for f in fields(operation))
            parts = [f"{name}={value}" for name, value in values if value not in (None, False)]
            lines.append(f"      {type(operation).__name__:<9} {'  '.join(parts)}")
    for name, columns in plan.outputs.items():
        where = columns if isinstance(columns, Columns) else f"{columns[0]}, column {columns[1]}"
        lines.append(f"  → {name} = {where}")
    return lines
