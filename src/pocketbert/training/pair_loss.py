"""The loss of pairs of texts: read together, how alike are they to a teacher that reads each by itself?

A student that will compare texts has to find the words of one in the other. Fine-tuning on a few thousand pairs does
not teach that, and running text does not show it. The teacher's vectors of the two texts, means of its last hidden
states, have a cosine; the student reads both texts as one input, and a small network on its last state of the first
token predicts the cosine. Augmented SBERT goes the other way: it labels pairs for a sentence encoder by a model that
reads both (Thakur et al. 2021, https://arxiv.org/abs/2010.08240).

Shapes: N tokens, E examples, P pairs among them, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.training.objectives import Batch

Vectors = Callable[[Mapping[str, Tensor]], Tensor]  # a packed batch → [E, H]


class PairHead(nn.Module):
    """A tanh layer and a linear one, on the first token's last state; not part of the model that is saved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense, self.out = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, first: Tensor) -> Tensor:
        """Return the predicted cosines [P] of the first tokens' states [P, H]."""
        scores: Tensor = self.out(torch.tanh(self.dense(first)))
        return scores[:, 0].float()


def pairs_of(batch: Batch | Mapping[str, Tensor]) -> Tensor:
    """Return the numbers [P] of the examples that have two segments."""
    segments, starts = torch.as_tensor(batch["token_type_ids"]), torch.as_tensor(batch["starts"])
    return segments[starts[1:] - 1].nonzero()[:, 0]


def segments_apart(batch: Mapping[str, Tensor], pairs: Tensor) -> dict[str, Tensor]:
    """Return the segments of the pairs as packed examples [2 P] of one segment each: first ones, then second ones."""
    ids, segments, starts = batch["input_ids"], batch["token_type_ids"], batch["starts"]
    first, second = [], []
    for start, end in zip(starts[pairs].tolist(), starts[pairs + 1].tolist(), strict=True):
        middle = end - int(segments[start:end].sum())
        first.append(ids[start:middle])
        second.append(torch.cat([ids[start : start + 1], ids[middle:end]]))  # [CLS] in front
    texts = first + second
    lengths = torch.tensor([len(text) for text in texts], device=ids.device)
    ends = F.pad(lengths.cumsum(0), (1, 0))
    total = int(ends[-1])
    return {
        "input_ids": torch.cat(texts),
        "token_type_ids": ids.new_zeros(total),
        "position_ids": torch.arange(total, device=ids.device) - ends[:-1].repeat_interleave(lengths),
        "starts": ends,
    }


def pair_loss(head: PairHead, hidden: Tensor, batch: Mapping[str, Tensor], vectors: Vectors) -> Tensor:
    """Return the squared error of the cosines, summed over the pairs of a batch.

    Args:
        head: predicts cosines.
        hidden: the student's last states [N, H].
        batch: the packed batch.
        vectors: the teacher's vectors of the examples of a packed batch.
    """
    pairs = pairs_of(batch)
    if not len(pairs):
        return hidden.new_zeros((), dtype=torch.float32)
    one, other = vectors(segments_apart(batch, pairs)).float().chunk(2)
    predicted = head(hidden[batch["starts"][pairs]])
    return (predicted - F.cosine_similarity(one, other, dim=-1)).square().sum()
