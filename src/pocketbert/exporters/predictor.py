"""Base class of predictors that run an exported file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import plain
from pocketbert.errors import CheckpointError, PocketBertError
from pocketbert.features import Features, pad

TOKENS_PER_BATCH = 4096
#: Names of `features.pad` by the names that files use: ours and MediaPipe's; those of published files; the hub's.
INPUT_NAMES = {
    "ids": "input_ids", "mask": "attention_mask", "segment_ids": "token_type_ids",
    "input_mask": "attention_mask", "input_word_ids": "input_ids", "input_type_ids": "token_type_ids",
}  # fmt: skip


class FilePredictor(ABC):
    """An exported file as a `features.Predictor`; inputs of similar length run together, padded.

    Args:
        path: of the file.
        inputs: the number of axes of each input, by its name in `features.pad`.
        outputs: the shape of each output, by name; an axis that is not an int varies from run to run.

    Raises:
        CheckpointError: the file has inputs that no text model has.
    """

    engine: str
    """Name of the engine, for people."""
    needs: tuple[str, ...]
    """The Python packages that the engine consists of."""

    def __init__(self, path: Path, inputs: Mapping[str, int], outputs: Mapping[str, Sequence[Any]]) -> None:
        self.path, self.inputs, self.outputs = path, inputs, outputs
        if unknown := inputs.keys() - set(pad([])):
            raise CheckpointError(f"{path} is not a text model: it has the inputs {', '.join(sorted(unknown))}")

    @property
    def precision(self) -> str:
        """The precision that the file was exported in; fp32 if the file does not record it."""
        return "fp32"

    @property
    def max_tokens(self) -> int | None:
        """The number of tokens per input, if the file fixes it."""
        return None

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Map every input to its outputs by name, in order; see `features.Predictor`."""
        results: list[dict[str, np.ndarray]] = [{} for _ in inputs]
        for batch in _batches([len(x) for x in inputs]):
            arrays = self.run([inputs[i] for i in batch])
            for name, array in arrays.items():
                per_token = self._per_token(name)
                for row, i in enumerate(batch):
                    tokens: Any = slice(len(inputs[i])) if inputs[i].rows is None else inputs[i].rows
                    results[i][name] = array[row, tokens] if per_token else array[row]
        return results

    def run(self, inputs: Sequence[Features]) -> dict[str, np.ndarray]:
        """The outputs of one batch by name, with the values at padding."""
        arrays = {name: array for name, array in pad(inputs).items() if name in self.inputs}
        if self._choices:
            arrays = {name: array[:, None] for name, array in arrays.items()}
        try:
            return self.compute(arrays)
        except PocketBertError:
            raise
        except Exception as error:  # the engines' own classes share no other base
            raise CheckpointError(f"{self.path} cannot be run: {first_line(error)}") from None

    @abstractmethod
    def compute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of padded inputs; raises whatever the engine raises."""

    @property
    def _choices(self) -> bool:
        return 3 in self.inputs.values()

    def _per_token(self, name: str) -> bool:
        """Whether the second axis of an output is as long as the input."""
        shape = self.outputs[name]
        return not self._choices and len(shape) > 1 and not isinstance(shape[1], int)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of inputs of similar length, with padding at most `TOKENS_PER_BATCH` tokens together."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[i] > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def first_line(error: Exception) -> str:
    """The first line of an engine's error, short and safe to print."""
    return plain(Exception(str(error).strip().partition("\n")[0][:200]))
