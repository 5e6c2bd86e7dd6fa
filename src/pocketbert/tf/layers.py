"""The layers that all models are made of, and the operations that are the same in all of them.

Every layer knows its widths, so that a model has its variables, and can take a file's, before it sees an input. A
layer's name is the official one, dots included: so the path of a variable is its official name, with slashes.

Shapes: B batch, S sequence, H hidden, h heads, d width of a head (H = h·d), C and C' channels in and out, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Tensor = Any  # TensorFlow's types cannot be checked


def _gelu_tanh(x: Tensor) -> Tensor:
    return tf.nn.gelu(x, approximate=True)


#: By the names that `configs.ACTIVATIONS` allows; "gelu" is the exact erf form.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": tf.nn.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "silu": tf.nn.silu,
    "swish": tf.nn.silu,
    "tanh": tf.math.tanh,
}


def drawn(std: float) -> Any:
    """How the weight of a linear layer or an embedding begins."""
    return keras.initializers.RandomNormal(stddev=std)


def settle(layer: keras.layers.Layer) -> None:
    """Freeze the variables of a layer that does not train, which Keras does only for variables that exist."""
    if not layer.trainable:
        for variable in layer.weights:
            variable.trainable = False


class Block(keras.layers.Layer):
    """A layer made of others."""

    def build(self, input_shape: object = None) -> None:
        """Make the variables of every part."""
        for part in self._flatten_layers(include_self=False, recursive=False):
            part.build(None)
        settle(self)


class Linear(keras.layers.Dense):
    """A linear layer whose input width is known: [..., C] to [..., C']."""

    def __init__(self, width: int, units: int, std: float, name: str, **options: Any) -> None:
        super().__init__(units, kernel_initializer=drawn(std), name=name, **options)
        self.width = width

    def build(self, input_shape: object = None) -> None:
        """Make kernel [C, C'] and bias [C']."""
        super().build((None, self.width))
        settle(self)


class GroupedLinear(keras.layers.Layer):
    """A product with a block-diagonal matrix, kept as the grouped convolution of kernel 1 that it is in the files."""

    def __init__(self, width: int, units: int, groups: int, std: float, name: str) -> None:
        super().__init__(name=name)
        self.width, self.units, self.groups, self.std = width, units, groups, std

    def build(self, input_shape: object = None) -> None:
        """Make weight [C', C/G, 1] and bias [C']."""
        shape = (self.units, self.width // self.groups, 1)
        self.weight = self.add_weight(name="weight", shape=shape, initializer=drawn(self.std))
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, x: Tensor) -> Tensor:
        """Map [B, S, C] to [B, S, C']."""
        groups, width, units = self.groups, self.width // self.groups, self.units // self.groups
        blocks = tf.reshape(self.weight, (groups, units, width))  # [G, C'/G, C/G]
        length = tf.shape(x)[1] if x.shape[1] is None else x.shape[1]
        parts = tf.transpose(tf.reshape(x, (-1, groups, width)), (1, 0, 2))  # [G, B·S, C/G]
        product = tf.matmul(parts, blocks, transpose_b=True)  # [G, B·S, C'/G]
        return tf.reshape(tf.transpose(product, (1, 0, 2)), (-1, length, self.units)) + self.bias


class Table(keras.layers.Layer):
    """A row for each id: ids [...] to [..., width]."""

    def __init__(self, rows: int, width: int, std: float, name: str, padding: int | None = None) -> None:
        super().__init__(name=name)
        self.rows, self.width, self.std, self.padding = rows, width, std, padding

    def build(self, input_shape: object = None) -> None:
        """Make weight [rows, width]; the row for padding begins as zero."""

        def initial(shape: Any, dtype: Any) -> Tensor:
            rows = drawn(self.std)(shape, dtype)
            return rows if self.padding is None else tf.where((tf.range(shape[0]) == self.padding)[:, None], 0.0, rows)

        self.weight = self.add_weight(name="weight", shape=(self.rows, self.width), initializer=initial)

    def call(self, ids: Tensor) -> Tensor:
        """Look up ids [...] as [..., width]; the row for padding learns nothing from it, as in PyTorch."""
        rows = tf.gather(self.weight, ids)
        if self.padding is None:
            return rows
        return tf.where((tf.convert_to_tensor(ids) == self.padding)[..., None], tf.stop_gradient(rows), rows)


class LayerNorm(keras.layers.LayerNormalization):
    """Layer normalisation of a known width."""

    def __init__(self, width: int, eps: float, name: str) -> None:
        super().__init__(epsilon=eps, name=name)
        self.width = width

    def build(self, input_shape: object = None) -> None:
        """Make gamma and beta, each [width]."""
        super().build((None, self.width))


class NoNorm(keras.layers.Layer):
    """An elementwise affine map in place of a normalisation: x·weight + bias (MobileBERT, section 3.3)."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__(name=name)
        self.width = width

    def build(self, input_shape: object = None) -> None:
        """Make weight and bias, each [width]."""
        self.weight = self.add_weight(name="weight", shape=(self.width,), initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(self.width,), initializer="zeros")

    def call(self, x: Tensor) -> Tensor:
        """Map [..., width] to the same shape."""
        return x * self.weight + self.bias


def attention_bias(attention_mask: Tensor) -> Tensor:
    """The term that a mask of [B, S], [B, S, S] or [B, 1|h, 1|S, S] (nonzero: attend) adds to the scores."""
    keep = tf.cast(tf.cast(attention_mask, tf.bool), tf.float32)
    if keep.shape.rank == 2:
        keep = keep[:, None, None, :]
    elif keep.shape.rank == 3:
        keep = keep[:, None]
    return (1.0 - keep) * (tf.float32.min / 2)  # a score added to half the lowest number stays finite


class Attention(keras.layers.Layer):
    """Scaled dot-product attention over heads, without variables."""

    def __init__(self, heads: int, dropout: float, name: str) -> None:
        super().__init__(name=name)
        self.heads = heads
        self.dropout = keras.layers.Dropout(dropout)

    def build(self, input_shape: object = None) -> None:
        """There is nothing to make."""

    def call(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Context [B, S, H] and probabilities [B, h, S, S] (before dropout) of three [B, S, H]."""
        width = query.shape[-1]
        length = tf.shape(query)[1] if query.shape[1] is None else query.shape[1]
        q, k, v = (
            tf.transpose(tf.reshape(x, (-1, length, self.heads, width // self.heads)), (0, 2, 1, 3))
            for x in (query, key, value)
        )  # [B, h, S, d]
        scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(width // self.heads)  # [B, h, S, S]
        weights = tf.nn.softmax(scores if bias is None else scores + bias)
        context = tf.matmul(self.dropout(weights), v)  # [B, h, S, d]
        return tf.reshape(tf.transpose(context, (0, 2, 1, 3)), (-1, length, width)), weights
