"""A plan as an ONNX graph: standard operators only, any batch, any length, no PyTorch.

Values are [batch, length, width], padding among them, and products are MatMul and Add: ONNX Runtime adds the bias of a
Gemm on one thread. What is block-diagonal is a grouped convolution of kernel 1 in floats, between which values stay
[batch, width, length]; in int8, which ONNX Runtime has no such convolution for, it is one product a group, and two such
steps in a row hand over group by group, with nothing in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pocketbert import __version__
from pocketbert.errors import InputError
from pocketbert.exporters.onnx.passes import fitting
from pocketbert.runtime.plan import Attention, Columns, Gather, LayerNorm, Linear, Lookup, Plan, Rows

OPSET = 17  # the first with LayerNormalization
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LARGEST_HALF = 65504.0


def onnx_graph(plan: Plan, *, half: bool = False, choices: bool = False, opset: int = OPSET) -> Any:
    """The `onnx.ModelProto` that computes what a plan computes.

    Its inputs are int64 `input_ids`, `attention_mask` and `token_type_ids`, [batch, length] each; outputs have the
    plan's names, in fp32. Beyond the end of a sequence, where the mask is 0, outputs mean nothing, and nothing of them
    reaches a token: neither attention nor neighbours.

    Steps of the plan that are in int8 stay so, see `onnx_plan.fitting`: what they read is rounded while it runs, a
    tensor by one scale, which is what ONNX Runtime has kernels for. A step with an `outlier_weight` takes that alone.

    Args:
        plan: in fp32, or in int8 as `runtime.quantize.quantize` makes it.
        half: keep matrices in fp16, which engines widen when they load them; nothing is computed in it.
        choices: inputs are [batch, choices, length] and `logits` [batch, choices].
        opset: of the operators, `OPSET` or newer.

    Raises:
        InputError: there is no such opset, or it is too old.
    """
    check_opset(opset)
    return _Graph(fitting(plan), half, choices, opset).model()


def check_opset(opset: int) -> None:
    """Raise `InputError` if there is no such opset, or it is too old."""
    from onnx import defs

    newest = defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        wrong = "is too old" if opset < OPSET else "is not known here"
        raise InputError(
            f"opset {opset} {wrong}: give one from {OPSET}, the first with LayerNormalization, to {newest}"
        )


@dataclass(frozen=True)
class _View:
    """Some columns of a value of the graph."""

    value: str
    whole: int  # columns of the value
    start: int
    width: int

    def part(self, start: int, width: int) -> _View:
        return _View(self.value, self.whole, self.start + start, width)


@dataclass
class _Graph:
    plan: Plan
    half: bool
    choices: bool
    opset: int
    nodes: list[Any] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)
    buffers: dict[str, dict[int, _View]] = field(default_factory=dict)  # name → first column → what is there
    made: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)  # what was computed once already
    across: set[str] = field(default_factory=set)  # values that are [batch, width, length]

    # ── nodes ──

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """The outputs of an operator; the same one on the same inputs is there only once."""
        from onnx import helper

        key = (kind, inputs, outputs, str(attributes))
        if key not in self.made:
            start = sum(len(node.output) for node in self.nodes)
            self.made[key] = [f"{kind}_{start + i}" for i in range(outputs)]
            self.nodes.append(helper.make_node(kind, list(inputs), self.made[key], f"{kind}_{start}", **attributes))
        return self.made[key]

    def one(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.op(kind, *inputs, **attributes)[0]

    def constant(self, values: Any, kind: Any = np.int64) -> str:
        array = np.asarray(values, kind)
        return self.tensor(f"{array.dtype}{array.shape}{array.tolist()}".replace(" ", ""), array)

    def tensor(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def matrix(self, name: str, array: np.ndarray) -> str:
        """A large tensor in fp32, or kept in fp16 where none of it is too large for that."""
        if not self.half or np.abs(array).max(initial=0.0) > LARGEST_HALF:
            return self.tensor(name, array)
        return self.one("Cast", self.tensor(name, array.astype(np.float16)), to=_float())

    def vector(self, name: str) -> str:
        return self.tensor(name, self.plan.tensors[name])

    # ── buffers ──

    def views(self, columns: Columns) -> Iterator[_View]:
        """What stands in these columns, from left to right."""
        end = columns.start + columns.width
        for start, view in sorted(self.buffers[columns.buffer].items()):
            left, right = max(start, columns.start), min(start + view.width, end)
            if left < right:
                yield view.part(left - start, right - left)

    def read(self, columns: Columns) -> str:
        values = [self.value(view) for view in self.views(columns)]
        return values[0] if len(values) == 1 else self.one("Concat", *values, axis=-1)

    def read_across(self, columns: Columns) -> str:
        """The same as [batch, width, length]."""
        return value if (value := self.is_across(columns)) else self.turned(self.read(columns))

    def is_across(self, columns: Columns) -> str | None:
        """The one value in these columns if it is [batch, width, length]."""
        views = list(self.views(columns))
        return views[0].value if len(views) == 1 and views[0].value in self.across else None

    def turned(self, value: str) -> str:
        return self.one("Transpose", value, perm=[0, 2, 1])

    def value(self, view: _View) -> str:
        if view.value in self.across:
            return self.value(replace(view, value=self.turned(view.value)))
        if view.width == view.whole:
            return view.value
        if view.start % view.width == 0 and view.whole % view.width == 0:
            parts = view.whole // view.width
            sizes = self.constant([view.width] * parts)
            return self.op("Split", view.value, sizes, outputs=parts, axis=-1)[view.start // view.width]
        ends = (self.constant([end]) for end in (view.start, view.start + view.width, -1))
        return self.one("Slice", view.value, *ends)

    def write(self, columns: Columns, *values: str) -> None:
        """Put values of equal width side by side; of what stood there the rest stays."""
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
            rows = self.one("Concat", self.constant([-1]), self.one("Slice", self.one("Shape", self.ids),
                            self.constant([2]), self.constant([3])), axis=0)  # fmt: skip
            self.ids, self.mask, self.segments = (self.one("Reshape", name, rows) for name in INPUTS)
        for stage in self.plan.stages:
            if isinstance(stage, Attention):
                self.attention(stage)
            elif isinstance(stage, Gather):
                self.gather(stage)
            else:
                self.rows(stage)
        outputs = [self.output(name, place) for name, place in self.plan.outputs.items()]
        graph = helper.make_graph(self.nodes, "pocketbert", inputs, outputs, list(self.tensors.values()))
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="pocketbert", producer_version=__version__,
        )  # fmt: skip

    def rows(self, stage: Rows) -> None:
        for step in stage.steps:
            if isinstance(step, Lookup):
                self.lookup(step)
            elif isinstance(step, Linear):
                self.linear(step)
            else:
                self.norm(step)

    def output(self, name: str, place: Columns | tuple[Columns, int]) -> Any:
        """Give a value its name, and the choices of a question their axis."""
        from onnx import TensorProto, helper

        columns = place if isinstance(place, Columns) else place[0]
        value, gather = self.read(columns), self.plan.gathered.get(name)
        axes: list[str | int] = ["batch", columns.width]
        if self.choices:
            shape = self.one("Slice", self.one("Shape", INPUTS[0]), *map(self.constant, ([0], [2])))
            value, axes = self.one("Reshape", value, shape), ["batch", "choices"]
        elif gather is None or gather.selected:
            axes.insert(1, "length")
        if not isinstance(place, Columns):
            value, axes = self.one("Gather", value, self.constant(place[1]), axis=-1), axes[:-1]
        self.nodes.append(helper.make_node("Identity", [value], [name], name))
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)

    # ── steps ──

    def lookup(self, step: Lookup) -> None:
        found = self.looked_up(step)
        if step.index in ("next word", "previous word"):
            found = self.neighbours(found, step)
        self.write(step.target, self.one("Add", self.read(step.target), found) if step.add else found)

    def looked_up(self, step: Lookup) -> str:
        table = self.plan.tensors[step.table]
        if step.index == "position":  # [length, width], the same for every text
            length = self.one("Slice", self.one("Shape", self.ids), self.constant([1]), self.constant([2]))
            return self.one("Slice", self.matrix(step.table, table), self.constant([0]), length)
        index = self.segments if step.index == "segment" else self.ids
        if step.scales is None:
            return self.one("Gather", self.matrix(step.table, table), index, axis=0)
        scales = self.tensor(f"{step.scales} [rows, 1]", self.plan.tensors[step.scales][:, None])
        whole = self.one("Cast", self.one("Gather", self.tensor(step.table, table), index, axis=0), to=_float())
        return self.one("Mul", whole, self.one("Gather", scales, index, axis=0))

    def neighbours(self, words: str, step: Lookup) -> str:
        """The words one further on or back; zeros beyond the ends of a sequence."""
        known = self.one("Unsqueeze", self.one("Cast", self.mask, to=_float()), self.constant([-1]))
        padded = self.one("Pad", self.one("Mul", words, known), self.constant([0, 1, 0, 0, 1, 0]))
        bounds = ([2], [np.iinfo(np.int64).max]) if step.index == "next word" else ([0], [-2])
        return self.one("Slice", padded, *map(self.constant, bounds), self.constant([1]))

    def linear(self, step: Linear) -> None:
        width = step.source.width // step.groups
        sources = [Columns(step.source.buffer, width, step.source.start + g * width) for g in range(step.groups)]
        convolved = step.scales is None and (step.groups > 1 or self.is_across(step.source) is not None)
        if convolved:
            values = [self.convolution(step)]
        else:
            values = [self.product(step, g, self.read(source)) for g, source in enumerate(sources)]
        if step.activation is not None:
            values = [self.activation(step.activation, value) for value in values]
        if step.residual is not None:
            whole = values[0] if len(values) == 1 else self.one("Concat", *values, axis=-1)
            whole = self.turned(whole) if convolved else whole
            values = [self.one("Add", whole, self.residual(step, step.residual))]
        elif convolved:
            self.across.update(values)
        self.write(step.target, *values)

    def residual(self, step: Linear, residual: Columns) -> str:
        value = self.read(residual)
        return value if step.residual_scale is None else self.one("Mul", value, self.vector(step.residual_scale))

    def product(self, step: Linear, group: int, x: str) -> str:
        """One block of the matrix: source · blockᵀ + bias."""
        tensors, name = self.plan.tensors, f", {group}" if step.groups > 1 else ""
        int8 = step.scales is not None and step.outlier_weight is None
        weight = tensors[step.weight if step.outlier_weight is None else step.outlier_weight]
        rows = slice(group * (height := len(weight) // step.groups), (group + 1) * height)
        biased = tensors[step.bias][rows].any()
        bias = self.tensor(f"{step.bias}{name}", tensors[step.bias][rows]) if biased else ""
        tied = any(isinstance(s, Lookup) and s.table == step.weight for s in self.plan.steps())
        if not int8:
            if tied:
                matrix = self.one("Transpose", self.matrix(step.weight, weight), perm=[1, 0])
            else:
                matrix = self.matrix(f"{step.outlier_weight or step.weight}{name} [in, out]", weight[rows].T)
            product = self.one("MatMul", x, matrix)
            return self.one("Add", product, bias) if biased else product
        assert step.scales is not None
        block = (
            self.one("Transpose", self.tensor(step.weight, weight), perm=[1, 0])
            if tied
            else self.tensor(f"{step.weight}{name} [in, out]", weight[rows].T)
        )
        scales = self.tensor(f"{step.scales}{name}", tensors[step.scales][rows])
        rounded, scale, zero = self.op("DynamicQuantizeLinear", x, outputs=3)
        sums = self.one("Cast", self.one("MatMulInteger", rounded, block, zero), to=_float())
        product = self.one("Mul", sums, self.one("Mul", scale, scales))
        return self.one("Add", product, bias) if biased else product

    def convolution(self, step: Linear) -> str:
        """All blocks at once, [batch, C', length], and the bias."""
        weight = self.matrix(f"{step.weight} [out, in, 1]", self.plan.tensors[step.weight][:, :, None])
        return self.one("Conv", self.read_across(step.source), weight, self.vector(step.bias), group=step.groups)

    def norm(self, step: LayerNorm) -> None:
        weight, bias = self.vector(step.weight), self.vector(step.bias)
        self.write(
            step.target,
            self.one("LayerNormalization", self.read(step.source), weight, bias, axis=-1, epsilon=step.eps),
        )

    def attention(self, stage: Attention) -> None:
        across = [self.is_across(columns) for columns in (stage.query, stage.key, stage.value)]
        each = stage.query.width // stage.heads
        whole = self.constant([0, stage.heads, each, -1] if all(across) else [0, 0, stage.heads, each])

        def parts(value: str, *order: int) -> str:
            return self.one("Transpose", self.one("Reshape", value, whole), perm=list(order))

        if all(across):  # [batch, heads, width, length] each
            query, key, value = (self.one("Reshape", str(name), whole) for name in across)
            weights = self.weights(self.one("Transpose", query, perm=[0, 1, 3, 2]), key)
            context = self.one("MatMul", value, self.one("Transpose", weights, perm=[0, 1, 3, 2]))
            rows = self.one("Reshape", context, self.constant([0, stage.target.width, -1]))
            self.across.add(rows)
        else:
            query, key, value = map(self.read, (stage.query, stage.key, stage.value))
            weights = self.weights(parts(query, 0, 2, 1, 3), parts(key, 0, 2, 3, 1))
            context = self.one("MatMul", weights, parts(value, 0, 2, 1, 3))
            context = self.one("Transpose", context, perm=[0, 2, 1, 3])
            rows = self.one("Reshape", context, self.constant([0, 0, -1]))
        self.write(stage.target, rows)

    def weights(self, query: str, key: str) -> str:
        """How much each token heeds each, [batch, heads, length, length]; of [length, width] and [width, length]."""
        return self.one("Softmax", self.one("Add", self.one("MatMul", query, key), self.hidden_tokens()), axis=-1)

    def hidden_tokens(self) -> str:
        """[batch, 1, 1, length]: 0 at tokens, the least number elsewhere."""
        known = self.one("Cast", self.one("Unsqueeze", self.mask, self.constant([1, 2])), to=_float())
        unknown = self.one("Sub", known, self.constant(1, np.float32))
        return self.one("Mul", unknown, self.constant(np.finfo(np.float32).max, np.float32))

    def gather(self, stage: Gather) -> None:
        value = self.read(stage.source)
        if not stage.selected:  # the first of every sequence; else all of them
            value = self.one("Gather", value, self.constant(0), axis=1)
        self.write(stage.target, value)

    # ── activations ──

    def activation(self, name: str, x: str) -> str:
        """As `reference.ACTIVATIONS`; GELU in the shape that engines recognise."""

        def number(value: float) -> str:
            return self.constant(value, np.float32)

        if name == "gelu":
            inner = self.one("Add", self.one("Erf", self.one("Div", x, number(math.sqrt(2)))), number(1))
            return self.one("Mul", self.one("Mul", x, inner), number(0.5))
        if name in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"):
            cubed = self.one("Mul", self.one("Pow", x, number(3)), number(0.044715))
            inner = self.one("Mul", self.one("Add", x, cubed), number(math.sqrt(2 / math.pi)))
            return self.one("Mul", self.one("Mul", x, number(0.5)), self.one("Add", self.one("Tanh", inner), number(1)))
        if name in ("silu", "swish"):
            return self.one("Mul", x, self.one("Sigmoid", x))
        if name == "relu6":
            return self.one("Clip", x, number(0), number(6))
        return self.one({"relu": "Relu", "tanh": "Tanh"}[name], x)


def _float() -> int:
    from onnx import TensorProto

    return int(TensorProto.FLOAT)
