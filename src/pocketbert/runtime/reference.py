"""An interpreter of plans in NumPy: the reference for the native core, and the fallback where that was not built.

Every row's result depends on its sequence alone, but not to the last bit: NumPy's matrix products may sum in another
order when there are more rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pocketbert.runtime.plan import Attention, Columns, Gather, LayerNorm, Linear, Lookup, Plan, Rows, Step

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]
Observer = Callable[[Linear, Floats], None]


def run(
    plan: Plan,
    ids: Ints,
    segments: Ints,
    starts: Ints,
    selected: Ints | None = None,
    *,
    observe: Observer | None = None,
) -> dict[str, Floats]:
    """Run a plan over sequences laid end to end.

    Args:
        plan: the computation.
        ids: [tokens] of all sequences.
        segments: [tokens] token types.
        starts: [sequences + 1] where each sequence starts, and the number of tokens.
        selected: the indices of the tokens that a `Gather` with `selected` gathers; all by default.
        observe: called before every linear step, with the step and its source [rows, columns].

    Returns:
        The plan's outputs by name: one row per token, or after a `Gather` one per gathered token.
    """
    return _Run(plan, ids, segments, starts, selected, observe).outputs()


class _Run:
    def __init__(
        self, plan: Plan, ids: Ints, segments: Ints, starts: Ints, selected: Ints | None, observe: Observer | None
    ) -> None:
        self.plan, self.starts, self.observe = plan, starts, observe
        self.selected = np.arange(len(ids)) if selected is None else selected
        self.buffers: dict[str, Floats] = {}
        self.rows = len(ids)
        before, after = np.append(-1, ids[:-1]), np.append(ids[1:], -1)
        before[starts[:-1]] = -1  # beyond the ends of a sequence there are no words
        after[starts[1:] - 1] = -1
        positions = np.arange(len(ids)) - np.repeat(starts[:-1], np.diff(starts))
        self.ids = ids
        self.indices = {
            "word": ids, "next word": after, "previous word": before, "position": positions, "segment": segments,
        }  # fmt: skip

    def outputs(self) -> dict[str, Floats]:
        for stage in self.plan.stages_to_run():
            if isinstance(stage, Rows):
                for step in stage.steps:
                    self.step(step)
            elif isinstance(stage, Attention):
                self.attention(stage)
            else:
                self.gather(stage)
        return {
            name: self.read(columns) if isinstance(columns, Columns) else self.read(columns[0])[:, columns[1]]
            for name, columns in self.plan.outputs.items()
        }

    # ── buffers ──

    def read(self, columns: Columns) -> Floats:
        return self.buffers[columns.buffer][:, columns.start : columns.start + columns.width]

    def write(self, columns: Columns, values: Floats) -> None:
        buffer, end = self.buffers.get(columns.buffer), columns.start + columns.width
        if buffer is None or buffer.shape[1] < end:
            wider = np.zeros((len(values), end), np.float32)
            if buffer is not None:
                wider[:, : buffer.shape[1]] = buffer
            self.buffers[columns.buffer] = buffer = wider
        buffer[:, columns.start : end] = values

    # ── steps ──

    def step(self, step: Step) -> None:
        if isinstance(step, Lookup):
            self.lookup(step)
        elif isinstance(step, Linear):
            self.linear(step)
        else:
            self.norm(step)

    def lookup(self, step: Lookup) -> None:
        index = self.indices[step.index] if step.uncounted is None else self.counted(step.uncounted)
        rows: Floats = self.plan.tensors[step.table][index]
        if step.scales is not None:
            rows = rows.astype(np.float32) * self.plan.tensors[step.scales][index, None]
        rows = np.where((index >= 0)[:, None], rows, np.float32(0))
        self.write(step.target, rows + self.read(step.target) if step.add else rows)

    def counted(self, uncounted: int) -> Ints:
        """The position of each word among the others of its sequence but `uncounted`, from 1 on; of that word, 0."""
        counts = self.ids != uncounted
        before = np.cumsum(np.append(0, counts))
        return (before[1:] - np.repeat(before[self.starts[:-1]], np.diff(self.starts))) * counts

    def linear(self, step: Linear) -> None:
        weight, x = self.plan.tensors[step.weight], self.read(step.source)
        if self.observe is not None:
            self.observe(step, x)
        blocks = weight.reshape(step.groups, -1, weight.shape[1])  # [G, C'/G, C/G]
        parts = np.split(x, step.groups, axis=1)
        if step.scales is None:
            products = [part @ block.T for part, block in zip(parts, blocks, strict=True)]
        else:
            scales = self.plan.tensors[step.scales].reshape(step.groups, -1)
            outliers = np.zeros_like(x) if step.outlier_weight is None else np.where(_outliers(x), x, np.float32(0))
            parts = np.split(x - outliers, step.groups, axis=1)
            products = [_int8_product(*each) for each in zip(parts, blocks, scales, strict=True)]
            if step.outlier_weight is not None:
                products[0] += outliers @ self.plan.tensors[step.outlier_weight].T
        out = np.concatenate(products, axis=1)
        out += self.plan.tensors[step.bias]
        if step.activation is not None:
            out = ACTIVATIONS[step.activation](out)
        if step.residual is not None:
            residual = self.read(step.residual)
            out += residual if step.residual_scale is None else residual * self.plan.tensors[step.residual_scale]
        self.write(step.target, out)

    def norm(self, step: LayerNorm) -> None:
        x = self.read(step.source)
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        tensors = self.plan.tensors
        self.write(step.target, centred / np.sqrt(variance + step.eps) * tensors[step.weight] + tensors[step.bias])

    def attention(self, stage: Attention) -> None:
        query, key, value = (self.read(columns) for columns in (stage.query, stage.key, stage.value))
        context = np.empty_like(query)
        for start, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            q, k, v = (
                x[start:end].reshape(end - start, stage.heads, -1).transpose(1, 0, 2) for x in (query, key, value)
            )  # [heads, S, d]
            if stage.bfloat16:
                q, k, v = (_bfloat16(x) for x in (q, k, v))
            scores = q @ k.transpose(0, 2, 1)  # [heads, S, S]
            if stage.bias is not None:
                scores += bias_of_scores(self.plan.tensors[stage.bias], end - start)
            exponentials: Floats = np.exp(scores - scores.max(-1, keepdims=True))
            sums = exponentials.sum(-1, keepdims=True)
            products = (_bfloat16(exponentials) if stage.bfloat16 else exponentials) @ v / sums
            context[start:end] = products.transpose(1, 0, 2).reshape(end - start, -1)
        self.write(stage.target, context)

    def gather(self, stage: Gather) -> None:
        self.write(stage.target, self.read(stage.source)[self.selected if stage.selected else self.starts[:-1]])


def bias_of_scores(table: Floats, length: int) -> Floats:
    """[heads, S, S] from the table [heads, 2·reach + 1] of an `Attention` with a bias."""
    reach = table.shape[1] // 2
    distances = np.arange(length) - np.arange(length)[:, None]  # from the query, a row, to the key
    return table[:, np.clip(distances, -reach, reach) + reach]


def _bfloat16(x: Floats) -> Floats:
    """The nearest numbers of 8 significant bits; of two equally near, the even one."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return np.where(np.isfinite(x), (nearest & np.uint32(0xFFFF0000)).view(np.float32), x)


