"""The native core; see native/bindings.cpp."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Columns = tuple[int, int, int]  # buffer, start, width
_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int32]

def available_kernels() -> list[str]: ...
def refused_kernels() -> list[tuple[str, str]]: ...
def capabilities(kernels: str) -> Capabilities: ...
def timed_program(kernels: str) -> Program: ...
def take_kernel_times() -> list[tuple[str, float]]: ...
def peak_flops(arithmetic: str, threads: int, kernels: str) -> float | None: ...

class Capabilities:  # of a set of kernels; tolerances are relative to the largest value of a result
    @property
    def bf16_attention(self) -> bool: ...
    @property
    def int8_dot(self) -> str: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def attention_tolerance(self) -> float: ...

class Program:
    def __init__(self, threads: int, kernels: str | None = None) -> None: ...
    @property
    def kernels(self) -> str: ...
    @property
    def workspace_bytes(self) -> int: ...
    def buffer(self, width: int, local: bool) -> int: ...
    def lookup(self, target: _Columns, table: _Floats, index: str, add: bool, uncounted: int | None = None) -> None: ...
    def lookup_s8(
        self,
        target: _Columns,
        table: npt.NDArray[np.int8],
        table_scales: _Floats,
        index: str,
        add: bool,
        uncounted: int | None = None,
    ) -> None: ...
    def linear(
        self,
        source: _Columns,
        target: _Columns,
        weight: _Floats,
        bias: _Floats,
        groups: int,
        activation: str,
        residual: _Columns | None,
        residual_scale: _Floats | None,
    ) -> None: ...
    def linear_s8(
        self,
        source: _Columns,
        target: _Columns,
        weight: npt.NDArray[np.int8],
        weight_scales: _Floats,
        bias: _Floats,
        groups: int,
        activation: str,
        residual: _Columns | None,
        residual_scale: _Floats | None,
        outlier_weight: _Floats | None,
    ) -> None: ...
    def layer_norm(self, source: _Columns, target: _Columns, weight: _Floats, bias: _Floats, eps: float) -> None: ...
    def attention(
        self,
        query: _Columns,
        key: _Columns,
        value: _Columns,
        target: _Columns,
        heads: int,
        bfloat16: bool,
        bias: _Floats | None = None,
    ) -> None: ...
    def gather(self, source: _Columns, target: _Columns, selected: bool) -> None: ...
    def run(
        self,
        ids: _Ints,
        segments: _Ints,
        starts: _Ints,
        outputs: Sequence[_Columns],
        selected_rows: _Ints | None = None,
    ) -> list[_Floats]: ...
