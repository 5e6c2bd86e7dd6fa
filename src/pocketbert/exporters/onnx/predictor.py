"""Runs ONNX files in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pocketbert.checkpoints.files import look_at
from pocketbert.errors import CheckpointError, require
from pocketbert.exporters.predictor import FilePredictor, first_line
from pocketbert.runtime.engine import usable_threads


class OnnxPredictor(FilePredictor):
    """An ONNX file as a `features.Predictor`, in ONNX Runtime on the processor.

    Runs any file with ids, mask and optionally token types as inputs, the exports of other tools included.

    Raises:
        CheckpointError: the file is missing, damaged, or cannot be run.
        MissingExtraError: ONNX Runtime is not installed.
    """

    engine, needs = "ONNX Runtime", ("onnxruntime",)

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        require("export")
        import onnxruntime

        look_at(Path(path))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_threads()
        options.log_severity_level = 4  # errors are raised
        options.add_session_config_entry("session.force_spinning_stop", "1")  # leave the cores to others between runs
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes share no other base
            raise CheckpointError(f"{path} is damaged, or not an ONNX file: {first_line(error)}") from None
        inputs = {one.name: len(one.shape) for one in self.session.get_inputs()}
        super().__init__(Path(path), inputs, {one.name: one.shape for one in self.session.get_outputs()})

    @property
    def precision(self) -> str:
        """The precision that the file was exported in; fp32 if the file does not record it."""
        return str(self.session.get_modelmeta().custom_metadata_map.get("precision", "fp32"))

    def compute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of padded inputs."""
        return dict(zip(self.outputs, self.session.run(None, dict(arrays)), strict=True))
