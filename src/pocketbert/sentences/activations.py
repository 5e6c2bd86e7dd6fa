"""Activation functions by their PyTorch names, for dense layers and the scores of cross encoders. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.decode import sigmoid

Floats = NDArray[np.floating[Any]]
Activation = Callable[[Floats], Floats]


def _erf(x: Floats) -> Floats:
    return np.asarray([math.erf(value) for value in x.ravel().tolist()], dtype=x.dtype).reshape(x.shape)


def _softplus(x: Floats) -> Floats:
    return np.asarray(np.logaddexp(x, x.dtype.type(0)))


def _negative(x: Floats, below: Activation) -> Floats:
    """`x` where it is positive, `below` of it elsewhere, without an overflow where it is not used."""
    return np.asarray(np.where(x > 0, x, below(np.minimum(x, 0))))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


class _Named:
    """A function of `ACTIVATIONS`, which is pickled by its name."""

    def __init__(self, name: str, function: Activation) -> None:
        self._name, self._function = name, function

    def __call__(self, x: Floats) -> Floats:
        return self._function(x)

    def __reduce__(self) -> tuple[Callable[[str], Activation], tuple[str]]:
        return _named, (self._name,)


def _named(name: str) -> Activation:
    return ACTIVATIONS[name]


_FUNCTIONS: dict[str, Activation] = {
    "Identity": lambda x: x,
    "Tanh": lambda x: np.tanh(x),
    "Sigmoid": sigmoid,
    "ReLU": lambda x: np.maximum(x, 0),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "LeakyReLU": lambda x: _negative(x, lambda y: 0.01 * y),
    "ELU": lambda x: _negative(x, lambda y: np.asarray(np.expm1(y))),
    "SELU": lambda x: _SELU_SCALE * _negative(x, lambda y: _SELU_ALPHA * np.asarray(np.expm1(y))),
    "GELU": lambda x: 0.5 * x * (1 + _erf(x * math.sqrt(0.5))),
    "SiLU": lambda x: x * sigmoid(x),
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "LogSigmoid": lambda x: -_softplus(-x),
    "Hardtanh": lambda x: np.clip(x, -1, 1),
}
#: Class name in `torch.nn`, made without arguments → function.
ACTIVATIONS: dict[str, Activation] = {name: _Named(name, function) for name, function in _FUNCTIONS.items()}


def activation_of(name: object) -> Activation | None:
    """The function of a name such as `torch.nn.modules.activation.Tanh`; None if it is not one of `ACTIVATIONS`."""
    path, _, last = str(name).rpartition(".")
    return ACTIVATIONS.get(last) if path == "torch.nn" or path.startswith("torch.nn.modules.") else None
