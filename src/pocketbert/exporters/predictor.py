"""The base class of what runs exported files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints.files import plain
from pocketbert.errors import CheckpointError, PocketBertError
from pocketbert.features import Features, pad

TOKENS_A_BATCH = 4096


class FilePredictor:
    """A file as a `features.Predictor`; inputs of like length run together, padded.

    Args:
        path: of the file.
        inputs: the number of axes of each, by name: some of `features.pad`'s.
        outputs: the shape of each, by name; what is no int there differs from run to run.

    Raises:
        CheckpointError: it asks for inputs that are no text's.
    """

    engine: str
    """What runs it, for people."""
    needs: tuple[str, ...]
    """The packages that do."""

    def __init__(self, path: Path, inputs: Mapping[str, int], outputs: Mapping[str, Sequence[Any]]) -> None:
        self.path, self.inputs, self.outputs = path, inputs, outputs
        if unknown := inputs.keys() - set(pad([])):
            raise CheckpointError(f"{path} is no text model: it asks for {', '.join(sorted(unknown))}")

    @property
    def precision(self) -> str:
        """As it was exported; fp32 if the file does not say."""
        return "fp32"

    @property
    def max_tokens(self) -> int | None:
        """How many tokens an input may have, if it is the file that says so."""
        return None

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
            return self.compute(arrays)
        except PocketBertError:
            raise
        except Exception as error:  # of the engines' own classes, which share no other base
            raise CheckpointError(f"{self.path} cannot be run: {first_line(error)}") from None

    def compute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of padded inputs; raises whatever the engine does."""
        raise NotImplementedError

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


def first_line(error: Exception) -> str:
    """What an engine says was wrong, short and safe to print."""
    return plain(Exception(str(error).strip().partition("\n")[0][:200]))
