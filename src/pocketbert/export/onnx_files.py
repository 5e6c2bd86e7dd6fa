"""ONNX files: run like any model, and found in the folders that exports are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import look_at, plain
from pocketbert.errors import CheckpointError, require
from pocketbert.features import Features, pad
from pocketbert.runtime.engine import usable_threads

FOLDER = "onnx"  # of a model folder: where transformers.js and optimum look
TOKENS_A_BATCH = 4096
WEIGHTS = (".safetensors", ".bin", ".index")


def exported_file(model: str | Path) -> Path | None:
    """The ONNX file that `model` means: itself, or the only one of a folder without other weights; else None.

    Raises:
        CheckpointError: there are several.
    """
    path = Path(model)
    if path.suffix == ".onnx":
        return path
    if not path.is_dir() or any(file.suffix in WEIGHTS for file in path.iterdir()):
        return None
    files = sorted([*path.glob("*.onnx"), *(path / FOLDER).glob("*.onnx")])
    if len(files) > 1:
        names = ", ".join(str(file) for file in files)
        raise CheckpointError(f"{model} holds several exports: give one of {names}")
    return files[0] if files else None


def model_folder(file: Path) -> Path:
    """Where the configuration and the tokenizer of an ONNX file are: in its folder, or in the one that holds it."""
    return file.parent.parent if not (file.parent / "config.json").exists() else file.parent


class OnnxPredictor:
    """An ONNX file as a `features.Predictor`, in ONNX Runtime on the processor.

    Inputs of like length run together, padded. Any file will do that takes ids, mask and perhaps types, as stock
    exports do.

    Raises:
        CheckpointError: the file is missing, damaged, or cannot be run.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        require("export")
        import onnxruntime

        self.path = Path(path)
        look_at(self.path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_threads()
        options.log_severity_level = 4  # what goes wrong is raised
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of its own classes, which share no other base
            raise CheckpointError(f"{path} is damaged, or no ONNX file: {_first_line(error)}") from None
        self.inputs = {one.name: len(one.shape) for one in self.session.get_inputs()}
        self.outputs = {one.name: one.shape for one in self.session.get_outputs()}
        if unknown := self.inputs.keys() - set(pad([])):
            raise CheckpointError(f"{path} is no text model: it asks for {', '.join(sorted(unknown))}")

    @property
    def precision(self) -> str:
        """As it was exported; fp32 if the file does not say."""
        return str(self.session.get_modelmeta().custom_metadata_map.get("precision", "fp32"))

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Map every input to its outputs by name, in order; see `features.Predictor`."""
        results: list[dict[str, np.ndarray]] = [{} for _ in inputs]
        for batch in _batches([len(x) for x in inputs]):
            arrays = self.run([inputs[i] for i in batch])
            for name, array in arrays.items():
                per_token = self._per_token(name)
                for row, i in enumerate(batch):
                    rows: Any = slice(len(inputs[i])) if inputs[i].rows is None else inputs[i].rows
                    results[i][name] = array[row, rows] if per_token else array[row]
        return results

    def run(self, inputs: Sequence[Features]) -> dict[str, np.ndarray]:
        """The outputs of one batch by name, with what stands beyond the ends of its inputs."""
        arrays = {name: array for name, array in pad(inputs).items() if name in self.inputs}
        if self._choices:
            arrays = {name: array[:, None] for name, array in arrays.items()}
        try:
            found = self.session.run(None, arrays)
        except Exception as error:  # as above
            raise CheckpointError(f"{self.path} cannot be run: {_first_line(error)}") from None
        return dict(zip(self.outputs, found, strict=True))

    @property
    def _choices(self) -> bool:
        return 3 in self.inputs.values()

    def _per_token(self, name: str) -> bool:
        """Whether the second axis is as long as the input is."""
        shape = self.outputs[name]
        return not self._choices and len(shape) > 1 and not isinstance(shape[1], int)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The numbers of inputs of like length, together at most `TOKENS_A_BATCH` tokens with padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[i] > TOKENS_A_BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _first_line(error: Exception) -> str:
    return plain(Exception(str(error).strip().partition("\n")[0][:200]))
