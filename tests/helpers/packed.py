"""Packed batches of random words, as `data.pretraining` makes them, and small models."""

from typing import Any

import numpy as np

from pocketbert.configs import MobileBertConfig, SqueezeBertConfig
from pocketbert.training.objectives import Batch

SMALL: dict[str, Any] = dict(
    vocab_size=40,
    num_hidden_layers=3,
    num_attention_heads=2,
    max_position_embeddings=16,
    attention_probs_dropout_prob=0.0,
)
SQUEEZEBERT = SqueezeBertConfig(
    hidden_size=16, embedding_size=16, intermediate_size=32, hidden_dropout_prob=0.0,
    q_groups=2, k_groups=2, v_groups=2, intermediate_groups=2, output_groups=2, **SMALL,
)  # fmt: skip
MOBILEBERT = MobileBertConfig(
    hidden_size=16, intra_bottleneck_size=8, embedding_size=8, intermediate_size=12, num_feedforward_networks=2, **SMALL
)
IB_BERT = MobileBertConfig(
    hidden_size=16, intra_bottleneck_size=24, embedding_size=8, intermediate_size=32, hidden_act="gelu",
    key_query_shared_bottleneck=False, num_feedforward_networks=1, normalization_type="layer_norm", **SMALL,
)  # fmt: skip


def packed(random: np.random.Generator, lengths: list[int], masked: list[int]) -> Batch:
    """Examples of `lengths` tokens, of which so many each are masked; every third is no pair."""
    starts = np.cumsum([0, *lengths])
    places = [
        start + np.sort(random.choice(n, m, replace=False))
        for start, n, m in zip(starts, lengths, masked, strict=False)
    ]
    pairs = random.integers(0, 2, size=len(lengths))
    pairs[2::3] = -100
    return {
        "input_ids": random.integers(1, 40, size=starts[-1]),
        "token_type_ids": random.integers(0, 2, size=starts[-1]),
        "position_ids": np.concatenate([np.arange(n) for n in lengths]),
        "starts": starts,
        "masked_positions": np.concatenate(places).astype(np.int64),
        "masked_labels": random.integers(1, 40, size=sum(masked)),
        "pair_labels": pairs,
    }


def split(batch: Batch, cuts: list[int]) -> list[Batch]:
    """The same examples as micro-batches."""
    parts = []
    for a, b in zip([0, *cuts], [*cuts, len(batch["starts"]) - 1], strict=True):
        first, last = batch["starts"][a], batch["starts"][b]
        there = (batch["masked_positions"] >= first) & (batch["masked_positions"] < last)
        parts.append(
            {
                **{name: batch[name][first:last] for name in ("input_ids", "token_type_ids", "position_ids")},
                "starts": batch["starts"][a : b + 1] - first,
                "masked_positions": batch["masked_positions"][there] - first,
                "masked_labels": batch["masked_labels"][there],
                "pair_labels": batch["pair_labels"][a:b],
            }
        )
    return parts
