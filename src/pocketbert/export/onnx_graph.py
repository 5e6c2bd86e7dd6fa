"""A plan as an ONNX graph: standard operators only, any batch, any length, no PyTorch.

Rows are tokens of the whole batch, padding among them: [batch · length, width]. A row program is then a chain of two
dimensional products, which ONNX Runtime packs and fuses with what follows, and only attention knows of sequences. What
is block-diagonal is one product a group; two such steps in a row hand over group by group, with nothing in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pocketbert import __version__
from pocketbert.runtime.plan import Attention, Columns, LayerNorm, Linear, Lookup, Pick, Plan, Rows

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # of the same time: what reads this opset reads this
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Form = Literal["split", "batched"]
LARGEST_HALF = 65504.0


def onnx_graph(plan: Plan, *, half: bool = False, choices: bool = False, form: Form = "split") -> Any:
    """The `onnx.ModelProto` that computes what a plan computes.

    Its inputs are int64 `input_ids`, `attention_mask` and `token_type_ids`, [batch, length] each; outputs have the
    plan's names, in fp32. Beyond the end of a sequence, where the mask is 0, outputs mean nothing, and nothing of them
    reaches a token: neither attention nor neighbours.

    Steps of the plan that are in int8 stay so: what they read is rounded while it runs, a tensor by one scale, which
    is what ONNX Runtime has kernels for. A step with `exact` weights takes these alone.

    Args:
        plan: in fp32, or in int8 as `runtime.quantize.quantize` makes it.
        half: keep matrices in fp16, which engines widen when they load them; nothing is computed in it.
        choices: inputs are [batch, choices, length] and `logits` [batch, choices].
        form: of block-diagonal products: one a group, or a single batched one, which OpenVINO runs better.
    """
    return _Graph(plan, half, choices, form).model()


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
    form: Form
    nodes: list[Any] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)
    buffers: dict[str, dict[int, _View]] = field(default_factory=dict)  # name → first column → what is there
    made: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)  # what was computed once already

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

    def value(self, view: _View) -> str:
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
        self.shape = self.one("Shape", self.ids)  # [batch, length]
        for stage in self.plan.stages:
            if isinstance(stage, Attention):
                self.attention(stage)
            elif isinstance(stage, Pick):
                self.pick(stage)
            else:
                self.rows(stage)
        outputs = [self.output(name, place) for name, place in self.plan.outputs.items()]
        graph = helper.make_graph(self.nodes, "pocketbert", inputs, outputs, list(self.tensors.values()))
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
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
        """Give a value its name, and a row a token its sequences back."""
        from onnx import TensorProto, helper

        columns = place if isinstance(place, Columns) else place[0]
        axes: list[str | int]
        pick = self.plan.pick
        if self.choices:
            axes, shape = (
                ["batch", "choices"],
                self.one("Slice", self.one("Shape", INPUTS[0]), *map(self.constant, ([0], [2]))),
            )
        elif name in self.plan.picked and pick is not None and not pick.asked:
            axes, shape = ["batch", columns.width], self.constant([-1, columns.width])
        else:
            axes, shape = ["batch", "length", columns.width], self.sequences(columns.width)
        value = self.one("Reshape", self.read(columns), shape)
        if not isinstance(place, Columns):
            value, axes = self.one("Gather", value, self.constant(place[1]), axis=-1), axes[:-1]
        self.nodes.append(helper.make_node("Identity", [value], [name], name))
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)

    def sequences(self, *after: int) -> str:
        """The shape [batch, length, *after]."""
        return self.one("Concat", self.shape, self.constant(list(after)), axis=0)

    # ── steps ──

    def lookup(self, step: Lookup) -> None:
        found = self.looked_up(step)
        if step.index in ("next word", "previous word"):
            found = self.neighbours(found, step)
        self.write(step.target, self.one("Add", self.read(step.target), found) if step.add else found)

    def looked_up(self, step: Lookup) -> str:
        table = self.plan.tensors[step.table]
        flat = self.constant([-1])
        if step.index == "position":
            length = self.one("Gather", self.shape, self.constant(1), axis=0)
            numbers = self.one("Range", self.constant(0), length, self.constant(1))
            index = self.one("Reshape", self.one("Expand", numbers, self.shape), flat)
        else:
            index = self.one("Reshape", self.segments if step.index == "segment" else self.ids, flat)
        if step.scales is None:
            return self.one("Gather", self.matrix(step.table, table), index, axis=0)
        scales = self.tensor(f"{step.scales} [rows, 1]", self.plan.tensors[step.scales][:, None])
        whole = self.one("Cast", self.one("Gather", self.tensor(step.table, table), index, axis=0), to=_float())
        return self.one("Mul", whole, self.one("Gather", scales, index, axis=0))

    def neighbours(self, words: str, step: Lookup) -> str:
        """The words one further on or back; zeros beyond the ends of a sequence."""
        width = step.target.width
        known = self.one("Unsqueeze", self.one("Cast", self.mask, to=_float()), self.constant([-1]))
        known = self.one("Mul", self.one("Reshape", words, self.sequences(width)), known)
        padded = self.one("Pad", known, self.constant([0, 1, 0, 0, 1, 0]))
        bounds = ([2], [np.iinfo(np.int64).max]) if step.index == "next word" else ([0], [-2])
        moved = self.one("Slice", padded, *map(self.constant, bounds), self.constant([1]))
        return self.one("Reshape", moved, self.constant([-1, width]))

    def linear(self, step: Linear) -> None:
        width = step.source.width // step.groups
        sources = [Columns(step.source.buffer, width, step.source.start + g * width) for g in range(step.groups)]
        if step.groups > 1 and self.form == "batched" and step.scales is None:
            values = [self.batched(step)]
        else:
            values = [self.product(step, g, self.read(source)) for g, source in enumerate(sources)]
        if step.activation is not None:
            values = [self.activation(step.activation, value) for value in values]
        if step.residual is not None:
            whole = values[0] if len(values) == 1 else self.one("Concat", *values, axis=-1)
            values = [self.one("Add", whole, self.residual(step, step.residual))]
        self.write(step.target, *values)

    def residual(self, step: Linear, residual: Columns) -> str:
        value = self.read(residual)
        return value if step.residual_scale is None else self.one("Mul", value, self.vector(step.residual_scale))

    def product(self, step: Linear, group: int, x: str) -> str:
        """One block of the matrix: source · blockᵀ + bias."""
        tensors, name = self.plan.tensors, f", {group}" if step.groups > 1 else ""
        int8 = step.scales is not None and step.exact is None
        weight = tensors[step.weight if step.exact is None else step.exact]
        rows = slice(group * (height := len(weight) // step.groups), (group + 1) * height)
        bias = self.tensor(f"{step.bias}{name}", tensors[step.bias][rows])
        if not int8:
            matrix = self.matrix(f"{step.exact or step.weight}{name}", weight[rows])
            return self.one("Gemm", x, matrix, bias, transB=1)
        assert step.scales is not None
        tied = any(isinstance(s, Lookup) and s.table == step.weight for s in self.steps())
        block = (
            self.one("Transpose", self.tensor(step.weight, weight), perm=[1, 0])
            if tied
            else self.tensor(f"{step.weight}{name} [in, out]", weight[rows].T)
        )
        scales = self.tensor(f"{step.scales}{name}", tensors[step.scales][rows])
        rounded, scale, zero = self.op("DynamicQuantizeLinear", x, outputs=3)
        sums = self.one("Cast", self.one("MatMulInteger", rounded, block, zero), to=_float())
        return self.one("Add", self.one("Mul", sums, self.one("Mul", scale, scales)), bias)

    def steps(self) -> Iterator[Any]:
        return (step for stage in self.plan.stages if isinstance(stage, Rows) for step in stage.steps)

    def batched(self, step: Linear) -> str:
        """All blocks at once: [groups, rows, C/G] · [groups, C/G, C'/G]."""
        weight = self.plan.tensors[step.weight]
        blocks = weight.reshape(step.groups, -1, weight.shape[1]).transpose(0, 2, 1)
        rows = self.one("Reshape", self.read(step.source), self.constant([-1, step.groups, weight.shape[1]]))
        rows = self.one("Transpose", rows, perm=[1, 0, 2])
        products = self.one("MatMul", rows, self.matrix(f"{step.weight} [groups, in, out]", blocks))
        together = self.one(
            "Reshape", self.one("Transpose", products, perm=[1, 0, 2]), self.constant([-1, len(weight)])
        )
        return self.one("Add", together, self.vector(step.bias))

    def norm(self, step: LayerNorm) -> None:
        weight, bias = self.vector(step.weight), self.vector(step.bias)
        self.write(
            step.target,
            self.one("LayerNormalization", self.read(step.source), weight, bias, axis=-1, epsilon=step.eps),
        )

    def attention(self, stage: Attention) -> None:
        each = stage.query.width // stage.heads
        heads = self.sequences(stage.heads, each)

        def parts(columns: Columns, *order: int) -> str:
            return self.one("Transpose", self.one("Reshape", self.read(columns), heads), perm=list(order))

        query, key, value = parts(stage.query, 0, 2, 1, 3), parts(stage.key, 0, 2, 3, 1), parts(stage.value, 0, 2, 1, 3)
        scores = self.one("Add", self.one("MatMul", query, key), self.hidden_tokens())  # [batch, heads, length, length]
        context = self.one("MatMul", self.one("Softmax", scores, axis=-1), value)
        rows = self.constant([-1, stage.target.width])
        self.write(stage.target, self.one("Reshape", self.one("Transpose", context, perm=[0, 2, 1, 3]), rows))

    def hidden_tokens(self) -> str:
        """[batch, 1, 1, length]: 0 at tokens, the least number elsewhere."""
        known = self.one("Cast", self.one("Unsqueeze", self.mask, self.constant([1, 2])), to=_float())
        unknown = self.one("Sub", known, self.constant(1, np.float32))
        return self.one("Mul", unknown, self.constant(np.finfo(np.float32).max, np.float32))

    def pick(self, stage: Pick) -> None:
        value = self.read(stage.source)
        if not stage.asked:  # the first of every sequence; else all of them
            sequences = self.one("Reshape", value, self.sequences(stage.source.width))
            value = self.one("Gather", sequences, self.constant(0), axis=1)
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
