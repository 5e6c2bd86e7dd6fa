"""A plan in TensorFlow operations, for tracing: SavedModels and LiteRT files are made of it.

Rows are the tokens of the whole batch, with padding: [batch · length, width]. So every linear step becomes products of
two dimensions, one per group of a block-diagonal matrix: the form that the engines behind these files run fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pocketbert.runtime.plan import Attention, Columns, Gather, LayerNorm, Linear, Lookup, Plan, operations_of

Tensor = Any  # TensorFlow's types cannot be checked
MASKED_SCORE = -1e4  # added to attention scores of padding, as in the published classes; representable in fp16


def compute(
    plan: Plan,
    ids: Tensor,
    mask: Tensor,
    segments: Tensor,
    *,
    masked_score: float = MASKED_SCORE,
    choices: bool = False,
) -> dict[str, Tensor]:
    """Outputs of an fp32 plan by name, from ids, mask and token types, each [batch, length] and int32.

    Outputs at padding, where the mask is 0, are undefined; padding changes no other output, neither by attention nor by
    neighbouring words.

    Args:
        plan: without int8 steps.
        ids: token ids.
        mask: 1 at tokens, 0 at padding.
        segments: token types.
        masked_score: added to the attention scores of padding.
        choices: inputs are [batch, choices, length] and `logits` [batch, choices].
    """
    import tensorflow as tf

    if choices:
        outer, length = tf.shape(ids)[:2], ids.shape[2] or tf.shape(ids)[2]
        ids, mask, segments = (tf.reshape(x, [-1, length]) for x in (ids, mask, segments))
        outputs = _Graph(plan, ids, mask, segments, masked_score).outputs()
        return {name: tf.reshape(value, outer) for name, value in outputs.items()}
    return _Graph(plan, ids, mask, segments, masked_score).outputs()


@dataclass(frozen=True)
class _Piece:
    """A tensor in a range of columns of a buffer."""

    start: int
    end: int
    value: Tensor

    def cut(self, start: int, end: int) -> _Piece:
        uncut = (start, end) == (self.start, self.end)
        return self if uncut else _Piece(start, end, self.value[:, start - self.start : end - self.start])


@dataclass
class _Graph:
    """The values of a plan's buffers; each operation of the plan has a method that computes it."""

    plan: Plan
    ids: Tensor
    mask: Tensor
    segments: Tensor
    masked_score: float
    buffers: dict[str, list[_Piece]] = field(default_factory=dict)
    word_rows: dict[str, Tensor] = field(default_factory=dict)  # by table; looked up once for all neighbours
    bias: Tensor = None
    biases: dict[str, Tensor] = field(default_factory=dict)  # of scores, by table

    def outputs(self) -> dict[str, Tensor]:
        """Run the plan, and restore the axis of sequences."""
        import tensorflow as tf

        sizes = tf.shape(self.ids)
        self.batch, self.length = (self.ids.shape[axis] or sizes[axis] for axis in (0, 1))
        mask = tf.cast(self.mask, tf.float32)
        self.word_mask = mask[..., None]  # [batch, length, 1]
        self.bias = ((mask - 1.0) * -self.masked_score)[:, None, None, :]
        run: dict[type, Callable[[Any], None]] = {
            Lookup: self.lookup, Linear: self.linear, LayerNorm: self.norm, Attention: self.attention,
            Gather: self.gather,
        }  # fmt: skip
        for stage in self.plan.stages:
            for operation in operations_of(stage):
                run[type(operation)](operation)
        return {name: self.output(name, source) for name, source in self.plan.outputs.items()}

    def output(self, name: str, source: Columns | tuple[Columns, int]) -> Tensor:
        columns = source if isinstance(source, Columns) else source[0]
        value, gather = self.read(columns), self.plan.gathered.get(name)
        if gather is None or gather.selected:
            value = self.sequences(value, columns.width)
        return value if isinstance(source, Columns) else value[..., source[1]]

    def sequences(self, rows: Tensor, *after: int) -> Tensor:
        import tensorflow as tf

        return tf.reshape(rows, [self.batch, self.length, *after])

    # ── buffers ──

    def pieces(self, columns: Columns) -> Iterator[_Piece]:
        """The tensors in these columns, from left to right."""
        end = columns.start + columns.width
        for piece in self.buffers[columns.buffer]:
            left, right = max(piece.start, columns.start), min(piece.end, end)
            if left < right:
                yield piece.cut(left, right)

    def read(self, columns: Columns) -> Tensor:
        import tensorflow as tf

        values = [piece.value for piece in self.pieces(columns)]
        return values[0] if len(values) == 1 else tf.concat(values, -1)

    def write(self, columns: Columns, values: Sequence[Tensor]) -> None:
        """Store values of equal width side by side; other columns of the buffer keep their values."""
        end, width = columns.start + columns.width, columns.width // len(values)
        kept = [
            piece.cut(left, right)
            for piece in self.buffers.get(columns.buffer, [])
            for left, right in ((piece.start, min(piece.end, columns.start)), (max(piece.start, end), piece.end))
            if left < right
        ]
        starts = range(columns.start, end, width)
        new = [_Piece(start, start + width, value) for start, value in zip(starts, values, strict=True)]
        self.buffers[columns.buffer] = sorted([*kept, *new], key=lambda piece: piece.start)

    # ── operations ──

    def lookup(self, step: Lookup) -> None:
        rows = self.table_rows(step)
        self.write(step.target, [self.read(step.target) + rows if step.add else rows])

    def table_rows(self, step: Lookup) -> Tensor:
        """Rows of a table, [batch · length, width]."""
        import tensorflow as tf

        table, width = self.plan.tensors[step.table], step.target.width
        if step.uncounted is not None:
            real = tf.cast(tf.not_equal(self.ids, step.uncounted), tf.int32)
            return tf.gather(table, tf.reshape(tf.cumsum(real, axis=1) * real, [-1]))
        if step.index == "position":
            rows = tf.constant(table)[: self.length]
            return rows if isinstance(self.batch, int) and self.batch == 1 else tf.tile(rows, [self.batch, 1])
        if step.index == "segment":
            return tf.gather(table, tf.reshape(self.segments, [-1]))
        if step.table not in self.word_rows:
            self.word_rows[step.table] = tf.gather(table, tf.reshape(self.ids, [-1]))
        words = self.word_rows[step.table]
        if step.index == "word":
            return words
        words = self.sequences(words, width) * self.word_mask
        is_next = step.index == "next word"
        shifted = words[:, 1:] if is_next else words[:, :-1]
        return tf.reshape(tf.pad(shifted, [[0, 0], [0, 1] if is_next else [1, 0], [0, 0]]), [-1, width])

    def linear(self, step: Linear) -> None:
        import tensorflow as tf

        tensors = self.plan.tensors
        width = step.source.width // step.groups
        blocks = zip(*(np.split(tensors[name], step.groups) for name in (step.weight, step.bias)), strict=True)
        values = []
        for group, (weight, bias) in enumerate(blocks):
            x = self.read(Columns(step.source.buffer, width, step.source.start + group * width))
            value = tf.matmul(x, tf.constant(np.ascontiguousarray(weight.T))) + bias
            values.append(value if step.activation is None else _activation(step.activation, value))
        if step.residual is not None:
            residual = self.read(step.residual)
            if step.residual_scale is not None:
                residual *= tensors[step.residual_scale]
            values = [(values[0] if len(values) == 1 else tf.concat(values, -1)) + residual]
        self.write(step.target, values)

    def norm(self, step: LayerNorm) -> None:
        import tensorflow as tf

        x, tensors = self.read(step.source), self.plan.tensors
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        scaled = centred * tf.math.rsqrt(variance + step.eps)
        self.write(step.target, [scaled * tensors[step.weight] + tensors[step.bias]])

    def attention(self, stage: Attention) -> None:
        import tensorflow as tf

        width = stage.query.width // stage.heads
        q, k, v = (
            tf.transpose(self.sequences(self.read(columns), stage.heads, width), [0, 2, 1, 3])
            for columns in (stage.query, stage.key, stage.value)
        )  # [batch, heads, length, d]
        added = self.bias if stage.bias is None else self.bias + self.bias_of_scores(stage.bias)
        weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) + added)  # [batch, heads, length, length]
        context = tf.transpose(tf.matmul(weights, v), [0, 2, 1, 3])
        self.write(stage.target, [tf.reshape(context, [-1, stage.target.width])])

    def bias_of_scores(self, name: str) -> Tensor:
        """[heads, length, length] from the table of an `Attention` with a bias."""
        import tensorflow as tf

        if name not in self.biases:
            table = self.plan.tensors[name]
            reach, places = table.shape[1] // 2, tf.range(self.length)
            distances = tf.clip_by_value(places - places[:, None], -reach, reach)
            self.biases[name] = tf.gather(table, distances + reach, axis=1)
        return self.biases[name]

    def gather(self, stage: Gather) -> None:
        value = self.read(stage.source)
        if not stage.selected:  # the first token of every sequence; otherwise all tokens
            value = self.sequences(value, stage.source.width)[:, 0]
        self.write(stage.target, [value])


def _activation(name: str, x: Tensor) -> Tensor:
    """As `reference.ACTIVATIONS`."""
    import tensorflow as tf

    if name in ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"):
        return tf.nn.gelu(x, approximate=name != "gelu")
    named = {"relu": tf.nn.relu, "relu6": tf.nn.relu6, "silu": tf.nn.silu, "swish": tf.nn.silu, "tanh": tf.math.tanh}
    return named[name](x)
