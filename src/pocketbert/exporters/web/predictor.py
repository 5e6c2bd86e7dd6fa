"""Runs folders for browsers and Node on the engine, as their package runs them on the same core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pocketbert.checkpoints.files import read_json
from pocketbert.checkpoints.safetensors_files import open_safetensors
from pocketbert.errors import CheckpointError
from pocketbert.exporters.predictor import FilePredictor
from pocketbert.exporters.web.plans import from_json
from pocketbert.exporters.web.writer import MODEL, TENSORS, VERSION
from pocketbert.features import Features, pad
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.plan import Columns


class WebPredictor(FilePredictor):
    """A folder that `WebWriter` wrote as a `features.Predictor`.

    Raises:
        CheckpointError: a file is missing, damaged, or of another version.
    """

    engine, needs = "PocketBERT", ("numpy",)

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        path = Path(path)
        written = read_json(path / MODEL)
        if written.get("format") != "pocketbert web" or written.get("version") != VERSION:
            raise CheckpointError(f"{path / MODEL} is not of this version of the web format: export the model again")
        try:
            plan = from_json(written.get("plan", {}), dict(open_safetensors(path / TENSORS)))
            self._engine = Engine(plan, threads)
        except (CheckpointError, ValueError, KeyError, TypeError) as error:
            text = str(error)
            raise CheckpointError(text if text.startswith(str(path)) else f"{path / MODEL} {text}") from None
        self._precision = str(written.get("precision"))
        shapes = {
            name: ["tokens", place.width] if isinstance(place, Columns) else ["tokens"]
            for name, place in plan.outputs.items()
        }
        super().__init__(path, dict.fromkeys(pad([]), 2), shapes)

    @property
    def precision(self) -> str:
        """The precision that the folder was written in."""
        return self._precision

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Map every input to its outputs by name, in order; nothing is padded."""
        return self._engine(inputs)

    def compute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of padded inputs, with zeros at padding."""
        lengths = arrays["attention_mask"].sum(axis=1)
        ids, types = arrays["input_ids"].astype(np.int32), arrays["token_type_ids"].astype(np.int32)
        found = self._engine([Features(ids[i, :n], types[i, :n]) for i, n in enumerate(lengths)])
        return {name: _padded([one[name] for one in found]) for name in self.outputs}


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    if not rows[0].shape:
        return np.stack(rows)
    longest = max(len(row) for row in rows)
    return np.stack([np.pad(row, [(0, longest - len(row)), *[(0, 0)] * (row.ndim - 1)]) for row in rows])
