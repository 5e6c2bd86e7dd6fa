"""What an export says beside what the model says that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
