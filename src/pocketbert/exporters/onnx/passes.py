"""Plans as ONNX Runtime runs them best: the same functions with fewer steps, or with more of them in int8."""

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
LARGEST_FACTOR = 1e6  # beyond, or below its inverse, a factor stays where it is
LARGEST_SPREAD = 40.0  # the largest magnitude over the median, to which int8 then leaves three steps
TOKENS = 2000  # of text are enough to see how a stream spreads
LARGEST_PAIR = 128  # · 255 is the largest that 16 bits hold


def level(plan: Plan) -> Plan:
    """The same plan in floats with bare residual connections, x + f(x), where MobileBERT has x ⊙ w + f(x) + b.

    The factors and the bias wander into the steps that read the sum, so two passes over it are saved a connection.
    The last sum of all is what it was.
    """
    scaled = any(isinstance(step, Linear) and step.residual_scale is not None for step in plan.steps())
    return _Level(plan).level() if scaled else plan


@dataclass
class _Level:
    plan: Plan
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    known: dict[str, Floats] = field(default_factory=dict)  # by buffer, see `state`

    def level(self) -> Plan:
        steps = list(self.plan.steps())
        self.normed = {step.source.buffer for step in steps if isinstance(step, LayerNorm)}
        self.last = {step.target.buffer: step for step in steps}
        self.tensors.update(self.plan.tensors)
        return replace(self.plan.map_steps(self.step), tensors=self.tensors)

    def step(self, step: Step) -> Step:
        if not isinstance(step, Linear):
            return step
        weight, bias = self.read(step)
        target, scale = step.target, step.residual_scale
        factors, offsets = np.ones(target.width), np.zeros(target.width)
        if scale is not None and step.residual is not None:
            before, shift = self.state(step.residual)
            by = self.tensors[scale].astype(np.float64)
            new, bias = by * before, bias + by * shift
            if self.free(step) and np.all((np.abs(new) < LARGEST_FACTOR) & (np.abs(new) > 1 / LARGEST_FACTOR)):
                factors, offsets, scale = new, bias, None
                weight, bias = weight / new[:, None], np.zeros_like(bias)
            else:
                self.tensors[scale] = new.astype(np.float32)
        self.state(target)[:] = factors, offsets
        self.tensors[step.weight], self.tensors[step.bias] = weight.astype(np.float32), bias.astype(np.float32)
        return replace(step, residual_scale=scale)

    def free(self, step: Linear) -> bool:
        """Whether what reads the result can take factors: linear steps can, a norm cannot, nor what ends the model."""
        buffer = step.target.buffer
        return step.residual == step.target and buffer not in self.normed and self.last[buffer] is not step

    def read(self, step: Linear) -> tuple[Floats, Floats]:
        """Weight and bias for what the source is now."""
        weight, (factors, offsets) = self.tensors[step.weight].astype(np.float64), self.state(step.source)
        blocks = weight.reshape(step.groups, -1, weight.shape[1])
        shift = np.einsum("goi,gi->go", blocks, offsets.reshape(step.groups, -1)).reshape(-1)
        return (blocks * factors.reshape(step.groups, 1, -1)).reshape(weight.shape), self.tensors[step.bias] + shift

    def state(self, columns: Columns) -> Floats:
        """[2, width] to read and write: what stands there times the first plus the second is what should."""
        end = columns.start + columns.width
        known = self.known.get(columns.buffer, np.empty((2, 0)))
        if known.shape[1] < end:
            new = np.repeat([[1.0], [0.0]], end - known.shape[1], axis=1)
            known = self.known[columns.buffer] = np.concatenate([known, new], axis=1)
        return known[:, columns.start : end]


def in_int8(plan: Plan, inputs: Sequence[Features]) -> Plan:
    """A plan in floats with its matrices in int8, for an engine that has one scale for all tokens of a batch.

    Args:
        plan: what is to be quantised.
        inputs: show which residual streams can be rounded like that, see `rounded`.
    """
    floats = smooth(level(plan))
    return fitting(rounded(quantize(floats), inputs), floats.tensors)


def fitting(plan: Plan, floats: Mapping[str, np.ndarray] | None = None) -> Plan:
    """The plan with int8 weights whose products with 8 bits without a sign add up in 16 bits, two and two.

    Processors with AVX2 or AVX-512 but without VNNI multiply by an instruction, vpmaddubsw, that adds each product to
    its neighbour's and cuts the sum off at 16 bits. So has what browsers make of WebAssembly's relaxed SIMD. A row in
    which two neighbours, 0 and 1, 2 and 3, and so on, are more than `LARGEST_PAIR` together gets a larger scale. That
    costs its weights a third of a bit or so, and none of the processors its fast instruction: uint8 weights, which ONNX
    Runtime also multiplies without loss, miss VNNI and AMX since its version 1.20, and take twice the instructions.

    Args:
        plan: with some of its matrices in int8.
        floats: what these were before, by name; without them, int8 is rounded once more.
    """
    tensors = dict(plan.tensors)
    for step in plan.steps():
        if not isinstance(step, Linear) or step.scales is None or step.outlier_weight is not None:
            continue
        weight, scales = tensors[step.weight], tensors[step.scales]
        beyond = _largest_pair(weight) > LARGEST_PAIR
        before = floats[step.weight.removesuffix(".int8")] if floats is not None else weight * scales[:, None]
        wide = before[beyond]  # [rows, C]
        # One less than there is room for, as two numbers may both be rounded up.
        new = np.maximum(_largest_pair(wide) / (LARGEST_PAIR - 1), np.abs(wide).max(axis=1) / 127).astype(np.float32)
        tensors[step.weight], tensors[step.scales] = weight.copy(), scales.copy()
        tensors[step.weight][beyond] = np.rint(wide / new[:, None])
        tensors[step.scales][beyond] = new
    return replace(plan, tensors=tensors)


def _largest_pair(weight: np.ndarray) -> Floats:
    """[C'], of each row of a matrix [C', C] the largest magnitude of a sum of two neighbours."""
    even = weight.shape[1] // 2 * 2  # the last of an odd number stands alone
    sums = weight[:, :even:2].astype(np.float32) + weight[:, 1:even:2]
    return np.abs(sums).max(axis=1, initial=0.0)


def rounded(plan: Plan, inputs: Sequence[Features]) -> Plan:
    """Without the `outlier_weight`s where no value of these inputs stands out by more than `LARGEST_SPREAD`.

    In published MobileBERTs some do, by orders of magnitude; the steps that meet them keep fp32 and lose int8.
    """
    spread: dict[str, float] = {}

    def observe(step: Linear, source: Floats) -> None:
        if step.outlier_weight is not None:
            x = np.abs(source)
            spread[step.outlier_weight] = float(x.max() / max(np.median(x), 1e-30))

    def plain(step: Step) -> Step:
        if not isinstance(step, Linear) or step.outlier_weight is None or spread[step.outlier_weight] > LARGEST_SPREAD:
            return step
        return replace(step, outlier_weight=None)

    if all(step.outlier_weight is None for step in plan.linear_steps()):
        return plan
    lengths = np.cumsum([len(one) for one in inputs])
    few = inputs[: max(1, int(np.searchsorted(lengths, TOKENS)))]
    ids, segments = (np.concatenate([getattr(x, name) for x in few]) for name in ("input_ids", "token_type_ids"))
    reference.run(plan, ids, segments, np.cumsum([0, *map(len, few)]), observe=observe)
    return plan.map_steps(plain)
