"""Pairs of a text and an augmented copy of it, which raw text has no pairs of: from equal to unrelated.

Each example draws how much of its copy is changed, up to `MOST` of its tokens. A changed token is left out, or is
replaced by one that is drawn from the batch; in some copies, two parts change places.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.data.batches import random_words

MOST, LEFT_OUT, TURNED = 0.8, 0.4, 0.3  # of the tokens of a copy; of changed tokens; of the copies
_OWN = 3  # random numbers per example

Batch = Mapping[str, npt.NDArray[Any]]


def with_augmented_copies(batch: Batch, seed: int, step: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return packed pairs of segments: each example of `batch` as the first, its augmented copy as the second.

    Args:
        batch: `input_ids` [tokens] and `starts` [examples + 1] of single segments.
        seed: seed of the changes, which are a function of it and of `step`.
        step: number of the batch.

    Returns:
        `input_ids`, `token_type_ids` and `position_ids` [tokens], and `starts` [examples + 1].
    """
    ids, starts = batch["input_ids"], batch["starts"]
    chance = random_words(seed, "augmented copies", step, _OWN * (len(starts) - 1) + 2 * len(ids)) / 2.0**64
    own, per_token = np.split(chance, [_OWN * (len(starts) - 1)])
    whether, which = per_token.reshape(2, -1)
    pieces, segments = [], []
    for number, (start, end) in enumerate(pairwise(starts.tolist())):
        rate, turned, cut = own[_OWN * number : _OWN * (number + 1)]
        inner = slice(start + 1, end - 1)
        words, drawn = ids[inner], whether[inner]
        changed, left_out = drawn < rate * MOST, drawn < rate * MOST * LEFT_OUT
        copy = np.where(changed, ids[(which[inner] * len(ids)).astype(np.int64)], words)[~left_out]
        if turned < TURNED:
            copy = np.roll(copy, int(cut * len(copy)))
        copy = copy if len(copy) else words
        pieces += [ids[start:end], copy, ids[end - 1 : end]]
        segments += [np.repeat((0, 1), (end - start, len(copy) + 1))]
    lengths = np.array([len(one) for one in segments])
    ends = np.cumsum([0, *lengths])
    return {
        "input_ids": np.concatenate(pieces),
        "token_type_ids": np.concatenate(segments),
        "position_ids": np.arange(ends[-1]) - np.repeat(ends[:-1], lengths),
        "starts": ends,
    }
