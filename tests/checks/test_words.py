"""Naive Bayes of words against scikit-learn's, and the judgement of two witnesses."""

import numpy as np
import pytest

from pocketbert.calibration import fit_temperature
from pocketbert.checks.words import Words, joined
from pocketbert.decode import softmax
from pocketbert.frozen.linear import CLASSES, folds


def test_as_scikit_learn() -> None:
    """With the prior as frequencies and one more of each label, and without what stands in one text alone."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    bayes = pytest.importorskip("sklearn.naive_bayes")
    rng = np.random.default_rng(0)
    gold = np.repeat([0, 1, 2], [20, 30, 40])
    texts = [" ".join(f"w{int(n)}" for n in rng.zipf(1.6, size=rng.integers(0, 12)) % 40 + 5 * kind) for kind in gold]
    parts = folds(gold, CLASSES, 0)
    found = Words(texts).out_of_sample(gold, 3, parts)
    vectorizer = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"\S+")
    rows = vectorizer.fit_transform(texts)
    for inside, outside in parts:
        prior = (np.bincount(gold[inside], minlength=3) + 1) / (len(inside) + 3)
        model = bayes.MultinomialNB(alpha=0.3, class_prior=prior).fit(rows[inside], gold[inside])
        assert softmax(found[outside]) == pytest.approx(model.predict_proba(rows[outside]))


def test_two_witnesses() -> None:
    """One that knows nothing changes no answer; how frequent a label is counts once."""
    rng = np.random.default_rng(1)
    gold = (rng.random(4000) < 0.2).astype(np.int64)
    margin = np.where(gold == 1, 1.0, -1.0) + rng.normal(size=4000)  # log odds of 2 × margin, less those of labels
    prior = np.log(0.2 / 0.8)
    nothing = np.full(4000, prior)
    assert joined(2 * margin + prior, nothing, gold) == pytest.approx(2 * margin + prior, abs=0.5)
    other = np.where(gold == 1, 1.0, -1.0) + rng.normal(size=4000)
    both = joined(2 * margin + prior, 3 * (2 * other + prior), gold)  # the second one is too sure of itself
    assert both == pytest.approx(2 * margin + 2 * other + prior, abs=0.7)
    assert fit_temperature(both, gold) == pytest.approx(1.0, abs=1e-3)
    columns = np.stack([np.zeros(4000), 2 * margin + prior], axis=1)
    two = joined(columns, np.stack([np.zeros(4000), 2 * other + prior], axis=1), gold)
    one = joined(2 * margin + prior, 2 * other + prior, gold)
    assert two[:, 1] - two[:, 0] == pytest.approx(one, abs=0.1)
