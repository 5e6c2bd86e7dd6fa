"""What follows the encoder of a sentence encoder: pooling, dense layers, norms, as sentence-transformers saves them.

A module has a folder with a `config.json`, and a file of weights if it has any. Every option is done or refused by its
name: one that is passed over would give other vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.checkpoints.files import read_json
from pocketbert.checkpoints.safetensors_files import open_safetensors
from pocketbert.decode import POOLINGS, pool, unit
from pocketbert.errors import CheckpointError
from pocketbert.sentences.activations import ACTIVATIONS, Activation, activation_of

Floats = NDArray[np.floating[Any]]
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order of preference
EPSILON = 1e-5  # of layer norms, which the files do not state

# Older key → mode, in the order in which several are concatenated.
_OLDER_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """Vectors of tokens → one vector: the modes one after the other, the prompt left out unless it is included."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True

    def __call__(self, hidden: Floats, prompt_tokens: int = 0) -> Floats:
        """[modes * hidden] from [tokens, hidden], of which the first `prompt_tokens` are [CLS] and the prompt."""
        return pool(hidden, self.modes, skip=0 if self.include_prompt else prompt_tokens)


@dataclass(frozen=True, eq=False)
class Dense:
    """A linear layer with an activation, and its input added to the result if it is residual."""

    weight: Floats  # [out, in]
    bias: Floats | None  # [out]
    activation: Activation
    residual: Floats | bool  # [out, in]; True adds the input as it is

    def __call__(self, vector: Floats) -> Floats:
        """[out] from [in]."""
        result = self.weight @ vector
        if self.bias is not None:
            result = result + self.bias
        result = np.asarray(self.activation(result), dtype=np.float32)
        if self.residual is False:
            return result
        return result + (vector if self.residual is True else self.residual @ vector)


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """A layer norm of the whole vector."""

    weight: Floats  # [width]
    bias: Floats  # [width]

    def __call__(self, vector: Floats) -> Floats:
        """[width] from [width]."""
        centred = vector - vector.mean()
        scale = 1 / np.sqrt(np.mean(centred * centred) + np.float32(EPSILON))
        return np.asarray(centred * scale * self.weight + self.bias)


Layer = Callable[[Floats], Floats]


def read_module(kind: str, folder: Path) -> Pooling | Layer | None:
    """The module of class `kind` in `folder`; None if it changes nothing.

    Raises:
        CheckpointError: an option that is not done here, or a file that is missing or damaged.
    """
    path = folder / "config.json"
    config = read_json(path) if path.exists() else {}
    return MODULES[kind](config, folder)


def refuse_options(config: Mapping[str, Any], harmless: Mapping[str, tuple[Any, ...]], path: Path) -> None:
    """Raise `CheckpointError` for an option of `config` that is not in `harmless` with its value."""
    for name, value in config.items():
        if name not in harmless or (harmless[name] and value not in harmless[name]):
            expected = " or ".join(map(repr, harmless.get(name, ())))
            raise CheckpointError(
                f"{path}: the option {name}={value!r:.60} is not supported"
                + (f" (only {expected})" if expected else "")
                + ", and results would be wrong without it"
            )


_ANY: tuple[Any, ...] = ()
_ON_SENTENCES = {
    "module_input_name": ("sentence_embedding",),
    "module_output_name": ("sentence_embedding", None),
}


def _pooling(config: Mapping[str, Any], folder: Path) -> Pooling:
    path = folder / "config.json"
    known = ("word_embedding_dimension", "embedding_dimension", "pooling_mode", *_OLDER_MODES)
    refuse_options(config, {**dict.fromkeys(known, _ANY), "include_prompt": (True, False)}, path)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLDER_MODES.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes:
        raise CheckpointError(f"{path}: pooling_mode={modes!r:.60} must be a name or a list of names")
    for mode in modes:
        if mode not in POOLINGS:
            raise CheckpointError(f"{path}: pooling_mode={mode!r:.60} is not one of {', '.join(POOLINGS)}")
    return Pooling(tuple(modes), config.get("include_prompt", True))


def _dense(config: Mapping[str, Any], folder: Path) -> Dense:
    path = folder / "config.json"
    known = ("in_features", "out_features", "activation_function")
    switches = {"bias": (True, False), "use_residual": (True, False)}
    refuse_options(config, {**dict.fromkeys(known, _ANY), **switches, **_ON_SENTENCES}, path)
    rows, columns = _size(config, "out_features", path), _size(config, "in_features", path)
    named = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = activation_of(named)
    if activation is None:
        names = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"{path}: activation_function={named!r:.80} is not supported, only torch.nn's {names}")
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (rows, columns)}
    if config.get("bias", True):
        shapes["linear.bias"] = (rows,)
    residual: Floats | bool = bool(config.get("use_residual", False))
    if residual and rows != columns:
        shapes["residual.weight"] = (rows, columns)
    tensors = _weights(folder, shapes)
    if "residual.weight" in tensors:
        residual = tensors["residual.weight"]
    return Dense(tensors["linear.weight"], tensors.get("linear.bias"), activation, residual)


def _layer_norm(config: Mapping[str, Any], folder: Path) -> LayerNorm:
    path = folder / "config.json"
    refuse_options(config, {"dimension": _ANY}, path)
    width = _size(config, "dimension", path)
    tensors = _weights(folder, {"norm.weight": (width,), "norm.bias": (width,)})
    return LayerNorm(tensors["norm.weight"], tensors["norm.bias"])


def _normalize(config: Mapping[str, Any], folder: Path) -> Layer:
    refuse_options(config, _ON_SENTENCES, folder / "config.json")
    return unit


def _dropout(config: Mapping[str, Any], folder: Path) -> None:
    refuse_options(config, {"dropout": _ANY}, folder / "config.json")


#: The last part of a module's type in `modules.json` → its reader.
MODULES: dict[str, Callable[[Mapping[str, Any], Path], Pooling | Layer | None]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Dropout": _dropout,
}


def _size(config: Mapping[str, Any], name: str, path: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{path}: {name}={value!r:.60} must be a whole number of at least 1")
    return value


def _weights(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    """The weights of a module in float32, which must be those of `shapes` and no others."""
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if file is None:
        raise CheckpointError(f"{folder} has no weights: neither {' nor '.join(WEIGHTS)}")
    if file.suffix == ".safetensors":
        tensors: Mapping[str, np.ndarray] = open_safetensors(file)
    else:
        from pocketbert.checkpoints.torch_files import read_torch

        tensors = read_torch(file)
    if set(tensors) != set(shapes):
        raise CheckpointError(f"{file} should hold {', '.join(sorted(shapes))}, and holds {', '.join(sorted(tensors))}")
    found = {name: np.asarray(tensors[name], dtype=np.float32) for name in shapes}
    for name, tensor in found.items():
        if tensor.shape != shapes[name]:
            raise CheckpointError(f"{file}: {name} has the shape {list(tensor.shape)}, not {list(shapes[name])}")
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{file} is damaged: {name} contains NaN or infinity")
    return found
