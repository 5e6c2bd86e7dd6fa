"""What the words of a text tell about its label: naive Bayes on words and pairs of words, of other texts.

A frozen vector and single words err on different rows, so that both together find more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pocketbert.calibration import fit_temperature

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Fold = tuple[Integers, Integers]

_SMOOTHING = 0.3  # added to the count of each word for each label


class Words:
    """The words and pairs of words of texts, weighted by how rare they are (TF-IDF), each text with length 1.

    Args:
        texts: words with single spaces between them. A word or pair that only one text has tells nothing about others.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(_terms(text)) for text in texts]
        frequency = Counter(term for one in counts for term in one)
        known = {term: number for number, term in enumerate(term for term, n in frequency.items() if n > 1)}
        kept = [[(known[term], n) for term, n in one.items() if term in known] for one in counts]
        self.count, self.size = len(texts), max(1, len(known))
        self.starts = np.cumsum([0, *(len(one) for one in kept)])
        pairs = np.array([pair for one in kept for pair in one], dtype=np.int64).reshape(-1, 2)
        self.terms, self.rows = pairs[:, 0], np.repeat(np.arange(len(texts)), np.diff(self.starts))
        texts_with = np.bincount(self.terms, minlength=self.size)
        weights = (1 + np.log(pairs[:, 1])) * (1 + np.log((1 + len(texts)) / (1 + texts_with)))[self.terms]
        lengths = np.sqrt(np.bincount(self.rows, weights**2, minlength=len(texts)))
        self.weights = weights / lengths[self.rows]

    def out_of_sample(self, gold: Integers, labels: int, folds: Sequence[Fold]) -> Floats:
        """Return [texts, labels] log probabilities without a constant, of each text by the words of the others.

        Args:
            gold: [texts] class ids.
            labels: how many there are.
            folds: indices inside and outside of each; see `frozen.linear.folds`.
        """
        logits = np.empty((self.count, labels))
        for inside, outside in folds:
            is_inside = np.zeros(self.count, dtype=bool)
            is_inside[inside] = True
            used = is_inside[self.rows]
            places = gold[self.rows[used]] * self.size + self.terms[used]
            found = np.bincount(places, self.weights[used], minlength=labels * self.size)
            counts = found.reshape(labels, -1) + _SMOOTHING
            told = np.log(counts / counts.sum(axis=1, keepdims=True)).T  # [words, labels]
            prior = np.log((np.bincount(gold[inside], minlength=labels) + 1) / (len(inside) + labels))
            for row in outside:
                part = slice(self.starts[row], self.starts[row + 1])
                logits[row] = prior + self.weights[part] @ told[self.terms[part]]
        return logits


def _terms(text: str) -> list[str]:
    words = text.split()
    return [*words, *(f"{one} {two}" for one, two in pairwise(words))]


def joined(logits: Floats, others: Floats, gold: Integers) -> Floats:
    """Return the logits of two independent witnesses as those of one, at the temperature of the least log loss.

    Args:
        logits: [n, labels] of classes, or [n] of one label that texts have or not.
        others: alike.
        gold: [n] class ids, or 0 and 1.
    """
    if logits.ndim == 1:
        share = (gold.sum() + 1) / (len(gold) + 2)
        prior = np.log(share / (1 - share))
    else:
        prior = np.log((np.bincount(gold, minlength=logits.shape[1]) + 1) / (len(gold) + logits.shape[1]))
    # Both know how frequent labels are; it counts once.
    both = logits / fit_temperature(logits, gold) + others / fit_temperature(others, gold) - prior
    return np.asarray(both / fit_temperature(both, gold))
