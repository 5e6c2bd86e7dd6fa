"""What a model answered for every example of an evaluation: columns, from which reports are made and compared.

They are written beside the predictions, as `outcomes.json`: the texts are in it only of the examples that a report
shows. Numbers are rounded to five decimals.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.checkpoints import write_text
from pocketbert.checkpoints.files import read_json
from pocketbert.errors import DataError

FILE = "outcomes.json"
SHOWN = 20
"""Errors with their texts, at most."""
VERSION = 1

#: Kind → its columns, one value per example. `right` is in all of them but for numbers.
KINDS: dict[str, tuple[str, ...]] = {
    "classes": ("right", "gold", "predicted", "confidence", "loss", "brier"),
    "several": ("right", "gold", "predicted", "loss", "brier"),  # lists of labels
    "numbers": ("gold", "predicted"),
    "tags": ("right", "hits", "proposed", "actual", "right_words", "words", "loss", "losses"),
    "answers": ("right", "f1", "answerable"),
    "choices": ("right", "gold", "predicted", "loss"),
}


@dataclass(frozen=True)
class Shown:
    """An example that a report shows with its texts."""

    line: int
    label: str
    predicted: str
    text: str
    second: str | None = None
    """The second text of a pair; the passage of a question."""
    score: float | None = None
    """Probability of the prediction."""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The outcomes of one set of examples."""

    kind: str
    """One of `KINDS`."""
    file: str
    examples: str
    """Hash of all inputs."""
    answers: str
    """Hash of all labels."""
    metrics: dict[str, float]
    columns: dict[str, list[Any]]
    lines: list[int] = field(default_factory=list)
    """Of the examples in the file, where it has any."""
    labels: list[str] = field(default_factory=list)
    """Names of classes, which columns refer to by number."""
    positive: int | None = None
    """The class whose F1 is the metric "f1"."""
    errors: list[Shown] = field(default_factory=list)
    """The most confident errors first."""
    suspects: list[Shown] = field(default_factory=list)
    """Examples whose label looks wrong: `predicted` is the more probable label, `score` the difference of "
    "probabilities."""
    types: list[tuple[str, float, float, float, int]] = field(default_factory=list)
    """Of entities: type, F1, precision, recall, number."""

    def __len__(self) -> int:
        return len(self.columns[KINDS[self.kind][0]])

    def array(self, name: str) -> np.ndarray:
        """Return a column as [examples] numbers."""
        return np.array(self.columns[name], dtype=np.float64)


def digest(parts: Iterable[Any]) -> str:
    """Return a hash of texts, labels, or anything else that JSON has a form for."""
    total = hashlib.sha256()
    for part in parts:
        total.update(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return total.hexdigest()


def rounded(values: Any) -> list[Any]:
    """Return an array as a list of numbers with five decimals."""
    return list(np.round(np.asarray(values, dtype=np.float64), 5).tolist())


def write_outcomes(folder: Path, task: str, sets: Mapping[str, Outcomes]) -> None:
    """Write the outcomes of all sets of an evaluation."""
    described = {name: asdict(one) for name, one in sets.items()}
    for one in described.values():  # JSON has no form for other numbers
        one["metrics"] = {metric: value for metric, value in one["metrics"].items() if math.isfinite(value)}
    content = {"version": VERSION, "task": task, "sets": described}
    write_text(folder / FILE, json.dumps(content, ensure_ascii=False) + "\n")


def read_outcomes(path: Path) -> tuple[str, dict[str, Outcomes]]:
    """Return the head that a file of outcomes is of, and the outcomes of its sets.

    Raises:
        CheckpointError: the file cannot be read.
        DataError: it holds something else.
    """
    content = read_json(path, largest=None)
    if content.get("version") != VERSION:
        raise DataError(f"{path}: version {content.get('version')!r} of outcomes, where {VERSION} is expected")
    try:
        sets = {name: _read(one) for name, one in content["sets"].items()}
        if not sets or any(_damaged(one) for one in sets.values()):
            raise DataError(f"{path}: not all examples have all columns: evaluate the model again")
        return str(content["task"]), sets
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no outcomes of an evaluation ({error}): evaluate the model again") from None


def _read(one: Mapping[str, Any]) -> Outcomes:
    shown = {name: [Shown(**example) for example in one[name]] for name in ("errors", "suspects")}
    return Outcomes(**{**one, **shown, "types": [tuple(row) for row in one["types"]]})


def _damaged(one: Outcomes) -> bool:
    return len({len(one.columns[name]) for name in KINDS[one.kind]}) != 1 or len(one) == 0


def worst(badness: Sequence[float] | np.ndarray) -> list[int]:
    """Return the numbers of the worst examples, those above 0 only."""
    order = np.argsort(-np.asarray(badness, dtype=np.float64), kind="stable")[:SHOWN]
    return [int(i) for i in order if badness[int(i)] > 0]
