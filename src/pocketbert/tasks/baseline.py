"""A baseline beside a run: TF-IDF with logistic regression on the same examples, in a second.

Words, and pieces of two to five characters inside of words; of several labels one regression for each, of numbers ridge
regression. A model that loses to it is not worth its time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.data.labels import Labels
from pocketbert.data.tables import Table
from pocketbert.errors import ConfigError, require
from pocketbert.words import bare_words, is_unspaced

Logits = npt.NDArray[np.float64]

_LEAST = 1e-12  # probability, whose logarithm is finite


def baseline_logits(train: Table, test: Table, labels: Labels, seed: int) -> Logits:
    """Return [test examples, labels] logits of a baseline that was fitted to training examples; a number as it is.

    Raises:
        ConfigError: the texts have no words or only one label.
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_union

    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    words = TfidfVectorizer(tokenizer=_words, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True)
    vectorizer = make_union(words, pieces)
    try:
        known = vectorizer.fit_transform(_texts(train))
    except ValueError as error:
        raise ConfigError(f"--baseline: {error}") from None
    asked, gold = vectorizer.transform(_texts(test)), labels.encode(train)
    if labels.regression:
        return np.asarray(Ridge().fit(known, gold).predict(asked), dtype=np.float64)[:, None]

    def shares(column: npt.NDArray[Any], count: int) -> Logits:
        """[test examples, count] probabilities of the classes 0 to count - 1, of which some may be missing."""
        found = np.full((len(test), count), _LEAST)
        present = np.unique(column).astype(int)
        if len(present) == 1:
            found[:, present[0]] = 1.0
        else:
            model = LogisticRegression(C=10.0, max_iter=1000, random_state=seed).fit(known, column)
            found[:, present] = np.maximum(model.predict_proba(asked), _LEAST)
        return found

    if labels.several:
        both = [shares(column.astype(int), 2) for column in gold.T]
        return np.stack([np.log(one[:, 1]) - np.log(one[:, 0]) for one in both], axis=1)
    return np.log(shares(gold, len(labels.names)))


def _words(text: str) -> list[str]:
    """The words of two letters or more, and characters that count as words."""
    return [word for word in bare_words(text) if len(word) > 1 or is_unspaced(word)]


def _texts(table: Table) -> list[str]:
    return [one.text if one.text_pair is None else f"{one.text} {one.text_pair}" for one in table.examples]
