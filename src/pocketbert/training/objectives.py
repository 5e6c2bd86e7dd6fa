"""What is learned. An objective owns the model and says what a batch costs; the loop knows nothing else about a task.

Losses are means over units (examples, tags, masked words), and a batch comes in micro-batches that hold unequal numbers
of them. So an objective counts its units first (`units`), and is then told the counts of the whole batch: each
micro-batch returns its share of the batch's mean, and the shares simply add up, whatever the division, and on however
many processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn

from pocketbert.features import IGNORED

#: One micro-batch, as the data hands it over.
Batch = dict[str, npt.NDArray[Any]]


class Objective(nn.Module):
    """Base of all objectives.

    What it registers as parameters and modules is trained and saved; a frozen teacher is kept out of both by not
    being registered.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def units(self, batch: Batch) -> dict[str, int]:
        """How many of each unit a micro-batch holds; always "examples"."""
        return {"examples": len(batch["input_ids"])}

    def begin(self, step: int) -> None:
        """Get ready for step `step`, where what is learned changes during a run."""

    def rate(self, place: int) -> float:
        """By what to multiply, in this step, the rate of parameters whose group carries this "place"."""
        return 1.0

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """This micro-batch's share of the loss of the whole batch, whose units are `totals`.

        Returns:
            "loss", a scalar to be differentiated, and any further scalars worth recording, shares as well.
        """
        raise NotImplementedError


class ExampleLoss(Objective):
    """The model's own loss, a mean over examples: classes, numbers, choices, spans."""

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """The model's loss, weighted by the micro-batch's share of the examples."""
        share = len(batch["input_ids"]) / totals["examples"]
        return {"loss": self.model(**batch).loss * share}


class TokenLoss(Objective):
    """The model's own loss, a mean over the tokens that have a label: tags."""

    def units(self, batch: Batch) -> dict[str, int]:
        """Examples, and tokens with a label."""
        return {**super().units(batch), "tokens": int((batch["labels"] != IGNORED).sum())}

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """The model's loss, weighted by the micro-batch's share of the labelled tokens."""
        output = self.model(**batch)
        count = int((batch["labels"] != IGNORED).sum())
        if count == 0:  # a mean over nothing is nan
            return {"loss": 0.0 * output.logits.sum()}
        return {"loss": output.loss * (count / totals["tokens"])}
