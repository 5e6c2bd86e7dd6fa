"""The estimator of tags of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pocketbert.bundles import ENCODER
from pocketbert.data.conll import Sentence, Sentences
from pocketbert.sklearn.vectors import Trained, seed_of
from pocketbert.tasks.tagging import TagEvaluation


class TokenClassifier(Trained):
    """Sentences of words → a tag for each word; always trained, by `pocketbert.finetune`, and run on the engine.

    Args:
        model: a folder, hub name or bundled model.
        max_steps: steps of training.
        epochs: epochs of training.
        learning_rate: peak learning rate.
        batch_size: sentences per step.
        max_length: maximum tokens of a window; longer sentences have several.
        random_state: seed; None for another one each time.

    Attributes:
        classes_: the tags.
    """

    def __init__(
        self,
        model: str = ENCODER,
        *,
        max_steps: int | None = None,
        epochs: float | None = None,
        learning_rate: float | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        random_state: Any = 42,
    ) -> None:
        self.model = model
        self.max_steps = max_steps
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_length = max_length
        self.random_state = random_state

    def fit(self, X: Sequence[Sequence[str]], y: Sequence[Sequence[str]]) -> Self:
        """Train on sentences of words and the tags of each."""
        from pocketbert.recipes.finetune import finetune
        from pocketbert.recipes.finetune_options import FinetuneOptions

        data = {"tokens": [list(words) for words in X], "tags": [list(tags) for tags in y]}
        result = finetune(
            FinetuneOptions(
                data=data,
                task="token-classification",
                model=str(self.model),
                output=None,
                max_steps=self.max_steps,
                epochs=self.epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                max_length=self.max_length,
                seed=seed_of(self.random_state),
            )
        )
        self._keep(result)
        self.classes_ = np.array([self.config_.id2label[i] for i in range(self.config_.num_labels)])
        return self

    def predict(self, X: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return the tag of each word of each sentence."""
        check_is_fitted(self)
        names = tuple(self.classes_.tolist())
        rows = [Sentence(tuple(words), (names[0],) * len(words), i) for i, words in enumerate(X, start=1)]
        length = self._trained_length(self.max_length)
        evaluation = TagEvaluation({"dev": Sentences(Path("sentences"), rows)}, names, self.tokenizer_, length)
        return [list(one.tags) for one in evaluation.predict(self._trained_engine(TagEvaluation.head), rows)]

    def score(self, X: Sequence[Sequence[str]], y: Sequence[Sequence[str]]) -> float:
        """Return the share of words with the right tag."""
        pairs = [pair for got, tags in zip(self.predict(X), y, strict=True) for pair in zip(got, tags, strict=True)]
        return sum(one == other for one, other in pairs) / max(1, len(pairs))
