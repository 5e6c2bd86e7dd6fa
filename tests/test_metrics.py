"""Scores against scikit-learn and scipy on random and degenerate data; SQuAD and entities against worked examples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

from pocketbert import metrics
from pocketbert.errors import InputError

CLASSES = [np.random.default_rng(seed).integers(0, 2 + seed % 4, (2, 1 + 7 * seed)) for seed in range(12)]
CONSTANT = [np.zeros((2, 5), int), np.ones((2, 5), int), np.array([[0, 0, 0], [1, 1, 1]]), np.array([[1, 1], [0, 1]])]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # scikit-learn's, on degenerate input
@pytest.mark.parametrize("pairs", [CLASSES, CONSTANT], ids=["random", "constant"])
def test_classes_as_in_scikit_learn(pairs: list[NDArray[Any]]) -> None:
    for predictions, labels in pairs:
        assert metrics.accuracy(predictions, labels) == pytest.approx(sk.accuracy_score(labels, predictions))
        for average in ("macro", "micro"):
            expected = sk.f1_score(labels, predictions, average=average, zero_division=0)
            assert metrics.f1(predictions, labels, average) == pytest.approx(expected)
        expected = sk.f1_score(labels == 1, predictions == 1, zero_division=0)
        assert metrics.f1(predictions, labels) == pytest.approx(expected)
        expected = sk.matthews_corrcoef(labels, predictions)
        assert metrics.matthews_correlation(predictions, labels) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_several_labels_an_example(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predictions, labels = rng.integers(0, 2, (2, 20, 4)) * (seed > 0)
    assert metrics.accuracy(predictions, labels) == pytest.approx(sk.accuracy_score(labels, predictions))
    for average in ("macro", "micro"):
        expected = sk.f1_score(labels, predictions, average=average, zero_division=0)
        assert metrics.f1(predictions, labels, average) == pytest.approx(expected)
    with pytest.raises(InputError, match="binary"):
        metrics.f1(predictions, labels)


@given(arrays(np.float64, (2, 9), elements=st.floats(-4096, 4096, width=16)))
def test_correlations_as_in_scipy(pair: NDArray[Any]) -> None:
    x, y = pair
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
        assert metrics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    else:
        assert metrics.pearson(x, y) == metrics.spearman(x, y) == 0.0


def test_correlations_at_the_limits() -> None:
    x = np.arange(5.0)
    for scale in (1e-200, 1e200):
        assert metrics.pearson(x * scale, x) == pytest.approx(1.0)
    assert metrics.pearson([0.1] * 7, [*range(7)]) == 0.0  # its mean is not exactly 0.1
    assert metrics.spearman([1, 1, 2], [5, 5, 9]) == pytest.approx(1.0)
    assert np.isnan(metrics.pearson([1.0, np.nan, 2.0], [1.0, 2.0, 3.0]))
    assert np.isnan(metrics.spearman([1.0, np.nan, 2.0], [1.0, 2.0, 3.0]))


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.f1, metrics.pearson, metrics.matthews_correlation])
def test_what_cannot_be_scored_is_refused(metric: Callable[[Any, Any], float]) -> None:
    with pytest.raises(InputError, match="shapes differ"):
        metric(np.zeros((4, 1)), np.zeros(4))  # would broadcast to 4 by 4
    with pytest.raises(InputError, match="no labels to score against"):
        metric([], [])
    with pytest.raises(InputError, match="average"):
        metrics.f1([1], [1], "weighted")


def test_glue_tasks() -> None:
    assert metrics.glue_metrics("SST-2")([1, 0], [1, 1]) == {"accuracy": 0.5}
    assert metrics.glue_metrics("mrpc")([1, 0, 1], [1, 1, 0]) == {"accuracy": pytest.approx(1 / 3), "f1": 0.5}
    assert metrics.glue_metrics("sts_b")([1.0, 2.0], [0.0, 5.0]) == {"pearson": 1.0, "spearman": 1.0}
    assert metrics.glue_metrics("CoLA")([1, 1], [0, 1]) == {"matthews_correlation": 0.0}
    with pytest.raises(InputError, match="sst-2"):
        metrics.glue_metrics("snli")


# ── questions ──


def test_squad_normalisation() -> None:
    assert metrics.normalize_answer("The  Quick, (brown) fox's\tan Apple!") == "quick brown foxs apple"
    assert metrics.normalize_answer("the.") == ""
    assert metrics.normalize_answer("Ångström – another") == "ångström – another"  # ASCII punctuation alone goes


def test_squad_takes_the_best_gold_answer() -> None:
    references = {"a": ["Denver Broncos", "The Broncos"], "b": ["1989"], "c": ["x y"], "d": ["w"]}
    predictions = {"a": "broncos", "b": "in 1989", "c": "y z y", "unknown": "?"}
    scores = metrics.squad(predictions, references)
    assert scores == {"exact_match": 0.25, "f1": pytest.approx((1 + 2 / 3 + 2 / 5 + 0) / 4)}
    with pytest.raises(InputError, match="no questions"):
        metrics.squad({}, {})
    with pytest.raises(InputError, match="no questions"):
        metrics.squad_best_threshold({}, {}, {})


def test_squad_2_counts_no_answer() -> None:
    references = {"a": ["one"], "b": [], "c": [], "d": ["two"]}
    scores = metrics.squad({"a": "one", "b": "", "c": "three", "d": ""}, references)
    assert scores == {"exact_match": 0.5, "f1": 0.5, "has_answer_f1": 0.5, "no_answer_f1": 0.5}
    assert metrics.squad({}, {"b": []}) == {"exact_match": 0.0, "f1": 0.0, "no_answer_f1": 0.0}


def test_best_threshold_is_the_best_of_all() -> None:
    for seed in range(20):
        best_threshold_is_the_best(seed)


def best_threshold_is_the_best(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = [str(i) for i in range(12)]
    references = {key: ["gold answer"] if rng.random() < 0.5 else [] for key in ids}
    answers = {key: str(rng.choice(["gold answer", "gold", "wrong"])) for key in ids[:-1]}  # one has no prediction
    differences = {key: float(rng.integers(-3, 4)) for key in answers}  # with ties

    def at(threshold: float) -> metrics.Scores:
        chosen = {key: "" if differences[key] > threshold else answer for key, answer in answers.items()}
        return metrics.squad(chosen, references)

    found = metrics.squad_best_threshold(answers, differences, references)
    for name in ("exact_match", "f1"):
        assert found[f"best_{name}"] == pytest.approx(max(at(t)[name] for t in range(-4, 5)))
        assert found[f"best_{name}"] == pytest.approx(at(found[f"best_{name}_threshold"])[name])


# ── entities ──


def test_entity_f1_in_both_schemes() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "B-ORG"]]
    assert metrics.entity_f1(gold, gold) == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    iob1 = [["I-PER", "I-PER", "O", "I-LOC"], ["O", "I-ORG", "B-ORG"]]
    assert metrics.entity_f1(iob1, gold)["f1"] == 1.0
    bioes = [["B-PER", "E-PER", "O", "S-LOC"], ["O", "S-ORG", "S-ORG"]]
    assert metrics.entity_f1(bioes, gold)["f1"] == 1.0
    short = [["B-PER", "O", "O", "B-LOC"], ["O", "B-ORG", "I-ORG"]]  # LOC alone is right: 1 of 3, 1 of 4
    assert metrics.entity_f1(short, gold) == {
        "precision": pytest.approx(1 / 3),
        "recall": 0.25,
        "f1": pytest.approx(2 / 7),
    }


def test_entity_f1_without_entities() -> None:
    assert metrics.entity_f1([["O"]], [["O"]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    with pytest.raises(InputError, match="other lengths"):
        metrics.entity_f1([["O", "O"]], [["O"]])
    with pytest.raises(InputError, match="no sentences"):
        metrics.entity_f1([], [])


def test_texts_of_which_nothing_is_left_score_as_in_the_script_of_their_version() -> None:
    """Three gold answers of SQuAD 1.1's development set are ".": its script finds a match there, and no F1."""
    gold = {"a": ["interventionism", "."]}
    assert metrics.squad({"a": "the"}, gold) == {"exact_match": 1.0, "f1": 0.0}
    assert metrics.squad({"a": "interventionism"}, gold) == {"exact_match": 1.0, "f1": 1.0}
    two = metrics.squad({"a": "the", "b": "."}, {**gold, "b": []})
    assert two == {"exact_match": 0.5, "f1": 0.5, "has_answer_f1": 0.0, "no_answer_f1": 1.0}
