"""Pretraining as an objective: masked words, and how the two segments of an example relate.

Batches are packed (`data.pretraining`): all examples end to end, nothing padded. The vocabulary's scores are computed
at the masked places alone, about a seventh of the tokens. Words are averaged over all masked places of a batch, pairs
over the examples that are pairs, whatever falls to which micro-batch and process.

Shapes: N tokens, E examples, M masked places, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pocketbert.features import IGNORED
from pocketbert.models.heads import ForPreTraining
from pocketbert.models.ops import Packing
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.training.distributed import Ranks
from pocketbert.training.objectives import Batch, Objective


class Pretraining(Objective):
    """Masked words and, if batches have `pair_labels`, sentence order or next sentence: whichever they are about.

    Args:
        model: a …ForPreTraining.
        pairs: whether batches have `pair_labels`; without, what reads the first token alone is not trained.
    """

    def __init__(self, model: PreTrainedModel, *, pairs: bool = True) -> None:
        super().__init__(model)
        if not pairs:
            assert isinstance(model, ForPreTraining)
            for layer in model.head_layers:
                layer.requires_grad_(False)
            if model.base_model.pooler is not None:
                model.base_model.pooler.requires_grad_(False)

    def units(self, batch: Batch) -> dict[str, int]:
        """Examples, tokens, masked places, and examples that are pairs."""
        pairs = batch.get("pair_labels")
        return {
            "examples": len(batch["starts"]) - 1,
            "tokens": len(batch["input_ids"]),
            "masked": len(batch["masked_labels"]),
            "pairs": 0 if pairs is None else int((pairs != IGNORED).sum()),
        }

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """The micro-batch's share of both losses, and of the accuracies."""
        return self.shares(batch, totals)

    def shares(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """The same for whatever is made of this objective: evaluations ask for it."""
        encoded = self.model.base_model(  # type: ignore[operator]
            batch["input_ids"][None], packing_of(batch), batch["token_type_ids"][None], batch["position_ids"][None]
        )
        words, pairs = scores(self.model, encoded.last_hidden_state, encoded.pooler_output, batch)
        return self.losses(words, pairs, batch, totals)

    def losses(
        self, words: Tensor, pairs: Tensor, batch: Mapping[str, Tensor], totals: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Shares of the losses of [M, V] and [E, 2] against the batch's labels."""
        labels = batch["masked_labels"]
        masked = max(1, totals["masked"])
        shares = {
            "masked_loss": F.cross_entropy(words, labels, reduction="sum") / masked,
            "masked_accuracy": (words.argmax(-1) == labels).sum() / masked,
        }
        loss = shares["masked_loss"]
        if "pair_labels" in batch:
            labels, there = batch["pair_labels"], max(1, totals["pairs"])
            shares["pair_loss"] = F.cross_entropy(pairs, labels, reduction="sum", ignore_index=IGNORED) / there
            shares["pair_accuracy"] = (pairs.argmax(-1) == labels).sum() / there
            loss = loss + shares["pair_loss"]
        return {"loss": loss, **shares}


def packing_of(batch: Mapping[str, Tensor]) -> Packing:
    """How the examples of a batch are packed."""
    return Packing.of(batch["starts"], int(batch["starts"].diff().max()))


def scores(
    model: torch.nn.Module, hidden: Tensor, pooled: Tensor, batch: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Word scores [M, V] at the masked places of [1, N, H], and scores of pairs [E, 2] of [E, H], in fp32."""
    assert isinstance(model, ForPreTraining)
    words = model.score_words(hidden[0, batch["masked_positions"]])
    return words.float(), model.apply_layers(pooled).float()


@torch.no_grad()
def measure(objective: Pretraining, batches: Iterable[Batch], ranks: Ranks, *, bf16: bool = False) -> dict[str, float]:
    """Losses and accuracies over `batches`, of which each process brings some; the same for all."""
    device = next(objective.parameters()).device
    counts = {"masked": 0, "pairs": 0}
    names = ("masked_loss", "masked_accuracy", "pair_loss", "pair_accuracy")
    sums = torch.zeros(len(names), dtype=torch.float64, device=device)
    for batch in batches:
        tensors = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            shares = objective.shares(tensors, {"masked": 1, "pairs": 1})
        units = objective.units(batch)
        counts = {name: count + units[name] for name, count in counts.items()}
        for place, name in enumerate(names):
            if name in shares:
                sums[place] += shares[name]
    totals = ranks.sum_counts(counts)
    found = dict(zip(names, ranks.sum(sums).tolist(), strict=True))
    if not totals["pairs"]:
        found = {name: value for name, value in found.items() if name.startswith("masked")}
    means = {
        name: value / max(1, totals["masked" if name.startswith("masked") else "pairs"])
        for name, value in found.items()
    }
    return {"loss": means["masked_loss"] + means.get("pair_loss", 0.0), **means}
