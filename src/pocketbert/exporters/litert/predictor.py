"""Runs LiteRT files in LiteRT's interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import look_at
from pocketbert.errors import CheckpointError, InputError, require
from pocketbert.exporters.predictor import INPUT_NAMES, FilePredictor, first_line
from pocketbert.features import Features
from pocketbert.runtime.engine import usable_threads

#: Outputs of classifiers: apps expect probabilities, `features.Predictor` has logits.
PROBABILITY, PROBABILITY_OF_EACH = "probability", "probability_of_each"
SPAN_LOGITS = ("start_logits", "end_logits")
SMALLEST = 1e-6  # probability


class LiteRtPredictor(FilePredictor):
    """A `.tflite` file as a `features.Predictor`, in LiteRT's interpreter with XNNPACK on the processor.

    It runs one text at a time, padded to the file's fixed number of tokens. Runs any file that has a signature with
    ids, mask and optionally token types as inputs.

    Raises:
        CheckpointError: the file is missing, damaged, or cannot be run.
        MissingExtraError: LiteRT is not installed.
    """

    engine, needs = "LiteRT", ("ai_edge_litert",)

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        require("litert")
        from ai_edge_litert.interpreter import Interpreter

        if look_at(Path(path))[4:8] != b"TFL3":
            raise CheckpointError(f"{path} is damaged, or not a LiteRT file")
        try:
            self.interpreter = Interpreter(str(path), num_threads=threads or usable_threads())
            self.runner = self.interpreter.get_signature_runner()
            inputs, outputs = self.runner.get_input_details(), self.runner.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is damaged, or not a LiteRT file: {first_line(error)}") from None
        self.names = {name: INPUT_NAMES.get(name, name) for name in inputs}
        axes = {self.names[name]: len(detail["shape"]) for name, detail in inputs.items()}
        super().__init__(Path(path), axes, {name: detail["shape"] for name, detail in outputs.items()})
        self._max_tokens = int(next(iter(inputs.values()))["shape"][-1])

    @property
    def precision(self) -> str:
        """int8 if the file has tensors of 8-bit integers, else fp32."""
        return "int8" if any(one["dtype"] is np.int8 for one in self.interpreter.get_tensor_details()) else "fp32"

    @property
    def max_tokens(self) -> int:
        """The number of tokens per input, with padding."""
        return self._max_tokens

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Map every input to its outputs by name, in order; see `features.Predictor`."""
        return [self._without_padding(self.run([one]), one) for one in inputs]

    def compute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of padded inputs, run one after the other."""
        rows = range(len(next(iter(arrays.values()))))
        outputs = [self._run_one({name: array[row : row + 1] for name, array in arrays.items()}) for row in rows]
        return {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}

    def _run_one(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        length = next(iter(arrays.values())).shape[-1]
        if length > self.max_tokens:
            raise InputError(f"an input of {length} tokens exceeds the {self.max_tokens} tokens of {self.path}")
        padding = [(0, 0), (0, self.max_tokens - length)]
        padded = {name: np.pad(arrays[ours], padding).astype(np.int32) for name, ours in self.names.items()}
        return dict(_to_logits(name, array) for name, array in self.runner(**padded).items())

    def _without_padding(self, outputs: Mapping[str, np.ndarray], features: Features) -> dict[str, np.ndarray]:
        """Of outputs per token, those of the input's tokens, or of its `rows`."""
        tokens: Any = slice(len(features)) if features.rows is None else features.rows
        return {
            name: array[0, tokens] if array.ndim == 3 or name in SPAN_LOGITS else array[0]
            for name, array in outputs.items()
        }


def _to_logits(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """An output of a file as its model has it: logits that give the same probabilities."""
    if name == PROBABILITY:
        return "logits", np.log(np.maximum(array, SMALLEST))
    if name == PROBABILITY_OF_EACH:
        inside = np.clip(array, SMALLEST, 1 - SMALLEST)
        return "logits", np.log(inside / (1 - inside))
    return name, array
