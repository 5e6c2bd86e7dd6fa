"""Runs SavedModels in TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pocketbert.errors import CheckpointError, require
from pocketbert.exporters.predictor import INPUT_NAMES, FilePredictor, first_line
from pocketbert.runtime.engine import usable_threads


class SavedModelPredictor(FilePredictor):
    """A SavedModel as a `features.Predictor`, in TensorFlow.

    Runs any SavedModel whose signature has ids, mask and optionally token types as inputs.

    Raises:
        CheckpointError: the folder is damaged, or not a SavedModel.
        MissingExtraError: TensorFlow is not installed.
    """

    engine, needs = "TensorFlow", ("tensorflow",)

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        require("tf")
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow has started its threads already
            tf.config.threading.set_intra_op_parallelism_threads(threads or usable_threads())
        try:
            self.model = tf.saved_model.load(str(path))  # owns the constants of the signature
            self.signature = self.model.signatures["serving_default"]
        except KeyError:
            raise CheckpointError(f"{path} has no signature serving_default") from None
        except Exception as error:  # of protobuf, of TensorFlow, OSError
            raise CheckpointError(f"{path} is damaged, or not a SavedModel: {first_line(error)}") from None
        inputs = self.signature.structured_input_signature[1]
        self.specs = {name: (INPUT_NAMES.get(name, name), spec.dtype) for name, spec in inputs.items()}
        axes = {self.specs[name][0]: spec.shape.rank for name, spec in inputs.items()}
        shapes = {name: spec.shape.as_list() for name, spec in self.signature.structured_outputs.items()}
        super().__init__(Path(path), axes, shapes)

    def compute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of padded inputs."""
        import tensorflow as tf

        tensors = {name: tf.constant(arrays[ours], dtype) for name, (ours, dtype) in self.specs.items()}
        return {name: value.numpy() for name, value in self.signature(**tensors).items()}
