"""Verification: compare the outputs of an exported file with those of the model it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pocketbert.errors import InputError
from pocketbert.features import Features, Predictor
from pocketbert.metrics import Metrics, refuse_loss
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.plan import Plan

#: Made-up texts of different lengths and topics, among them questions and fragments.
SENTENCES = (
    "The ferry leaves at seven, but nobody on the quay seems to know from which pier.",
    "Great soup.",
    "She had read every book in the library twice, some of them three times, and could still not say why the second "
    "shelf from the left smelled of oranges.",
    "Is the museum open on Mondays?",
    "It is not that the film is bad; it is that it could have been so much better with half the dialogue, twice the "
    "silence, and an ending that trusted the audience to remember the beginning.",
    "Our order of 250 copper pipes (12 mm × 3 m) arrived on 4 March 2019, two weeks late and €1,300 too dear.",
    "dull, dull, dull",
    "Professor Okonjo of Lagos told the committee in Geneva that rivers do not read treaties.",
    "No.",
    "When the lamp went out, the children laughed first, then whispered, and in the end were quiet.",
    "Please reset my password; I have tried everything, including asking my brother-in-law!",
    "Under the old bridge, where the market used to be, an engineer was measuring cracks with a pencil and patience.",
)  # fmt: skip
#: The largest `Difference.relative` by precision. In floats, a larger difference is an error. In 8 bits it is noise,
#: which flips at most atan(r) / π of all decisions between two labels, here 1 in 16, and fewer the more confident a
#: model is. The bundled SqueezeBERT is at 0.02 and 0.06 in the int8 files, whose decisions equal the model's, and at
#: 0.5 to 0.8 in whole numbers alone, where 1 decision in 7 differs.
LIMITS = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2, "integer": 0.2}
LOSSY = ("int8", "integer")
Outputs = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Difference:
    """The difference between one output of two models on the same inputs.

    Attributes:
        largest: absolute difference of two numbers.
        mean: absolute difference.
        relative: root mean square of the differences over that of the numbers; infinite if there is NaN or infinity.
        agreement: fraction of inputs, or tokens, with the same argmax; None for an output of one number.
    """

    largest: float
    mean: float
    relative: float
    agreement: float | None


def compare(expected: Outputs, got: Outputs) -> dict[str, Difference]:
    """The differences between the outputs of two `features.Predictor`s, by the name of the output."""
    return {name: _difference([x[name] for x in expected], [x[name] for x in got]) for name in expected[0]}


def _difference(expected: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> Difference:
    pairs = list(zip(expected, got, strict=True))
    if any(a.shape != b.shape or not np.isfinite(b).all() for a, b in pairs):
        return Difference(np.inf, np.inf, np.inf, 0.0)
    numbers = np.concatenate([a.astype(np.float64).ravel() for a, _ in pairs])
    error = np.concatenate([(b - a.astype(np.float64)).ravel() for a, b in pairs])
    scale = float(np.sqrt(np.square(numbers).mean()))
    relative = float(np.sqrt(np.square(error).mean())) / max(scale, 1e-38)
    agreement = None
    if any(a.shape[-1] > 1 for a, _ in pairs):
        agreement = float(np.mean(np.concatenate([np.ravel(a.argmax(-1) == b.argmax(-1)) for a, b in pairs])))
    return Difference(float(np.abs(error).max()), float(np.abs(error).mean()), relative, agreement)


Measure = Callable[[Predictor], Metrics]


@dataclass(frozen=True)
class VerifiedFile:
    """One exported file, with its difference from the model.

    Attributes:
        path: of the file.
        precision: of its matrices.
        size: in bytes.
        differences: from the model in fp32, by output.
        metrics: on labelled data, of the "model" in fp32 and of the "export"; empty if nothing was measured.
    """

    path: Path
    precision: str
    size: int
    differences: Mapping[str, Difference]
    metrics: Mapping[str, Metrics]


class Verifier:
    """Runs exported files of a model, and refuses those that differ too much from it.

    In 8 bits labelled data decide, if there is a `measure`: the loss of the first metric is limited instead of the
    difference of the outputs.

    Args:
        plan: of the model, in fp32.
        inputs: to compare on.
        measure: maps a predictor to its metrics.
        force: accept any difference in 8 bits, and a loss of more than `metrics.LARGEST_LOSS` of the first metric.
        comparable: maps outputs to what is compared [default: the outputs themselves].
    """

    def __init__(
        self,
        plan: Plan,
        inputs: Sequence[Features],
        *,
        measure: Measure | None = None,
        force: bool = False,
        comparable: Callable[[Outputs], Outputs] = lambda outputs: outputs,
    ) -> None:
        self.model = Engine(plan)
        self.inputs, self.measure, self.force, self.comparable = inputs, measure, force, comparable
        self.expected = comparable(self.model(inputs))

    @cached_property
    def model_metrics(self) -> Metrics:
        """Of the model in fp32; measured once for all files."""
        assert self.measure is not None
        return self.measure(self.model)

    def __call__(self, path: Path, predictor: Predictor, precision: str) -> VerifiedFile:
        """Verify a file, which `predictor` runs.

        Raises:
            InputError: its outputs or its metrics differ too much from the model's.
        """
        differences = compare(self.expected, self.comparable(predictor(self.inputs)))
        lossy = precision in LOSSY
        limit = np.finfo(float).max if lossy and (self.measure or self.force) else LIMITS[precision]
        for name, difference in differences.items():
            if not difference.relative <= limit:  # NaN is refused as well
                raise InputError(
                    f"the {precision} export {'differs too much from the model' if lossy else 'is wrong'}: its {name} "
                    f"differ by {difference.largest:.3g} ({difference.relative:.2g} of their size), so nothing was "
                    f"written" + ("; measure it on labelled data with --eval, or --force it" if lossy else "")
                )
        metrics: dict[str, Metrics] = {}
        if self.measure is not None:
            before, after = self.model_metrics, self.measure(predictor)
            metrics = {"model": before, "export": after}
            if not self.force:
                refuse_loss(before, after, f"in the {precision} export", f"leave {precision} out")
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return VerifiedFile(path, precision, sum(file.stat().st_size for file in files), differences, metrics)
