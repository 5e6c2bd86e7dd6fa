"""The native core, through its C interface: native/include/pocketbert.h, whose functions and structs these are.

Arrays are checked here for what C cannot see, their type and layout; all else is checked by the core. A call waits
without the interpreter lock, so threads compute at the same time; a signal is handled after it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_uint64,
    c_void_p,
    pointer,
)
from functools import cache
from importlib.util import find_spec
from operator import index as whole
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from pocketbert.errors import ConfigError

VERSION = 2  # PB_VERSION
LIBRARY = "_core.pyd" if os.name == "nt" else "_core.so"
ColumnsOf = tuple[int, int, int]  # buffer, start, width
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int32]

_FLOAT32, _INT8, _INT32 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.int32)
_INVALID, _NO_MEMORY = 1, 2
_TOKENS, _SEQUENCES = 0, 1
_char = ctypes.c_char


# ── structs ──


class _Kernels(Structure):
    _fields_: ClassVar = [
        ("name", c_char_p), ("refusal", c_char_p), ("int8_dot", c_char_p), ("bf16_attention", c_int32),
        ("tolerance", c_float), ("attention_tolerance", c_float),
    ]  # fmt: skip


class _Description(Structure):
    _fields_: ClassVar = [("kernels", c_char_p), ("threads", c_int32), ("workspace_bytes", c_int64)]


class _Columns(Structure):
    _fields_: ClassVar = [("buffer", c_int32), ("start", c_int32), ("width", c_int32)]


class _Array(Structure):  # pb_floats, pb_bytes
    _fields_: ClassVar = [("data", c_void_p), ("rows", c_int64), ("width", c_int64)]


class _Lookup(Structure):
    _fields_: ClassVar = [
        ("target", _Columns), ("table", _Array), ("table_s8", _Array), ("scales", _Array), ("index", c_char_p),
        ("add", c_int32), ("uncounted", POINTER(c_int32)),
    ]  # fmt: skip


class _Linear(Structure):
    _fields_: ClassVar = [
        ("source", _Columns), ("target", _Columns), ("residual", POINTER(_Columns)), ("weight", _Array),
        ("weight_s8", _Array), ("scales", _Array), ("outlier_weight", _Array), ("bias", _Array),
        ("residual_scale", _Array), ("groups", c_int32), ("activation", c_char_p),
    ]  # fmt: skip


class _LayerNorm(Structure):
    _fields_: ClassVar = [
        ("source", _Columns), ("target", _Columns), ("weight", _Array), ("bias", _Array), ("eps", c_float),
    ]  # fmt: skip


class _Attention(Structure):
    _fields_: ClassVar = [
        ("query", _Columns), ("key", _Columns), ("value", _Columns), ("target", _Columns), ("heads", c_int32),
        ("bfloat16", c_int32), ("bias", _Array),
    ]  # fmt: skip


class _Gather(Structure):
    _fields_: ClassVar = [("source", _Columns), ("target", _Columns), ("selected", c_int32)]


class _Batch(Structure):
    _fields_: ClassVar = [  # bytes, which are read where they are, for the pointers to integers
        ("ids", c_char_p), ("segments", c_char_p), ("tokens", c_int64), ("starts", c_char_p), ("sequences", c_int64),
        ("selected", c_char_p), ("selected_count", c_int64),
    ]  # fmt: skip


class _Output(Structure):
    _fields_: ClassVar = [("columns", _Columns), ("rows", c_int64), ("data", c_void_p)]


class _Time(Structure):
    _fields_: ClassVar = [("name", c_char_p), ("seconds", c_double)]


class Team(Structure):
    """pb_team: who computes a pass of a training step."""

    _fields_: ClassVar = [("training", c_void_p), ("run", c_void_p), ("threads", c_int32)]


class NormPass(Structure):
    """pb_norm_pass: a norm of a sum, forward or back."""

    _fields_: ClassVar = [
        ("rows", c_int64), ("width", c_int32), ("centres", c_int32), ("dropped", c_int32), ("eps", c_float),
        ("seed", c_uint64), ("wide", c_int32), ("x", c_void_p), ("bias", c_void_p), ("residual", c_void_p),
        ("weight", c_void_p), ("shift", c_void_p), ("out", c_void_p), ("sum", c_void_p), ("stats", c_void_p),
        ("grad_out", c_void_p), ("grad_x", c_void_p), ("grad_residual", c_void_p), ("grad_weight", c_void_p),
        ("grad_shift", c_void_p), ("grad_bias", c_void_p),
    ]  # fmt: skip


class ActivationPass(Structure):
    """pb_activation_pass: an activation, forward or back."""

    _fields_: ClassVar = [
        ("rows", c_int64), ("width", c_int32), ("is_gelu", c_int32), ("x", c_void_p), ("bias", c_void_p),
        ("out", c_void_p), ("grad_out", c_void_p), ("grad_x", c_void_p), ("grad_bias", c_void_p),
    ]  # fmt: skip


class AttentionPass(Structure):
    """pb_attention_pass: attention within examples, forward or back."""

    _fields_: ClassVar = [
        ("examples", c_int64), ("starts", c_void_p), ("keys", c_void_p), ("heads", c_int32), ("depth", c_int32),
        ("dropped", c_int32), ("seed", c_uint64), ("stride", c_int64), ("group_stride", c_int64),
        ("group_heads", c_int32), ("query", c_void_p), ("key", c_void_p), ("value", c_void_p), ("out", c_void_p),
        ("scales", c_void_p), ("grad_out", c_void_p), ("grad_query", c_void_p), ("grad_key", c_void_p),
        ("grad_value", c_void_p),
    ]  # fmt: skip


class DifferencePass(Structure):
    """pb_difference_pass: the difference of normalised rows, with its derivative."""

    _fields_: ClassVar = [
        ("rows", c_int64), ("width", c_int32), ("eps", c_float), ("wide", c_int32), ("own", c_void_p),
        ("other", c_void_p), ("gradient", c_void_p), ("loss", c_void_p),
    ]  # fmt: skip


class AdamwPass(Structure):
    """pb_adamw_pass: a step of AdamW."""

    _fields_: ClassVar = [
        ("count", c_int32), ("sizes", c_void_p), ("gradients", c_void_p), ("weights", c_void_p), ("means", c_void_p),
        ("squares", c_void_p), ("copies", c_void_p), ("rate", c_double), ("decay", c_double), ("beta1", c_double),
        ("beta2", c_double), ("eps", c_double), ("correction1", c_double), ("correction2", c_double),
        ("scale", c_double),
    ]  # fmt: skip


_PARAMETERS: dict[str, list[Any]] = {
    "pb_list_kernels": [POINTER(_Kernels), c_int32, POINTER(c_int32)],
    "pb_find_kernels": [c_char_p, POINTER(_Kernels)],
    "pb_measure_peak": [c_char_p, c_char_p, c_int32, POINTER(c_double)],
    "pb_create": [c_char_p, c_int32, c_int32, POINTER(c_void_p)],
    "pb_describe": [c_void_p, POINTER(_Description)],
    "pb_add_buffer": [c_void_p, c_int32, c_int32, POINTER(c_int32)],
    "pb_add_lookup": [c_void_p, POINTER(_Lookup)],
    "pb_add_linear": [c_void_p, POINTER(_Linear)],
    "pb_add_layer_norm": [c_void_p, POINTER(_LayerNorm)],
    "pb_add_attention": [c_void_p, POINTER(_Attention)],
    "pb_add_gather": [c_void_p, POINTER(_Gather)],
    "pb_rows_of": [c_void_p, POINTER(_Columns), POINTER(c_int32)],
    "pb_run": [c_void_p, POINTER(_Batch), POINTER(_Output), c_int32],
    "pb_take_times": [POINTER(_Time), c_int32, POINTER(c_int32)],
    "pb_find_training": [c_char_p, POINTER(c_void_p)],
    "pb_train_norm": [POINTER(Team), POINTER(NormPass)],
    "pb_train_norm_gradient": [POINTER(Team), POINTER(NormPass)],
    "pb_train_activation": [POINTER(Team), POINTER(ActivationPass)],
    "pb_train_activation_gradient": [POINTER(Team), POINTER(ActivationPass)],
    "pb_train_attention": [POINTER(Team), POINTER(AttentionPass)],
    "pb_train_attention_gradient": [POINTER(Team), POINTER(AttentionPass)],
    "pb_train_difference": [POINTER(Team), POINTER(DifferencePass)],
    "pb_train_adamw": [POINTER(Team), POINTER(AdamwPass)],
    "pb_train_square_sum": [POINTER(Team), POINTER(AdamwPass), POINTER(c_double)],
}


# ── the library ──


def library_path() -> Path | None:
    """The file of the core; None where it was not built. Nothing is loaded."""
    spec = find_spec("pocketbert._core")  # installed for development, it is elsewhere than this file
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(LIBRARY)  # and not an extension module of an earlier version beside it
    return path if path.exists() else Path(spec.origin)


def load(path: Path) -> ctypes.CDLL:
    """Load a library, and declare its functions.

    Raises:
        OSError: the system cannot load it.
        ConfigError: it has another version of the interface.
    """
    core = ctypes.CDLL(str(path))
    version = core.pb_version() if hasattr(core, "pb_version") else 0
    if version != VERSION:
        raise ConfigError(
            f"{path} is of another version of PocketBERT: version {version} of the interface to the native core, where "
            f"this one needs {VERSION}; install PocketBERT again, as a whole (in a source tree: pip install -e .)"
        )
    for name, parameters in _PARAMETERS.items():
        function = getattr(core, name)
        function.argtypes, function.restype = parameters, c_int32
    core.pb_free.argtypes, core.pb_free.restype = [c_void_p], None
    core.pb_message.argtypes, core.pb_message.restype = [], c_char_p
    return core


@cache
def library() -> ctypes.CDLL:
    """The native core of this package; raises as `load` does, and `ModuleNotFoundError` where it was not built."""
    path = library_path()
    if path is None:
        raise ModuleNotFoundError("the native core was not built", name="pocketbert._core")
    return load(path)


def _check(core: ctypes.CDLL, status: int) -> None:
    """Raise what a status other than PB_OK stands for."""
    if status:
        error = {_INVALID: ValueError, _NO_MEMORY: MemoryError}.get(status, RuntimeError)
        raise error(core.pb_message().decode(errors="replace"))


# ── arguments ──


def _number(value: int) -> int:
    """A whole number of 32 bits: ctypes would cut off the others."""
    value = whole(value)
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{value} is beyond 32 bits")
    return value


def _flag(value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither True nor False")
    return value


def _text(value: str) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    if "\0" in value:  # where C would stop reading
        raise ValueError(f"{value!r} has a character 0")
    return value.encode()


def _columns(value: ColumnsOf) -> _Columns:
    buffer, start, width = value
    return _Columns(_number(buffer), _number(start), _number(width))


def _require(array: np.ndarray, dtype: np.dtype[Any], dimensions: int) -> None:
    """Nothing is converted silently."""
    if not (
        isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == dimensions and array.flags.c_contiguous
    ):
        kind = "matrix" if dimensions == 2 else "vector"
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"a contiguous {kind} of {dtype} is needed, not {found}")


def _matrix(array: np.ndarray, dtype: np.dtype[Any] = _FLOAT32) -> _Array:
    _require(array, dtype, 2)
    return _Array(array.ctypes.data, *array.shape)


def _vector(array: np.ndarray) -> _Array:
    _require(array, _FLOAT32, 1)
    return _Array(array.ctypes.data, 1, len(array))


def _integers(array: Ints) -> bytes:
    """A copy: nothing outside sees or changes it while the core reads it."""
    _require(array, _INT32, 1)
    return array.tobytes()


# ── kernels ──


class Capabilities(NamedTuple):
    """Of a set of kernels; tolerances are relative to the largest value of a result."""

    bf16_attention: bool  # attention in bfloat16
    int8_dot: str  # the instruction that multiplies bytes
    tolerance: float  # from the portable kernels
    attention_tolerance: float  # of attention in bfloat16 from exact sums


def _listed() -> list[_Kernels]:
    core, count = library(), c_int32()
    _check(core, core.pb_list_kernels(None, 0, byref(count)))
    sets = (_Kernels * count.value)()
    _check(core, core.pb_list_kernels(sets, len(sets), byref(count)))
    return list(sets)


def available_kernels() -> list[str]:
    """The names of the sets that this processor can run, the fastest first."""
    return [each.name.decode() for each in _listed() if not each.refusal]


def refused_kernels() -> list[tuple[str, str]]:
    """The sets that the processor has instructions for and the system refuses all the same, each with the reason."""
    return [(each.name.decode(), each.refusal.decode()) for each in _listed() if each.refusal]


def capabilities(kernels: str) -> Capabilities:
    """Of the set of this name; raises `ValueError` if it cannot run here. The system is asked about no other set."""
    core, found = library(), _Kernels()
    _check(core, core.pb_find_kernels(_text(kernels), byref(found)))
    return Capabilities(bool(found.bf16_attention), found.int8_dot.decode(), found.tolerance, found.attention_tolerance)


def peak_flops(arithmetic: str, threads: int, kernels: str) -> float | None:
    """Operations per second of multiply-adds in registers, in "fp32", "bf16" or "int8".

    None where the kernels have no instruction for it; raises `ValueError` for what is not there.
    """
    core, rate = library(), c_double()
    _check(core, core.pb_measure_peak(_text(kernels), _text(arithmetic), _number(threads), byref(rate)))
    return rate.value or None


def take_kernel_times() -> list[tuple[str, float]]:
    """Seconds by kind of kernel that timed programs took since the last call."""
    core, times, count = library(), (_Time * 32)(), c_int32()
    _check(core, core.pb_take_times(times, len(times), byref(count)))
    return [(each.name.decode(), each.seconds) for each in times[: count.value]]


# ── training ──

Pass = NormPass | ActivationPass | AttentionPass | DifferencePass | AdamwPass


def find_training(kernels: str) -> int | None:
    """The passes of a training step in bfloat16 that the set of this name has, for a `Team`; None where it has none."""
    found = c_void_p()
    return None if library().pb_find_training(_text(kernels), byref(found)) else found.value


def train(name: str, team: Team, one: Pass) -> None:
    """Run a pass, pb_train_NAME, of arrays that live as long; raises `ValueError` for what makes no sense."""
    core = library()
    _check(core, getattr(core, f"pb_train_{name}")(team, one))


def square_sum(team: Team, one: AdamwPass) -> float:
    """The sum of the squares of the gradients of a step."""
    core, total = library(), c_double()
    _check(core, core.pb_train_square_sum(team, one, byref(total)))
    return total.value


# ── programs ──


class Program:
    """A plan that is built step by step, in the order in which it is run; several threads may use it.

    Every method raises `ValueError` for what makes no sense, before anything changes; `TypeError` for arrays of another
    type, shape or layout than the parameter's; and `MemoryError`.

    Args:
        threads: how many, from 1 to 1024.
        kernels: a name of `available_kernels`; None is the fastest.
        timed: whether its kernels measure themselves, for `take_kernel_times`; such a program has one thread.
    """

    def __init__(self, threads: int, kernels: str | None = None, *, timed: bool = False) -> None:
        self._handle: int | None = None
        self._core = core = library()
        self._tables: list[np.ndarray] = []  # which the core reads where they are
        self._outputs: dict[ColumnsOf, tuple[_Columns, int]] = {}  # that were asked for
        handle = c_void_p()
        name = None if kernels is None else _text(kernels)
        _check(core, core.pb_create(name, _number(threads), timed, byref(handle)))
        self._handle = handle.value

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self._core.pb_free(self._handle)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a program of the native core cannot be pickled or copied")

    @property
    def kernels(self) -> str:
        """The name of its kernels."""
        name: bytes = self._describe().kernels
        return name.decode()

    @property
    def workspace_bytes(self) -> int:
        """The memory that runs keep for later ones: as much as the largest of them needed."""
        return int(self._describe().workspace_bytes)

    def _describe(self) -> _Description:
        description = _Description()
        _check(self._core, self._core.pb_describe(self._handle, byref(description)))
        return description

    def buffer(self, width: int, local: bool) -> int:
        """Add a buffer; its number. A local one lives from one attention or gather to the next."""
        number = c_int32()
        _check(self._core, self._core.pb_add_buffer(self._handle, _number(width), _flag(local), byref(number)))
        return number.value

    def lookup(self, target: ColumnsOf, table: Floats, index: str, add: bool, uncounted: int | None = None) -> None:
        """Add a `plan.Lookup`; the table, [entries, width], must not change any more."""
        self._lookup(_Lookup(_columns(target), table=_matrix(table)), index, add, uncounted)
        self._tables.append(table)

    def lookup_s8(
        self, target: ColumnsOf, table: Bytes, scales: Floats, index: str, add: bool, uncounted: int | None = None
    ) -> None:
        """Add a `plan.Lookup` of an int8 table, [entries, width]; neither it nor its scales, [entries], may change."""
        step = _Lookup(_columns(target), table_s8=_matrix(table, _INT8), scales=_vector(scales))
        self._lookup(step, index, add, uncounted)
        self._tables += [table, scales]

    def _lookup(self, step: _Lookup, index: str, add: bool, uncounted: int | None) -> None:
        step.index, step.add = _text(index), _flag(add)
        if uncounted is not None and _number(uncounted) >= 0:
            step.uncounted = pointer(c_int32(uncounted))
        _check(self._core, self._core.pb_add_lookup(self._handle, byref(step)))

    def linear(
        self, source: ColumnsOf, target: ColumnsOf, weight: Floats, bias: Floats, groups: int, activation: str,
        residual: ColumnsOf | None, residual_scale: Floats | None,
    ) -> None:  # fmt: skip
        """Add a `plan.Linear`: weight [width, source width / groups], bias [width], residual_scale [width]."""
        step = _Linear(_columns(source), _columns(target), weight=_matrix(weight), bias=_vector(bias))
        self._linear(step, groups, activation, residual, residual_scale)

    def linear_s8(
        self, source: ColumnsOf, target: ColumnsOf, weight: Bytes, weight_scales: Floats, bias: Floats, groups: int,
        activation: str, residual: ColumnsOf | None, residual_scale: Floats | None, outlier_weight: Floats | None,
    ) -> None:  # fmt: skip
        """Add a `plan.Linear` in int8: as `linear`, weight_scales [width], outlier_weight like weight."""
        step = _Linear(_columns(source), _columns(target), weight_s8=_matrix(weight, _INT8), bias=_vector(bias))
        step.scales = _vector(weight_scales)
        if outlier_weight is not None:
            step.outlier_weight = _matrix(outlier_weight)
        self._linear(step, groups, activation, residual, residual_scale)

    def _linear(
        self, step: _Linear, groups: int, activation: str, residual: ColumnsOf | None, residual_scale: Floats | None
    ) -> None:
        step.groups, step.activation = _number(groups), _text(activation)
        if residual is not None:
            step.residual = pointer(_columns(residual))
        if residual_scale is not None:
            step.residual_scale = _vector(residual_scale)
        _check(self._core, self._core.pb_add_linear(self._handle, byref(step)))

    def layer_norm(self, source: ColumnsOf, target: ColumnsOf, weight: Floats, bias: Floats, eps: float) -> None:
        """Add a `plan.LayerNorm`: weight and bias [width]."""
        step = _LayerNorm(_columns(source), _columns(target), _vector(weight), _vector(bias), eps)
        _check(self._core, self._core.pb_add_layer_norm(self._handle, byref(step)))

    def attention(
        self, query: ColumnsOf, key: ColumnsOf, value: ColumnsOf, target: ColumnsOf, heads: int, bfloat16: bool,
        bias: Floats | None = None,
    ) -> None:  # fmt: skip
        """Add a `plan.Attention`, in bfloat16 if the kernels have that: bias [heads, 2 * reach + 1]."""
        columns = (_columns(each) for each in (query, key, value, target))
        step = _Attention(*columns, _number(heads), _flag(bfloat16))
        if bias is not None:
            step.bias = _matrix(bias)
        _check(self._core, self._core.pb_add_attention(self._handle, byref(step)))

    def gather(self, source: ColumnsOf, target: ColumnsOf, selected: bool) -> None:
        """Add a `plan.Gather`: of the rows that a run selects, or of the first of every sequence."""
        step = _Gather(_columns(source), _columns(target), _flag(selected))
        _check(self._core, self._core.pb_add_gather(self._handle, byref(step)))

    def run(
        self, ids: Ints, segments: Ints, starts: Ints, outputs: Sequence[ColumnsOf], selected_rows: Ints | None = None
    ) -> list[Floats]:
        """Run the program on a batch; the outputs, [rows, width] each.

        Args:
            ids: of all tokens, the sequences laid end to end, [tokens].
            segments: [tokens].
            starts: where each sequence starts in `ids`, and where the last one ends, [sequences + 1].
            outputs: columns of buffers that are not local.
            selected_rows: numbers of the tokens that a gather takes; None takes all.
        """
        core, tokens, sequences = self._core, len(ids), len(starts) - 1
        batch = _Batch(_integers(ids), _integers(segments), tokens, _integers(starts), sequences)
        if len(segments) != tokens:
            raise ValueError("every token needs a segment")
        if sequences < 0:
            raise ValueError("starts must have one entry more than there are sequences")
        selected = tokens
        if selected_rows is not None:
            batch.selected, batch.selected_count = _integers(selected_rows), len(selected_rows)
            selected = len(selected_rows)
        arrays, places = [], (_Output * len(outputs))()
        for place, columns in zip(places, outputs, strict=True):
            place.columns, rows_of = self._output(columns)
            place.rows = rows = tokens if rows_of == _TOKENS else sequences if rows_of == _SEQUENCES else selected
            array = np.empty((rows, columns[2]), _FLOAT32)
            if array.size:
                place.data = ctypes.addressof(_char.from_buffer(array.data))
            arrays.append(array)
        _check(core, core.pb_run(self._handle, byref(batch), places, len(places)))
        return arrays

    def _output(self, columns: ColumnsOf) -> tuple[_Columns, int]:
        """Columns, and which rows they have: it does not change, once they are written."""
        buffer, start, width = columns
        if (known := self._outputs.get((buffer, start, width))) is not None:
            return known
        place, rows_of = _columns(columns), c_int32()
        _check(self._core, self._core.pb_rows_of(self._handle, byref(place), byref(rows_of)))
        self._outputs[buffer, start, width] = place, rows_of.value
        return place, rows_of.value


def timed_program(kernels: str) -> Program:
    """A program of one thread whose kernels measure themselves, for `take_kernel_times`."""
    return Program(1, kernels, timed=True)