def _outliers(x: Floats) -> npt.NDArray[np.bool_]:
    """The features of each row that an int8 step with an `outlier_weight` does not round; see `plan.Linear`."""
    magnitude = np.abs(x)
    most, chosen = x.shape[1] // 32, np.zeros(x.shape, bool)
    for j in range(1, 41):
        above = magnitude > magnitude.max(axis=1, keepdims=True) * np.float32(0.5**j)
        few = above.sum(axis=1) <= most
        chosen[few] = above[few]
    return chosen


def _int8_product(x: Floats, weight: npt.NDArray[np.int8], scales: Floats) -> Floats:
    """The product of rows that are rounded to int8, each by its own scale, and an int8 weight."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    inverse = np.divide(
        127, largest, out=np.zeros_like(largest), where=largest > 1e-35
    )  # as the core: 127 / less overflows
    whole = np.rint(x * inverse).astype(np.int32) @ weight.T.astype(np.int32)
    return whole.astype(np.float32) * (largest / np.float32(127) * scales)


# ── activations ──


def _erf(x: Floats) -> Floats:
    """The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26); NumPy has none."""
    magnitude = np.abs(x)
    t = np.reciprocal(1 + np.float32(0.3275911) * magnitude)
    series: Floats = np.zeros_like(x)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(coefficient)) * t
    return np.copysign(1 - series * np.exp(-np.square(magnitude)), x)


def _gelu(x: Floats) -> Floats:
    return np.float32(0.5) * x * (1 + _erf(x * np.float32(math.sqrt(0.5))))


def _gelu_to_int8(x: Floats) -> Floats:
    """As native/kernels/kernels.h has it."""
    half = np.float32(0.5) * x
    magnitude = np.abs(half)
    cut = np.minimum(magnitude, np.float32(2))
    series: Floats = np.zeros_like(x)
    first = (3.700851812e-4, -6.507835817e-3, 4.891021922e-2, -2.079200000e-1)
    for coefficient in (*first, 5.608762503e-1, -1.032870650, 1.591481686):
        series = series * np.square(cut) + np.float32(coefficient)
    return half + magnitude * (cut * series)


def _gelu_tanh(x: Floats) -> Floats:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def _silu(x: Floats) -> Floats:
    return np.float32(0.5) * x * (1 + np.tanh(np.float32(0.5) * x))


def _relu(x: Floats) -> Floats:
    return np.maximum(x, np.float32(0))


def _relu6(x: Floats) -> Floats:
    return np.clip(x, np.float32(0), np.float32(6))


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "gelu": _gelu,
    "gelu_to_int8": _gelu_to_int8,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": _relu,
    "relu6": _relu6,
    "silu": _silu,
    "swish": _silu,
    "tanh": np.tanh,
}
