"""Augmented copies of texts for distillation (Tang et al. 2019, https://arxiv.org/abs/1903.12136).

Two of the paper's three rules: every word is masked with probability 0.1, and with probability 0.25 only a run of one
to five words is kept. The third rule replaces words by others of the same part of speech, which would need a tagger.
Augmented texts have no label: their only target is the teacher's output.
"""

from __future__ import annotations

from collections.abc import Sequence

from pocketbert.data.batches import random_words
from pocketbert.words import words_of

MASKED, RUN, LONGEST_RUN = 0.1, 0.25, 5


def augment(text: str, mask: str, seed: int, copy: int, index: int) -> str:
    """Return the augmented copy number `copy` of text number `index`; the same numbers and seed give the same text."""
    spaced = list(words_of(text))
    if not spaced:
        return text
    words = [word for _, word in spaced]
    chance = random_words(seed, f"augmentation/{copy}", index, len(words) + 3) / 2.0**64  # [words + 3], below 1
    words = [mask if chance[i] < MASKED else word for i, word in enumerate(words)]
    if chance[-3] < RUN:
        length = min(len(words), 1 + int(chance[-2] * LONGEST_RUN))
        start = int(chance[-1] * (len(words) - length + 1))
        words, spaced = words[start : start + length], spaced[start : start + length]
    return "".join(space + word for (space, _), word in zip(spaced, words, strict=True)).lstrip()


def augment_all(texts: Sequence[str], copies: int, mask: str, seed: int) -> list[str]:
    """Return `copies` augmented copies of each text: the first copies of all, then the second copies, and so on."""
    return [augment(text, mask, seed, copy, i) for copy in range(copies) for i, text in enumerate(texts)]
