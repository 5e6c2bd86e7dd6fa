"""The native core; see native/bindings.cpp."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Place = tuple[int, int, int]  # buffer, start, width
_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int32]

def available_kernels() -> list[str]: ...
def limit(arithmetic: str, threads: int, kernels: str) -> float | None: ...

class Program:
    def __init__(self, threads: int, kernels: str | None = None) -> None: ...
    @property
    def kernels(self) -> str: ...
    @property
    def workspace_bytes(self) -> int: ...
    def buffer(self, width: int, local: bool) -> int: ...
    def lookup(self, target: _Place, table: _Floats, index: str, add: bool) -> None: ...
    def lookup_s8(
        self, target: _Place, table: npt.NDArray[np.int8], table_scales: _Floats, index: str, add: bool
    ) -> None: ...
    def linear(
        self,
        source: _Place,
        target: _Place,
        weight: _Floats,
        bias: _Floats,
        groups: int,
        activation: str,
        residual: _Place | None,
        residual_scale: _Floats | None,
    ) -> None: ...
    def linear_s8(
        self,
        source: _Place,
        target: _Place,
        weight: npt.NDArray[np.int8],
        weight_scales: _Floats,
        bias: _Floats,
        groups: int,
        activation: str,
        residual: _Place | None,
        residual_scale: _Floats | None,
        exact: _Floats | None,
    ) -> None: ...
    def layer_norm(self, source: _Place, target: _Place, weight: _Floats, bias: _Floats, eps: float) -> None: ...
    def attention(
        self, query: _Place, key: _Place, value: _Place, target: _Place, heads: int, bfloat16: bool
    ) -> None: ...
    def pick(self, source: _Place, target: _Place, asked: bool) -> None: ...
    def run(
        self, ids: _Ints, segments: _Ints, starts: _Ints, outputs: Sequence[_Place], asked: _Ints | None = None
    ) -> list[_Floats]: ...
