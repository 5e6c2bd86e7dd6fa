"""Similarity of texts without training: how well the cosine of two vectors agrees with the scores of people.

The vector of a text is the mean of an encoder's last hidden states over its tokens; the metric is Spearman's rank
correlation between the cosines and the scores, as on STS-B (Cer et al. 2017, https://arxiv.org/abs/1708.00055). As
nothing is fine-tuned, this judges an encoder during general distillation, in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.data.labels import Labels
from pocketbert.data.tables import read_table
from pocketbert.decode import pool
from pocketbert.errors import DataError
from pocketbert.features import Features, Predictor, encode_texts
from pocketbert.metrics import spearman
from pocketbert.tokenization import BertTokenizer

_CHUNK = 512  # texts whose hidden states are in memory at a time


class Similarity:
    """Pairs of texts with a score of their similarity.

    Args:
        path: a table with two texts and a number in each row, such as STS-B's `dev.tsv`.

    Raises:
        DataError: the file cannot be read, or has no pairs of texts or no numbers.
    """

    def __init__(self, path: Path | str) -> None:
        self.table = read_table(path)
        if self.table.columns.text_pair is None:
            raise DataError(f"{path}: has no pairs of texts; name their columns sentence1 and sentence2")
        self.scores = Labels(()).encode(self.table)

    @property
    def metric(self) -> str:
        """The name of the metric: that of the file, and "spearman"."""
        return f"{self.table.path.stem}_spearman"

    def facts(self) -> dict[str, Any]:
        """Return the hash of the file and the number of pairs, for `run.json`."""
        return {"file": self.table.path.name, "sha256": self.table.sha256(), "examples": len(self.table)}

    def encode(self, tokenizer: BertTokenizer, max_length: int) -> list[Features]:
        """Return the inputs: the first text of each pair, then the second of each."""
        texts = [example.text for example in self.table.examples]
        texts += [example.text_pair or "" for example in self.table.examples]
        return encode_texts(tokenizer, texts, max_length=max_length)

    def __call__(self, predictor: Predictor, inputs: list[Features]) -> float:
        """Return the rank correlation of an encoder's cosines and the scores, for the inputs of `encode`."""
        vectors = [
            pool(output["last_hidden_state"], "mean", normalize=True)
            for start in range(0, len(inputs), _CHUNK)
            for output in predictor(inputs[start : start + _CHUNK])
        ]
        first, second = np.split(np.stack(vectors), 2)
        return spearman((first * second).sum(-1), self.scores)
