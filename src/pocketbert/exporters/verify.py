"""What an export says beside what the model says that it was made from."""

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

# Made up: of different lengths, about different things, one a question and one no sentence at all.
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
#: The largest `Difference.relative` by precision. In floats, beyond it something is wrong. In 8 bits it is noise, which
#: turns round at most atan(r) / π of what is chosen between two, 1 in 16 here, and fewer the surer a model is. The
#: bundled SqueezeBERT is at 0.02 and 0.06 in the forms in int8, which answer as it does, and at 0.5 to 0.8 in whole
#: numbers alone, which answer 1 sentence in 7 otherwise.
LIMITS = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2, "integer": 0.2}
IN_8_BITS = ("int8", "integer")
Outputs = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Difference:
    """One output of two models on the same inputs.

    Attributes:
        largest: difference of two numbers.
        mean: difference of two numbers.
        relative: root mean square of the differences over that of the numbers; infinite if one is no number.
        agreement: the part of inputs, or tokens, for which the largest number stands in the same place; None where
            there is nothing to choose from.
    """

    largest: float
    mean: float
    relative: float
    agreement: float | None


def compare(expected: Outputs, got: Outputs) -> dict[str, Difference]:
    """The differences by the name of the output. The outputs are those of a `features.Predictor`."""
    return {name: _difference([x[name] for x in expected], [x[name] for x in got]) for name in expected[0]}


def _difference(expected: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> Difference:
    pairs = list(zip(expected, got, strict=True))
    if any(a.shape != b.shape or not np.isfinite(b).all() for a, b in pairs):
        return Difference(np.inf, np.inf, np.inf, 0.0)
    wide = np.concatenate([a.astype(np.float64).ravel() for a, _ in pairs])
    error = np.concatenate([(b - a.astype(np.float64)).ravel() for a, b in pairs])
    scale = float(np.sqrt(np.square(wide).mean()))
    relative = float(np.sqrt(np.square(error).mean())) / max(scale, 1e-38)
    agreement = None
    if any(a.shape[-1] > 1 for a, _ in pairs):
        agreement = float(np.mean(np.concatenate([np.ravel(a.argmax(-1) == b.argmax(-1)) for a, b in pairs])))
    return Difference(float(np.abs(error).max()), float(np.abs(error).mean()), relative, agreement)


Measure = Callable[[Predictor], Metrics]


@dataclass(frozen=True)
class Export:
    """One file, and how far it is from the model.

    Attributes:
        path: of the file.
        precision: of its matrices.
        size: in bytes.
        differences: from the model in fp32, by output.
        metrics: on labelled data, of the model in fp32 and of the file; empty if nothing was measured.
    """

    path: Path
    precision: str
    size: int
    differences: Mapping[str, Difference]
    metrics: Mapping[str, Metrics]


class Proof:
    """Runs exports of a model, and refuses those that are not what they should be.

    What 8 bits may cost, labelled data say best: with `measure` the metric decides, and without it how far the outputs
    are from the model's.

    Args:
        plan: of the model, in fp32.
        inputs: what the exports are run on.
        measure: gives the metrics of a predictor.
        force: accept whatever 8 bits cost, and a loss of more than `metrics.LARGEST_LOSS` of the first metric.
        shown: what of the outputs is compared; all of them as they are, when not given.
    """

    def __init__(
        self,
        plan: Plan,
        inputs: Sequence[Features],
        *,
        measure: Measure | None = None,
        force: bool = False,
        shown: Callable[[Outputs], Outputs] = lambda outputs: outputs,
    ) -> None:
        self.reference = Engine(plan)
        self.inputs, self.measure, self.force, self.shown = inputs, measure, force, shown
        self.expected = shown(self.reference(inputs))

    @cached_property
    def metrics(self) -> Metrics:
        """Of the model in fp32; measured once for all its exports."""
        assert self.measure is not None
        return self.measure(self.reference)

    def __call__(self, path: Path, exported: Predictor, precision: str) -> Export:
        """What there is to say about a file, which `exported` runs.

        Raises:
            InputError: it does not say what the model says.
        """
        differences = compare(self.expected, self.shown(exported(self.inputs)))
        rough = precision in IN_8_BITS
        limit = np.finfo(float).max if rough and (self.measure or self.force) else LIMITS[precision]
        for name, one in differences.items():
            if not one.relative <= limit:
                raise InputError(
                    f"the export in {precision} is {'too far away' if rough else 'wrong'}: its {name} differs from the "
                    f"model's by {one.largest:.3g} ({one.relative:.2g} of its size), so nothing was written"
                    + (": give labelled data to --eval, which decide, or --force it" if rough else "")
                )
        metrics: dict[str, Metrics] = {}
        if self.measure is not None:
            metrics = {"model": self.metrics, "export": self.measure(exported)}
            if not self.force:
                refuse_loss(self.metrics, metrics["export"], f"in the export in {precision}", f"leave {precision} out")
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return Export(path, precision, sum(file.stat().st_size for file in files), differences, metrics)
