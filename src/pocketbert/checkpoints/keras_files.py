"""Weights in `tf_model.h5`, as transformers wrote them from its TensorFlow classes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import look_at, plain
from pocketbert.checkpoints.names import keras_name
from pocketbert.checkpoints.safetensors_files import Tensors
from pocketbert.errors import CheckpointError, require
from pocketbert.families import FAMILIES


def read_keras(path: Path) -> Tensors:
    """The tensors of a file, by official name.

    A dataset's path is `part/tf_class_of_the_model/part/…/kernel:0`. TensorFlow's word scores have a matrix of their
    own, beside the word embeddings, but one bias: it gets both of its official names. A matrix of zeros, which files
    without trained word scores have, is left out.

    Raises:
        MissingExtraError: h5py is not installed.
        CheckpointError: the file is missing, damaged or of another kind, or refers to numbers outside itself.
    """
    if find_spec("h5py") is None:
        require("tf")
    import h5py

    look_at(path)
    tensors: Tensors = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            official, transposed = keras_name(_below_the_model(name))
            if official in tensors:
                raise CheckpointError(f"{path} has {official} twice")
            tensor = _read(item, name, path)
            tensors[official] = np.asarray(tensor.T, order="C") if transposed else tensor

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)  # which follows no link out of the file
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged or not a Keras file ({plain(error)}): download it again") from None
    for words in {family.words for family in FAMILIES.values() if family.words}:
        decoder = f"{words.decoder}.weight"
        if decoder in tensors and not tensors[decoder].any():
            del tensors[decoder]
        elif decoder in tensors and not words.own_bias:
            tensors[f"{words.decoder}.bias"] = tensors[words.bias]
    return tensors


def _below_the_model(name: str) -> str:
    """The path of a variable below its model."""
    parts = name.split("/")
    return "/".join(parts[next((i for i, part in enumerate(parts) if part.startswith("tf_")), 0) + 1 :])


def _read(dataset: Any, name: str, path: Path) -> np.ndarray:
    """The numbers of a dataset, which Keras stores contiguously in the file itself."""
    if dataset.chunks is not None or dataset.external or dataset.is_virtual or dataset.dtype.kind != "f":
        raise CheckpointError(f"{path}: {name} is not stored as Keras stores weights")
    if dataset.nbytes > path.stat().st_size:
        raise CheckpointError(f"{path} is truncated: {name} is larger than the whole file. Download it again")
    return np.asarray(dataset[()])
