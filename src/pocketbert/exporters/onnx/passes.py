"""Rewrites plans for ONNX Runtime: the same functions in fewer steps, or with more of them in int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pocketbert.features import Features
from pocketbert.runtime import reference
from pocketbert.runtime.plan import Columns, LayerNorm, Linear, Plan, Step
from pocketbert.runtime.quantize import quantize
from pocketbert.runtime.smoothing import smooth

Floats = npt.NDArray[np.floating]
LARGEST_FACTOR = 1e6  # a factor beyond it, or below its inverse, stays in its residual connection
LARGEST_SPREAD = 40.0  # of the largest magnitude over the median, which int8 then represents by three steps
TOKENS = 2000  # of text suffice to estimate the spread of a residual stream
LARGEST_PAIR = 128  # magnitude of a sum of two int8 weights; its product with 255 is the largest that fits into 16 bits


def fold_residual_scales(plan: Plan) -> Plan:
    """The same fp32 plan with plain residual connections, x + f(x), where MobileBERT has x ⊙ w + f(x) + b.

    Factors and biases move into the steps that read the sum, which saves two passes over it per connection. The last
    sum of the model keeps its own.
    """
    scaled = any(step.residual_scale is not None for step in plan.linear_steps())
    return _ResidualFolding(plan).folded() if scaled else plan


@dataclass
class _ResidualFolding:
    """State of one pass over a plan: what each column of a buffer is to be multiplied by and increased by."""

    plan: Plan
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    affine: dict[str, Floats] = field(default_factory=dict)  # by buffer, see `affine_of`

    def folded(self) -> Plan:
        steps = list(self.plan.steps())
        self.normalized = {step.source.buffer for step in steps if isinstance(step, LayerNorm)}
        self.last = {step.target.buffer: step for step in steps}
        self.tensors.update(self.plan.tensors)
        return replace(self.plan.map_steps(self.step), tensors=self.tensors)

    def step(self, step: Step) -> Step:
        if not isinstance(step, Linear):
            return step
        weight, bias = self.absorb(step)
        target, scale = step.target, step.residual_scale
        factors, offsets = np.ones(target.width), np.zeros(target.width)
        if scale is not None and step.residual is not None:
            before, shift = self.affine_of(step.residual)
            by = self.tensors[scale].astype(np.float64)
            new, bias = by * before, bias + by * shift
            if self.can_move(step) and np.all((np.abs(new) < LARGEST_FACTOR) & (np.abs(new) > 1 / LARGEST_FACTOR)):
                factors, offsets, scale = new, bias, None
                weight, bias = weight / new[:, None], np.zeros_like(bias)
            else:
                self.tensors[scale] = new.astype(np.float32)
        self.affine_of(target)[:] = factors, offsets
        self.tensors[step.weight], self.tensors[step.bias] = weight.astype(np.float32), bias.astype(np.float32)
        return replace(step, residual_scale=scale)

    def can_move(self, step: Linear) -> bool:
        """Whether the readers of a sum can absorb its factors: linear steps can; a norm and an output cannot."""
        buffer = step.target.buffer
        return step.residual == step.target and buffer not in self.normalized and self.last[buffer] is not step

    def absorb(self, step: Linear) -> tuple[Floats, Floats]:
        """The weight and bias of a step after those factors and offsets of its source that moved into it."""
        weight, (factors, offsets) = self.tensors[step.weight].astype(np.float64), self.affine_of(step.source)
        blocks = weight.reshape(step.groups, -1, weight.shape[1])
        shift = np.einsum("goi,gi->go", blocks, offsets.reshape(step.groups, -1)).reshape(-1)
        return (blocks * factors.reshape(step.groups, 1, -1)).reshape(weight.shape), self.tensors[step.bias] + shift

    def affine_of(self, columns: Columns) -> Floats:
        """[2, width], a view: the original value of a column is its new value times the first row plus the second."""
        end = columns.start + columns.width
        known = self.affine.get(columns.buffer, np.empty((2, 0)))
        if known.shape[1] < end:
            new = np.repeat([[1.0], [0.0]], end - known.shape[1], axis=1)
            known = self.affine[columns.buffer] = np.concatenate([known, new], axis=1)
        return known[:, columns.start : end]


def quantize_for_onnx(plan: Plan, inputs: Sequence[Features]) -> Plan:
    """An fp32 plan with its matrices in int8, for an engine with one activation scale for all tokens of a batch.

    Args:
        plan: to quantize.
        inputs: to find residual streams without outliers on, see `drop_outlier_weights`.
    """
    floats = smooth(fold_residual_scales(plan))
    return avoid_int16_saturation(drop_outlier_weights(quantize(floats), inputs), floats.tensors)


def avoid_int16_saturation(plan: Plan, floats: Mapping[str, np.ndarray] | None = None) -> Plan:
    """The plan with int8 weights whose products with unsigned 8-bit numbers fit into 16 bits when added in pairs.

    Processors with AVX2 or AVX-512 but without VNNI multiply by an instruction, vpmaddubsw, that adds each product to
    its neighbour's and saturates at 16 bits. So do browsers with WebAssembly's relaxed SIMD. A row in which two
    neighbours, 0 and 1, 2 and 3, and so on, are more than `LARGEST_PAIR` together gets a larger scale. That costs its
    weights about a third of a bit, and no processor its fast instruction: uint8 weights, which ONNX Runtime also
    multiplies without loss, do not use VNNI and AMX since its version 1.20, and take twice the instructions.

    Args:
        plan: with some of its matrices in int8.
        floats: their fp32 values by name [default: int8 values are rounded once more].
    """
    tensors = dict(plan.tensors)
    for step in plan.linear_steps():
        if step.scales is None or step.outlier_weight is not None:
            continue
        weight, scales = tensors[step.weight], tensors[step.scales]
        saturating = _largest_pair(weight) > LARGEST_PAIR
        before = floats[step.weight.removesuffix(".int8")] if floats is not None else weight * scales[:, None]
        rows = before[saturating]  # [rows, C]
        # One less than there is room for, as two numbers may both be rounded up.
        new = np.maximum(_largest_pair(rows) / (LARGEST_PAIR - 1), np.abs(rows).max(axis=1) / 127).astype(np.float32)
        tensors[step.weight], tensors[step.scales] = weight.copy(), scales.copy()
        tensors[step.weight][saturating] = np.rint(rows / new[:, None])
        tensors[step.scales][saturating] = new
    return replace(plan, tensors=tensors)


def _largest_pair(weight: np.ndarray) -> Floats:
    """[C'], for each row of a matrix [C', C] the largest magnitude of a sum of two neighbours."""
    even = weight.shape[1] // 2 * 2  # the last of an odd number has no neighbour
    sums = weight[:, :even:2].astype(np.float32) + weight[:, 1:even:2]
    return np.abs(sums).max(axis=1, initial=0.0)


def drop_outlier_weights(plan: Plan, inputs: Sequence[Features]) -> Plan:
    """The plan without `outlier_weight`s where no value of these inputs exceeds the median `LARGEST_SPREAD` times.

    In published MobileBERTs some exceed it by orders of magnitude; the steps that read them stay in fp32 and have no
    int8 weights in the graph.
    """
    spread: dict[str, float] = {}

    def observe(step: Linear, source: Floats) -> None:
        if step.outlier_weight is not None:
            x = np.abs(source)
            spread[step.outlier_weight] = float(x.max() / max(np.median(x), 1e-30))

    def without_outliers(step: Step) -> Step:
        if not isinstance(step, Linear) or step.outlier_weight is None or spread[step.outlier_weight] > LARGEST_SPREAD:
            return step
        return replace(step, outlier_weight=None)

    if all(step.outlier_weight is None for step in plan.linear_steps()):
        return plan
    ends = np.cumsum([len(features) for features in inputs])
    few = inputs[: max(1, int(np.searchsorted(ends, TOKENS)))]
    ids, segments = (np.concatenate([getattr(x, name) for x in few]) for name in ("input_ids", "token_type_ids"))
    reference.run(plan, ids, segments, np.cumsum([0, *map(len, few)]), observe=observe)
    return plan.map_steps(without_outliers)
