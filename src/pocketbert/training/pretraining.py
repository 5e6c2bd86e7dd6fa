"""The objective of pretraining: masked language modelling, and the relation of the two segments of an example.

Batches are packed (`corpus.pretraining_batches`): all examples end to end, without padding. Scores over the vocabulary
are computed at masked positions only, about a seventh of the tokens. The masked loss is a mean over all masked
positions of a batch and the pair loss a mean over its pairs, for any division into micro-batches and processes.

Shapes: N tokens, E examples, M masked positions, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pocketbert.features import IGNORED
from pocketbert.models.cpu import largest
from pocketbert.models.heads import ForPreTraining
from pocketbert.models.ops import Packing
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.training.distributed import ProcessGroup
from pocketbert.training.objectives import Batch, Objective


class Pretraining(Objective):
    """Masked language modelling and, if batches have `pair_labels`, sentence order or next sentence.

    Args:
        model: a …ForPreTraining.
        pairs: whether batches have `pair_labels`; without them, pooler and pair head are not trained.
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
        """Return the numbers of examples, tokens, masked positions and pairs."""
        pairs = batch.get("pair_labels")
        return {
            "examples": len(batch["starts"]) - 1,
            "tokens": len(batch["input_ids"]),
            "masked": len(batch["masked_labels"]),
            "pairs": 0 if pairs is None else int((pairs != IGNORED).sum()),
        }

    def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the micro-batch's share of both losses and accuracies."""
        return self.shares(batch, totals)

    def shares(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the same as `Pretraining.forward`, in subclasses as well: for evaluations."""
        encoded = self.model.base_model(  # type: ignore[operator]
            batch["input_ids"][None], packing_of(batch), batch["token_type_ids"][None], batch["position_ids"][None]
        )
        words, pairs = scores(self.model, encoded.last_hidden_state, encoded.pooler_output, batch)
        return self.losses(words, pairs, batch, totals)

    def losses(
        self, words: Tensor, pairs: Tensor, batch: Mapping[str, Tensor], totals: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Return shares of the losses of [M, V] and [E, 2] scores against the labels of a batch."""
        labels = batch["masked_labels"]
        masked = max(1, totals["masked"])
        shares = {
            "masked_loss": F.cross_entropy(words, labels, reduction="sum") / masked,
            "masked_accuracy": (largest(words) == labels).sum() / masked,
        }
        loss = shares["masked_loss"]
        if "pair_labels" in batch:
            labels, count = batch["pair_labels"], max(1, totals["pairs"])
            shares["pair_loss"] = F.cross_entropy(pairs, labels, reduction="sum", ignore_index=IGNORED) / count
            shares["pair_accuracy"] = (pairs.argmax(-1) == labels).sum() / count
            loss = loss + shares["pair_loss"]
        return {"loss": loss, **shares}


def packing_of(batch: Mapping[str, Tensor]) -> Packing:
    """Return the packing of the examples of a batch."""
    return Packing.of(batch["starts"], int(batch["starts"].diff().max()))


def scores(
    model: torch.nn.Module, hidden: Tensor, pooled: Tensor, batch: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return token scores [M, V] at the masked positions of [1, N, H], and pair scores [E, 2] of [E, H], in fp32."""
    assert isinstance(model, ForPreTraining)
    words = model.score_words(hidden[0, batch["masked_positions"]])
    return words.float(), model.apply_layers(pooled).float()


@torch.no_grad()
def evaluate_pretraining(
    objective: Pretraining, batches: Iterable[Batch], processes: ProcessGroup, *, bf16: bool = False
) -> dict[str, float]:
    """Return losses and accuracies over the `batches` of all processes; the same in all."""
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
        for i, name in enumerate(names):
            if name in shares:
                sums[i] += shares[name]
    totals = processes.sum_counts(counts)
    all_sums = dict(zip(names, processes.sum(sums).tolist(), strict=True))
    if not totals["pairs"]:
        all_sums = {name: value for name, value in all_sums.items() if name.startswith("masked")}
    means = {
        name: value / max(1, totals["masked" if name.startswith("masked") else "pairs"])
        for name, value in all_sums.items()
    }
    return {"loss": means["masked_loss"] + means.get("pair_loss", 0.0), **means}
