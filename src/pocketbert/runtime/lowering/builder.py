"""The builder of plans: takes the tensors of a checkpoint, checked, and collects stages, steps and tensors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.errors import CheckpointError
from pocketbert.families.family import Family
from pocketbert.runtime.plan import (
    Attention,
    Columns,
    Gather,
    Index,
    LayerNorm,
    Linear,
    Lookup,
    Plan,
    Rows,
    Stage,
    Step,
)

logger = logging.getLogger("pocketbert")
_NAMED = 8  # tensors in one message

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Int8:
    """A matrix whose row c is whole[c] · scales[c]."""

    whole: npt.NDArray[np.int8]
    scales: Array


Matrix = Array | Int8
Affine = tuple[Matrix, Array]  # weight and bias of a map of rows


def scaled(matrix: Matrix, factors: Array | float) -> Matrix:
    """The rows of `matrix`, each multiplied by its own factor, or all by one."""
    if isinstance(matrix, Int8):
        return Int8(matrix.whole, matrix.scales * factors)
    return np.multiply(matrix, np.asarray(factors)[..., None], dtype=np.float64)


def stacked(matrices: list[Matrix]) -> Matrix:
    """The rows of all `matrices`, one matrix below the other; int8 if all of them are."""
    if all(isinstance(matrix, Int8) for matrix in matrices):
        int8 = [matrix for matrix in matrices if isinstance(matrix, Int8)]
        return Int8(np.concatenate([m.whole for m in int8]), np.concatenate([m.scales for m in int8]))
    return np.concatenate([widened(matrix) if isinstance(matrix, Int8) else matrix for matrix in matrices])


def widened(matrix: Matrix) -> Array:
    """The matrix in float64, for products."""
    if isinstance(matrix, Int8):
        return np.multiply(matrix.whole, matrix.scales[:, None], dtype=np.float64)
    return matrix.astype(np.float64)


def composed(outer: Affine, inner: Affine) -> Affine:
    """The affine map that applies `inner`, then `outer`."""
    weight = widened(outer[0])
    return weight @ widened(inner[0]), weight @ inner[1] + outer[1]


@dataclass
class Builder:
    """Collects the stages and tensors of a plan; returns the tensors of a checkpoint, checked.

    It keeps none of the checkpoint's tensors, which may be read one by one.
    """

    family: Family
    names: Mapping[str, str]  # the names without the encoder's prefix → those of the checkpoint
    checkpoint: Mapping[str, np.ndarray]
    head: str
    stages: list[Stage] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    stacked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    # ── reading the checkpoint ──

    def tensor(self, name: str, *shape: int) -> Array:
        """The tensor `name` in float64, which must have this shape and not be int8."""
        tensor = self.take(name, shape)
        if tensor.dtype == np.int8:
            raise CheckpointError(f"does not fit this model: it has {name} in int8, which only matrices can be")
        return tensor.astype(np.float64)

    def take(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
        """The tensor `name` in the type that it has, which must have this shape."""
        self.require(name)
        tensor = self.checkpoint[self.names[name]]
        self.used.add(name)
        if tensor.shape != shape:
            raise CheckpointError(
                f"does not fit this model: it has {name} of shape {list(tensor.shape)}, expected {list(shape)}"
            )
        return tensor

    def matrix(self, name: str, out: int, into: int, *kernel: int, transposed: bool = False) -> Matrix:
        """The matrix `name`, in int8 if the checkpoint's is.

        It is stored as [out, into], of a convolution as [out, into, *kernel] with sizes of 1; or `transposed`, as
        [into, out].
        """
        tensor: npt.NDArray[Any] = self.take(name, (into, out) if transposed else (out, into, *kernel))
        tensor = tensor.T if transposed else tensor.reshape(out, into)
        if tensor.dtype != np.int8:
            return tensor if tensor.dtype.kind == "f" else tensor.astype(np.float64)
        scales = self.tensor(f"{name}_scale", out)
        if not (np.isfinite(scales).all() and scales.min() > 0):
            raise CheckpointError(f"is damaged: {name}_scale contains values that are not positive numbers")
        return Int8(tensor, scales)

    def dense(self, name: str, out: int, into: int, *kernel: int) -> Affine:
        """Weight and bias of the linear layer `name`, or of a convolution; see `matrix`."""
        self.require(f"{name}.weight", f"{name}.bias")
        return self.matrix(f"{name}.weight", out, into, *kernel), self.tensor(f"{name}.bias", out)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this tensor."""
        return name in self.names

    def require(self, *names: str) -> None:
        """Raise `CheckpointError` if the checkpoint lacks one of these tensors."""
        missing = sorted(set(names) - self.names.keys())
        if not missing:
            return
        if not all(map(self.family.is_optional, missing)):
            raise CheckpointError(f"does not fit this model: it lacks {', '.join(missing)}")
        raise CheckpointError(
            f"lacks {', '.join(missing)}, so the outputs would be random: use a checkpoint that was fine-tuned for "
            f"this task (a …{self.head})"
        )

    def refuse_unused(self) -> None:
        """Raise `CheckpointError` for tensors that no step uses, except other heads' and idle ones."""
        unused = [name for name in sorted(self.names.keys() - self.used) if not self.family.is_optional(name)]
        if unknown := [name for name in unused if not self.family.is_idle(name)]:
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            raise CheckpointError(f"does not fit this model: it has {', '.join(unknown[:_NAMED])}{more}")
        if left := [name for name in unused if self.family.is_left_by_training(name)]:
            logger.warning("ignoring tensors of the training state in the checkpoint: %s", ", ".join(left))

    # ── writing the plan ──

    def keep(self, name: str, tensor: Array) -> str:
        """Add a tensor to the plan in fp32; returns its name."""
        self.tensors[name] = np.ascontiguousarray(tensor, np.float32)
        return name

    def keep_matrix(self, name: str, matrix: Matrix) -> tuple[str, str | None]:
        """Add a matrix to the plan; returns its name and that of its scales, if it is in int8."""
        if not isinstance(matrix, Int8):
            return self.keep(name, matrix), None
        self.tensors[name] = np.ascontiguousarray(matrix.whole)
        return name, self.keep(f"{name}.scales", matrix.scales)

    def lookup(
        self,
        target: Columns,
        table: str,
        values: Matrix,
        index: Index,
        *,
        add: bool = False,
        uncounted: int | None = None,
    ) -> None:
        """Add a `Lookup` in `values`, which the plan calls `table`.

        A model with one segment has it for both texts of a pair.
        """
        if index == "segment" and len(values.whole if isinstance(values, Int8) else values) == 1:
            values = stacked([values, values])
        name, scales = self.keep_matrix(table, values)
        self.steps.append(Lookup(target, name, index, add, scales, uncounted))

    def linear(
        self,
        source: Columns,
        target: Columns,
        name: str,
        weight: Matrix,
        bias: Array,
        *,
        groups: int = 1,
        activation: str | None = None,
        residual: Columns | None = None,
        residual_scale: Array | None = None,
    ) -> None:
        """Add a `Linear`; its tensors in the plan are `name.weight`, `name.bias` and so on."""
        scale = None if residual_scale is None else self.keep(f"{name}.residual_scale", residual_scale)
        weight_name, scales = self.keep_matrix(f"{name}.weight", weight)
        bias_name = self.keep(f"{name}.bias", bias)
        step = Linear(source, target, weight_name, bias_name, scales, None, groups, activation, residual, scale)
        self.steps.append(step)

    def stacked_linear(self, source: Columns, target: Columns, name: str, parts: Mapping[str, Affine]) -> None:
        """Add one `Linear` for several layers that read the same: by their names, in the order of their columns.

        Their matrices may be scaled by rows, and nothing else, so that each could be int8 in the checkpoint.
        """
        weights, biases = zip(*parts.values(), strict=True)
        self.stacked[f"{name}.weight"] = tuple(f"{part}.weight" for part in parts)
        self.linear(source, target, name, stacked(list(weights)), np.concatenate(biases))

    def norm(self, source: Columns, target: Columns, name: str, eps: float) -> None:
        """Add a `LayerNorm` with the checkpoint's `name.weight` and `name.bias`."""
        weight = self.keep(f"{name}.weight", self.tensor(f"{name}.weight", source.width))
        bias = self.keep(f"{name}.bias", self.tensor(f"{name}.bias", source.width))
        self.steps.append(LayerNorm(source, target, weight, bias, eps))

    def attention(
        self,
        query: Columns,
        key: Columns,
        value: Columns,
        target: Columns,
        heads: int,
        *,
        bias: str | None = None,
    ) -> None:
        """Add an `Attention` stage; `bias` is a tensor that the plan has already."""
        self._end_rows()
        self.stages.append(Attention(query, key, value, target, heads, bias=bias))

    def gather(self, source: Columns, target: Columns, *, selected: bool = False) -> None:
        """Add a `Gather` stage."""
        self._end_rows()
        self.stages.append(Gather(source, target, selected))

    def plan(self, outputs: Mapping[str, Columns | tuple[Columns, int]], max_tokens: int) -> Plan:
        """The finished plan; raises `CheckpointError` if the checkpoint has tensors that it does not use."""
        self._end_rows()
        self.refuse_unused()
        return Plan(tuple(self.stages), self.tensors, outputs, max_tokens, self.stacked)

    def _end_rows(self) -> None:
        if self.steps:
            self.stages.append(Rows(tuple(self.steps)))
            self.steps.clear()
