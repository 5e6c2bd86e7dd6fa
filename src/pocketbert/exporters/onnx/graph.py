"""A plan as an ONNX graph: standard operators only, any batch, any length, no PyTorch.

Values are [batch, length, width], with padding, and products are MatMul and Add: ONNX Runtime adds the bias of a Gemm
on one thread. A block-diagonal matrix is a grouped convolution of kernel 1 in floats; between two of these, values
stay [batch, width, length]. In int8, for which ONNX Runtime has no such convolution, it is one product per group, and
of two such steps in a row the second reads the groups of the first without concatenation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pocketbert import __version__
from pocketbert.errors import InputError
from pocketbert.exporters.onnx.passes import avoid_int16_saturation
from pocketbert.runtime.plan import Attention, Columns, Gather, LayerNorm, Linear, Lookup, Plan, operations_of

OPSET = 17  # the first with LayerNormalization
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LARGEST_HALF = 65504.0


def onnx_graph(plan: Plan, *, half: bool = False, choices: bool = False, opset: int = OPSET) -> Any:
    """The `onnx.ModelProto` that computes what a plan computes.

    Its inputs are int64 `input_ids`, `attention_mask` and `token_type_ids`, [batch, length] each; outputs have the
    plan's names, in fp32. Outputs at padding, where the mask is 0, are undefined; padding changes no other output,
    neither by attention nor by neighbouring words.

    Int8 steps of the plan stay int8, after `passes.avoid_int16_saturation`: their inputs are rounded at run time by one
    scale per tensor, for which ONNX Runtime has kernels. A step with an `outlier_weight` uses only that.

    Args:
        plan: in fp32, or in int8 as `runtime.quantize.quantize` makes it.
        half: store matrices in fp16, which engines widen on loading; computation stays in fp32.
        choices: inputs are [batch, choices, length] and `logits` [batch, choices].
        opset: of the operators, `OPSET` or newer.

    Raises:
        InputError: the opset is too old, or unknown to the installed onnx.
    """
    check_opset(opset)
    return _Graph(avoid_int16_saturation(plan), half, choices, opset).model()


def check_opset(opset: int) -> None:
    """Raise `InputError` if an opset is too old, or unknown to the installed onnx."""
    from onnx import defs

    newest = defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        wrong = "is too old" if opset < OPSET else "is unknown to the installed onnx"
        raise InputError(
            f"opset {opset} {wrong}: choose one from {OPSET}, the first with LayerNormalization, to {newest}"
        )


@dataclass(frozen=True)
class _View:
    """A range of columns of a value of the graph."""

    value: str
    value_width: int
    start: int
    width: int

    def part(self, start: int, width: int) -> _View:
        return _View(self.value, self.value_width, self.start + start, width)


@dataclass
class _Graph:
    """A graph under construction; each operation of the plan has a method that emits its nodes."""

    plan: Plan
    half: bool
    choices: bool
    opset: int
    nodes: list[Any] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)
    buffers: dict[str, dict[int, _View]] = field(default_factory=dict)  # name → first column → its source
    outputs_of: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)  # of nodes, for reuse
    channels_first: set[str] = field(default_factory=set)  # values that are [batch, width, length]

    # ── nodes ──

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Outputs of a node; the same operator on the same inputs is one node."""
        from onnx import helper

        key = (kind, inputs, outputs, str(attributes))
        if key not in self.outputs_of:
            start = sum(len(node.output) for node in self.nodes)
            names = self.outputs_of[key] = [f"{kind}_{start + i}" for i in range(outputs)]
            self.nodes.append(helper.make_node(kind, list(inputs), names, f"{kind}_{start}", **attributes))
        return self.outputs_of[key]

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.node(kind, *inputs, **attributes)[0]

    def constant(self, values: Any, kind: Any = np.int64) -> str:
        array = np.asarray(values, kind)
        return self.tensor(f"{array.dtype}{array.shape}{array.tolist()}".replace(" ", ""), array)

    def tensor(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def matrix(self, name: str, array: np.ndarray) -> str:
        """A large tensor in fp32, or stored in fp16 if `half` is set and no value overflows."""
        if not self.half or np.abs(array).max(initial=0.0) > LARGEST_HALF:
            return self.tensor(name, array)
        return self.op("Cast", self.tensor(name, array.astype(np.float16)), to=_float())

    def vector(self, name: str) -> str:
        return self.tensor(name, self.plan.tensors[name])

    # ── buffers ──

    def views(self, columns: Columns) -> Iterator[_View]:
        """The values in these columns, from left to right."""
        end = columns.start + columns.width
        for start, view in sorted(self.buffers[columns.buffer].items()):
            left, right = max(start, columns.start), min(start + view.width, end)
            if left < right:
                yield view.part(left - start, right - left)

    def read(self, columns: Columns) -> str:
        values = [self.value(view) for view in self.views(columns)]
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=-1)

    def read_channels_first(self, columns: Columns) -> str:
        """The value of these columns as [batch, width, length]."""
        return value if (value := self.channels_first_value(columns)) else self.transposed(self.read(columns))

    def channels_first_value(self, columns: Columns) -> str | None:
        """The value of these columns if it is a single one, stored as [batch, width, length]."""
        views = list(self.views(columns))
        return views[0].value if len(views) == 1 and views[0].value in self.channels_first else None

    def transposed(self, value: str) -> str:
        return self.op("Transpose", value, perm=[0, 2, 1])

    def value(self, view: _View) -> str:
        if view.value in self.channels_first:
            return self.value(replace(view, value=self.transposed(view.value)))
        if view.width == view.value_width:
            return view.value
        if view.start % view.width == 0 and view.value_width % view.width == 0:
            parts = view.value_width // view.width
            sizes = self.constant([view.width] * parts)
            return self.node("Split", view.value, sizes, outputs=parts, axis=-1)[view.start // view.width]
        ends = (self.constant([end]) for end in (view.start, view.start + view.width, -1))
        return self.op("Slice", view.value, *ends)

    def write(self, columns: Columns, *values: str) -> None:
        """Store values of equal width side by side; other columns of the buffer keep their values."""
        before = self.buffers.get(columns.buffer, {})
        after: dict[int, _View] = {}
        end = columns.start + columns.width
        for start, view in before.items():
            if start < columns.start:
                after[start] = view.part(0, min(view.width, columns.start - start))
            if start + view.width > end:
                rest = max(start, end)
                after[rest] = view.part(rest - start, start + view.width - rest)
        width = columns.width // len(values)
        for i, value in enumerate(values):
            after[columns.start + i * width] = _View(value, width, 0, width)
        self.buffers[columns.buffer] = after

    # ── the model ──

    def model(self) -> Any:
        from onnx import TensorProto, helper

        axes = ["batch", "choices", "length"] if self.choices else ["batch", "length"]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in INPUTS]
        self.ids, self.mask, self.segments = INPUTS
        if self.choices:
            rows = self.op("Concat", self.constant([-1]), self.op("Slice", self.op("Shape", self.ids),
                            self.constant([2]), self.constant([3])), axis=0)  # fmt: skip
            self.ids, self.mask, self.segments = (self.op("Reshape", name, rows) for name in INPUTS)
        emit: dict[type, Callable[[Any], None]] = {
            Lookup: self.lookup, Linear: self.linear, LayerNorm: self.norm, Attention: self.attention,
            Gather: self.gather,
        }  # fmt: skip
        for stage in self.plan.stages:
            for operation in operations_of(stage):
                emit[type(operation)](operation)
        outputs = [self.output(name, source) for name, source in self.plan.outputs.items()]
        graph = helper.make_graph(self.nodes, "pocketbert", inputs, outputs, list(self.tensors.values()))
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="pocketbert", producer_version=__version__,
        )  # fmt: skip

    def output(self, name: str, source: Columns | tuple[Columns, int]) -> Any:
        """Declare an output of the graph; with `choices`, restore their axis."""
        from onnx import TensorProto, helper

        columns = source if isinstance(source, Columns) else source[0]
        value, gather = self.read(columns), self.plan.gathered.get(name)
        axes: list[str | int] = ["batch", columns.width]
        if self.choices:
            shape = self.op("Slice", self.op("Shape", INPUTS[0]), *map(self.constant, ([0], [2])))
            value, axes = self.op("Reshape", value, shape), ["batch", "choices"]
        elif gather is None or gather.selected:
            axes.insert(1, "length")
        if not isinstance(source, Columns):
            value, axes = self.op("Gather", value, self.constant(source[1]), axis=-1), axes[:-1]
        self.nodes.append(helper.make_node("Identity", [value], [name], name))
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)

    # ── steps ──

    def lookup(self, step: Lookup) -> None:
        rows = self.table_rows(step)
        if step.index in ("next word", "previous word"):
            rows = self.neighbours(rows, step)
        self.write(step.target, self.op("Add", self.read(step.target), rows) if step.add else rows)

    def table_rows(self, step: Lookup) -> str:
        table = self.plan.tensors[step.table]
        if step.uncounted is not None:
            real = self.op("Not", self.op("Equal", self.ids, self.constant(step.uncounted)))
            real = self.op("Cast", real, to=_int64())
            positions = self.op("Mul", self.op("CumSum", real, self.constant(1)), real)
            return self.op("Gather", self.matrix(step.table, table), positions, axis=0)
        if step.index == "position":  # [length, width], the same for every text
            length = self.op("Slice", self.op("Shape", self.ids), self.constant([1]), self.constant([2]))
            return self.op("Slice", self.matrix(step.table, table), self.constant([0]), length)
        index = self.segments if step.index == "segment" else self.ids
        if step.scales is None:
            return self.op("Gather", self.matrix(step.table, table), index, axis=0)
        scales = self.tensor(f"{step.scales} [rows, 1]", self.plan.tensors[step.scales][:, None])
        rows = self.op("Cast", self.op("Gather", self.tensor(step.table, table), index, axis=0), to=_float())
        return self.op("Mul", rows, self.op("Gather", scales, index, axis=0))

    def neighbours(self, words: str, step: Lookup) -> str:
        """Embeddings of the next or previous word; zeros beyond the ends of a sequence."""
        mask = self.op("Unsqueeze", self.op("Cast", self.mask, to=_float()), self.constant([-1]))
        padded = self.op("Pad", self.op("Mul", words, mask), self.constant([0, 1, 0, 0, 1, 0]))
        bounds = ([2], [np.iinfo(np.int64).max]) if step.index == "next word" else ([0], [-2])
        return self.op("Slice", padded, *map(self.constant, bounds), self.constant([1]))

    def linear(self, step: Linear) -> None:
        width = step.source.width // step.groups
        sources = [Columns(step.source.buffer, width, step.source.start + g * width) for g in range(step.groups)]
        convolved = step.scales is None and (step.groups > 1 or self.channels_first_value(step.source) is not None)
        if convolved:
            values = [self.convolution(step)]
        else:
            values = [self.product(step, g, self.read(source)) for g, source in enumerate(sources)]
        if step.activation is not None:
            values = [self.activation(step.activation, value) for value in values]
        if step.residual is not None:
            product = values[0] if len(values) == 1 else self.op("Concat", *values, axis=-1)
            product = self.transposed(product) if convolved else product
            values = [self.op("Add", product, self.residual(step, step.residual))]
        elif convolved:
            self.channels_first.update(values)
        self.write(step.target, *values)

    def residual(self, step: Linear, residual: Columns) -> str:
        value = self.read(residual)
        return value if step.residual_scale is None else self.op("Mul", value, self.vector(step.residual_scale))

    def product(self, step: Linear, group: int, x: str) -> str:
        """One block of the matrix: source · blockᵀ + bias."""
        height = len(self.plan.tensors[step.bias]) // step.groups
        rows, suffix = slice(group * height, (group + 1) * height), f", {group}" if step.groups > 1 else ""
        values = self.plan.tensors[step.bias][rows]
        bias = self.tensor(f"{step.bias}{suffix}", values) if values.any() else None
        if step.scales is not None and step.outlier_weight is None:
            product = self.int8_product(step, step.scales, rows, suffix, x)
        else:
            product = self.float_product(step, rows, suffix, x)
        return product if bias is None else self.op("Add", product, bias)

    def float_product(self, step: Linear, rows: slice, suffix: str, x: str) -> str:
        name = step.outlier_weight or step.weight
        weight = self.plan.tensors[name]
        if self.is_tied(step):
            matrix = self.op("Transpose", self.matrix(step.weight, weight), perm=[1, 0])
        else:
            matrix = self.matrix(f"{name}{suffix} [in, out]", weight[rows].T)
        return self.op("MatMul", x, matrix)

    def int8_product(self, step: Linear, scales: str, rows: slice, suffix: str, x: str) -> str:
        weight = self.plan.tensors[step.weight]
        if self.is_tied(step):
            matrix = self.op("Transpose", self.tensor(step.weight, weight), perm=[1, 0])
        else:
            matrix = self.tensor(f"{step.weight}{suffix} [in, out]", weight[rows].T)
        weight_scales = self.tensor(f"{scales}{suffix}", self.plan.tensors[scales][rows])
        rounded, scale, zero = self.node("DynamicQuantizeLinear", x, outputs=3)
        sums = self.op("Cast", self.op("MatMulInteger", rounded, matrix, zero), to=_float())
        return self.op("Mul", sums, self.op("Mul", scale, weight_scales))

    def is_tied(self, step: Linear) -> bool:
        """Whether the weight is the table of word embeddings, which is in the graph already."""
        return any(isinstance(other, Lookup) and other.table == step.weight for other in self.plan.steps())

    def convolution(self, step: Linear) -> str:
        """All blocks at once, with the bias: [batch, C', length]."""
        weight = self.matrix(f"{step.weight} [out, in, 1]", self.plan.tensors[step.weight][:, :, None])
        return self.op("Conv", self.read_channels_first(step.source), weight, self.vector(step.bias), group=step.groups)

    def norm(self, step: LayerNorm) -> None:
        weight, bias = self.vector(step.weight), self.vector(step.bias)
        self.write(
            step.target,
            self.op("LayerNormalization", self.read(step.source), weight, bias, axis=-1, epsilon=step.eps),
        )

    def attention(self, stage: Attention) -> None:
        channels_first = [self.channels_first_value(columns) for columns in (stage.query, stage.key, stage.value)]
        width = stage.query.width // stage.heads
        shape = self.constant([0, stage.heads, width, -1] if all(channels_first) else [0, 0, stage.heads, width])

        def split_heads(value: str, *order: int) -> str:
            return self.op("Transpose", self.op("Reshape", value, shape), perm=list(order))

        if all(channels_first):  # [batch, heads, width, length] each
            query, key, value = (self.op("Reshape", str(name), shape) for name in channels_first)
            weights = self.weights(stage, self.op("Transpose", query, perm=[0, 1, 3, 2]), key)
            context = self.op("MatMul", value, self.op("Transpose", weights, perm=[0, 1, 3, 2]))
            rows = self.op("Reshape", context, self.constant([0, stage.target.width, -1]))
            self.channels_first.add(rows)
        else:
            query, key, value = map(self.read, (stage.query, stage.key, stage.value))
            weights = self.weights(stage, split_heads(query, 0, 2, 1, 3), split_heads(key, 0, 2, 3, 1))
            context = self.op("MatMul", weights, split_heads(value, 0, 2, 1, 3))
            context = self.op("Transpose", context, perm=[0, 2, 1, 3])
            rows = self.op("Reshape", context, self.constant([0, 0, -1]))
        self.write(stage.target, rows)

    def weights(self, stage: Attention, query: str, key: str) -> str:
        """Attention weights [batch, heads, length, length] of queries [length, width] and keys [width, length]."""
        added = self.mask_scores()
        if stage.bias is not None:
            added = self.op("Add", added, self.bias_of_scores(stage.bias))
        return self.op("Softmax", self.op("Add", self.op("MatMul", query, key), added), axis=-1)

    def bias_of_scores(self, name: str) -> str:
        """[heads, length, length] from the table of an `Attention` with a bias."""
        reach = self.plan.tensors[name].shape[1] // 2
        length = self.op("Gather", self.op("Shape", self.ids), self.constant(1), axis=0)
        places = self.op("Range", self.constant(0), length, self.constant(1))
        queries = self.op("Unsqueeze", places, self.constant([1]))
        distances = self.op("Clip", self.op("Sub", places, queries), self.constant(-reach), self.constant(reach))
        return self.op("Gather", self.vector(name), self.op("Add", distances, self.constant(reach)), axis=1)

    def mask_scores(self) -> str:
        """[batch, 1, 1, length]: 0 at tokens, the lowest fp32 number at padding."""
        mask = self.op("Cast", self.op("Unsqueeze", self.mask, self.constant([1, 2])), to=_float())
        negative = self.op("Sub", mask, self.constant(1, np.float32))
        return self.op("Mul", negative, self.constant(np.finfo(np.float32).max, np.float32))

    def gather(self, stage: Gather) -> None:
        value = self.read(stage.source)
        if not stage.selected:  # the first token of every sequence; otherwise all tokens
            value = self.op("Gather", value, self.constant(0), axis=1)
        self.write(stage.target, value)

    # ── activations ──

    def activation(self, name: str, x: str) -> str:
        """As `reference.ACTIVATIONS`; GELU in the form that engines recognise."""

        def number(value: float) -> str:
            return self.constant(value, np.float32)

        if name == "gelu":
            inner = self.op("Add", self.op("Erf", self.op("Div", x, number(math.sqrt(2)))), number(1))
            return self.op("Mul", self.op("Mul", x, inner), number(0.5))
        if name in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"):
            cubed = self.op("Mul", self.op("Pow", x, number(3)), number(0.044715))
            inner = self.op("Mul", self.op("Add", x, cubed), number(math.sqrt(2 / math.pi)))
            return self.op("Mul", self.op("Mul", x, number(0.5)), self.op("Add", self.op("Tanh", inner), number(1)))
        if name in ("silu", "swish"):
            return self.op("Mul", x, self.op("Sigmoid", x))
        if name == "relu6":
            return self.op("Clip", x, number(0), number(6))
        return self.op({"relu": "Relu", "tanh": "Tanh"}[name], x)


def _int64() -> int:
    from onnx import TensorProto

    return int(TensorProto.INT64)


def _float() -> int:
    from onnx import TensorProto

    return int(TensorProto.FLOAT)
