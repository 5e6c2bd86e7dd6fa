"""LiteRT files, run like any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import look_at
from pocketbert.errors import CheckpointError, InputError, require
from pocketbert.exporters.predictor import FilePredictor, first_line
from pocketbert.features import Features
from pocketbert.runtime.engine import usable_threads

#: What the inputs are called in Python, by what files call them: ours and MediaPipe's; the published; the hub's.
NAMES = {
    "ids": "input_ids", "mask": "attention_mask", "segment_ids": "token_type_ids",
    "input_mask": "attention_mask", "input_word_ids": "input_ids", "input_type_ids": "token_type_ids",
}  # fmt: skip
#: Outputs of classifiers, which apps want as probabilities, and we as logits.
PROBABILITY, EACH = "probability", "probability_of_each"
SPANS = ("start_logits", "end_logits")
SMALLEST = 1e-6  # probability


class LiteRtPredictor(FilePredictor):
    """A `.tflite` as a `features.Predictor`, by LiteRT's interpreter, on the processor with XNNPACK.

    It reads one text at a time, of as many tokens as it was made for, padded. Any file will do that has a signature
    with ids, mask and perhaps types.

    Raises:
        CheckpointError: the file is missing, damaged, or cannot be run.
        MissingExtraError: LiteRT is not installed.
    """

    engine, needs = "LiteRT", ("ai_edge_litert",)

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        require("litert")
        from ai_edge_litert.interpreter import Interpreter

        if look_at(Path(path))[4:8] != b"TFL3":
            raise CheckpointError(f"{path} is damaged, or no LiteRT file")
        try:
            self.interpreter = Interpreter(str(path), num_threads=threads or usable_threads())
            self.runner = self.interpreter.get_signature_runner()
            asked, said = self.runner.get_input_details(), self.runner.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is damaged, or no LiteRT file: {first_line(error)}") from None
        self.names = {name: NAMES.get(name, name) for name in asked}
        inputs = {self.names[name]: len(one["shape"]) for name, one in asked.items()}
        super().__init__(Path(path), inputs, {name: one["shape"] for name, one in said.items()})
        self._max_tokens = int(next(iter(asked.values()))["shape"][-1])

    @property
    def precision(self) -> str:
        """Whether there are whole numbers of 8 bits in it."""
        return "int8" if any(one["dtype"] is np.int8 for one in self.interpreter.get_tensor_details()) else "fp32"

    @property
    def max_tokens(self) -> int:
        """How many tokens an input has, with padding."""
        return self._max_tokens

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Map every input to its outputs by name, in order; see `features.Predictor`."""
        return [self._trimmed(self.run([one]), one) for one in inputs]

    def compute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of padded inputs, one after the other."""
        rows = range(len(next(iter(arrays.values()))))
        found = [self._one({name: array[row : row + 1] for name, array in arrays.items()}) for row in rows]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def _one(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        length = next(iter(arrays.values())).shape[-1]
        if length > self.max_tokens:
            raise InputError(f"{length} tokens are more than the {self.max_tokens} that it was made for")
        rest = [(0, 0), (0, self.max_tokens - length)]
        padded = {name: np.pad(arrays[known], rest).astype(np.int32) for name, known in self.names.items()}
        return dict(_logits(name, array) for name, array in self.runner(**padded).items())

    def _trimmed(self, outputs: Mapping[str, np.ndarray], one: Features) -> dict[str, np.ndarray]:
        """Of what has a row a token those of the input, or those asked for."""
        rows: Any = slice(len(one)) if one.rows is None else one.rows
        return {
            name: array[0, rows] if array.ndim == 3 or name in SPANS else array[0] for name, array in outputs.items()
        }


def _logits(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """An output as our models have it: what gives the same probabilities."""
    if name == PROBABILITY:
        return "logits", np.log(np.maximum(array, SMALLEST))
    if name == EACH:
        inside = np.clip(array, SMALLEST, 1 - SMALLEST)
        return "logits", np.log(inside / (1 - inside))
    return name, array
