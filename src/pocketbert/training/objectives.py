"""Objectives: the loss of a batch. An objective owns the model; the loop knows nothing else about a task.

Losses are means over units (examples, tags, masked tokens), and a batch is divided into micro-batches with unequal
numbers of them. So an objective first counts its units (`units`), and then receives the counts of the whole batch: each
micro-batch returns its share of the batch's mean, and the shares add up, for any division and any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.features import IGNORED
from pocketbert.models.pretrained import PreTrainedModel

#: One micro-batch.
Batch = dict[str, npt.NDArray[Any]]


class Objective(nn.Module):
    """Base of all objectives.

    Registered parameters and modules are trained and saved; a frozen teacher is neither, as it is not registered.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def units(self, batch: Batch) -> dict[str, int]:
        """Return the number of each unit in a micro-batch; always with "examples"."""
        return {"examples": len(batch["input_ids"])}

    def begin(self, step: int) -> None:
        """Prepare for step `step`, where the losses change during a run."""

    def layer_rate(self, layer: int) -> float:
        """Return the factor of the rate, in this step, of parameters whose group carries this "layer"."""
        return 1.0

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return this micro-batch's share of the loss of the whole batch, whose units are `totals`.

        Returns:
            "loss", a scalar to be differentiated, and further scalars to be recorded, which are shares as well.
        """
        raise NotImplementedError


class ExampleLoss(Objective):
    """The model's own loss, a mean over examples: classes, numbers, choices, spans."""

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the model's loss, weighted by the micro-batch's share of the examples."""
        share = len(batch["input_ids"]) / totals["examples"]
        return {"loss": self.model(**batch).loss * share}


class WeightedLoss(Objective):
    """The loss of classes, several labels or numbers with a weight for each example, and labels that are smoothed.

    A batch has "weights" [B], or [B, L] of several labels, which are 1 in the mean over the training data.

    Args:
        model: a classifier of texts with a `problem_type`.
        smoothing: the part of a label that is shared out among all; of several labels, among both answers.
    """

    def __init__(self, model: PreTrainedModel, smoothing: float = 0.0) -> None:
        super().__init__(model)
        self.problem, self.smoothing = model.config.problem_type, smoothing

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return this micro-batch's share of the mean loss of all examples."""
        inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "weights")}
        losses = self.losses(self.model(**inputs).logits, batch["labels"])  # [B], [B, L] of several labels
        if "weights" in batch:
            losses = losses * batch["weights"]
        return {"loss": losses.mean() * (len(losses) / totals["examples"])}

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each example, or of each of its labels."""
        if self.problem == "regression":
            return F.mse_loss(logits, labels.view_as(logits).to(logits.dtype), reduction="none")[:, 0]
        if self.problem == "single_label_classification":
            return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)
        labels = labels * (1 - self.smoothing) + self.smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


class TokenLoss(Objective):
    """The model's own loss, a mean over the tokens that have a label: tags."""

    def units(self, batch: Batch) -> dict[str, int]:
        """Return the numbers of examples and of tokens with a label."""
        return {**super().units(batch), "tokens": int((batch["labels"] != IGNORED).sum())}

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the model's loss, weighted by the micro-batch's share of the labelled tokens."""
        output = self.model(**batch)
        count = int((batch["labels"] != IGNORED).sum())
        if count == 0:  # an empty mean is nan
            return {"loss": 0.0 * output.logits.sum()}
        return {"loss": output.loss * (count / totals["tokens"])}
