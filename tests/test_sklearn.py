"""The estimators as scikit-learn's own tools use them, and its checks of estimators where X need not be numbers."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks, get_tags

from helpers.labelled import NAMES, PLACES, VERBS, reviews, stories
from helpers.tokenizers import spelling, tokenizer_of
from pocketbert.pipelines import pipeline
from pocketbert.sklearn import TextClassifier, TextEncoder, TextRegressor, TokenClassifier

ROWS = reviews(60)
TEXTS, LABELS = np.array([text for text, _ in ROWS], dtype=object), np.array([label for _, label in ROWS])

#: scikit-learn's checks that need no X. Its others make X of numbers, which these estimators do not take:
#: `check_estimator` itself leaves them out, as the estimators' tags say that X are texts.
CHECKS = (
    "check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed", "check_valid_tag_types",
    "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_get_params_invariance",
    "check_set_params", "check_mixin_order", "check_do_not_raise_errors_in_init_or_set_param",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny encoder with random weights, the mean of whose tokens tells words apart."""
    torch = pytest.importorskip("torch")
    from pocketbert import AutoModel, BertConfig

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({word for text in TEXTS for word in text.split()} | {*NAMES, *PLACES, *VERBS, "in", "the", "."})
    config = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer_of(spelling(*words)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("estimator", [TextClassifier(), TextRegressor(), TextEncoder(), TokenClassifier()], ids=repr)
def test_checks_of_scikit_learn(estimator: Any) -> None:
    name = type(estimator).__name__
    ran = 0
    for check in CHECKS:
        if (function := getattr(estimator_checks, check, None)) is not None:  # versions differ in what they check
            function(name, estimator)
            ran += 1
    assert ran > 5
    tags = get_tags(estimator)
    assert (tags.input_tags.string, tags.input_tags.two_d_array) == (True, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        estimator_checks.check_estimator(estimator)


def test_a_classifier_in_the_tools_of_scikit_learn(encoder: str) -> None:
    """Search, cross-validation, pipeline, clone, pickle, set_output: the same answers in all."""
    model = TextClassifier(encoder)
    search = GridSearchCV(model, {"strength": [0.01, 30.0]}, cv=3).fit(TEXTS, LABELS)
    assert search.best_params_ == {"strength": 30.0}
    held = cross_val_predict(clone(model), TEXTS, LABELS, cv=3, method="predict_proba")
    assert held.shape == (60, 2)
    assert (np.array(["bad", "good"])[held.argmax(1)] == LABELS).mean() > 0.65
    fitted = model.fit(TEXTS, LABELS)
    assert fitted.score(TEXTS, LABELS) > 0.9
    assert list(map(str, fitted.classes_)) == ["bad", "good"]
    shares = fitted.predict_proba(TEXTS)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    np.testing.assert_array_equal(fitted.decision_function(TEXTS) > 0, shares[:, 1] > 0.5)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(list(TEXTS)), shares)
    piped = make_pipeline(TextEncoder(encoder, normalize=True), LogisticRegression(C=1000.0)).fit(TEXTS, LABELS)
    assert piped.score(TEXTS, LABELS) > 0.9


def test_vectors_as_a_frame(encoder: str) -> None:
    pytest.importorskip("pandas")
    vectors = TextEncoder(encoder).set_output(transform="pandas").fit_transform(list(TEXTS[:4]))
    assert vectors.shape == (4, 32)
    assert list(vectors.columns[:2]) == ["vector0", "vector1"]
    unit = TextEncoder(encoder, normalize=True).fit(TEXTS[:4]).transform(TEXTS[:4])
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-5)


def test_weights_and_numbers_of_classes(encoder: str, tmp_path: Path) -> None:
    """Examples of weight 0 do not count; classes may be numbers; the saved folder answers with their names."""
    noise = np.where(np.arange(60) % 3 == 0, 1 - (LABELS == "good"), LABELS == "good").astype(int)
    weights = (np.arange(60) % 3 != 0).astype(float)
    model = TextClassifier(encoder).fit(TEXTS, noise + 3, sample_weight=weights)
    assert list(map(int, model.classes_)) == [3, 4]
    assert (model.predict(TEXTS) - 3 == (LABELS == "good")).mean() > 0.8
    model.save(tmp_path / "model")
    answers = pipeline("text-classification", str(tmp_path / "model"))(list(TEXTS[:6]))
    assert [int(answer["label"]) for answer in answers] == model.predict(TEXTS[:6]).tolist()
    rare = np.array(["a"] * 57 + ["b"] * 3)
    plain, balanced = (
        TextClassifier(encoder, strength=0.1, class_weight=how).fit(TEXTS, rare).predict_proba(TEXTS)[:, 1].mean()
        for how in (None, "balanced")
    )
    assert balanced > 2 * plain


def test_several_labels_pairs_and_numbers(encoder: str) -> None:
    columns = np.stack([LABELS == "good", LABELS == "bad", np.arange(60) % 2 == 0], axis=1).astype(int)
    several = TextClassifier(encoder).fit(list(TEXTS), columns)
    assert several.predict(TEXTS).shape == (60, 3)
    assert (several.predict(TEXTS)[:, 0] == columns[:, 0]).mean() > 0.9
    pairs = np.stack([TEXTS, TEXTS[::-1]], axis=1)
    assert TextClassifier(encoder, strength=10.0).fit(pairs, LABELS).predict(pairs[:3]).shape == (3,)
    numbers = 5.0 + 2 * (LABELS == "good")
    regressor = TextRegressor(encoder).fit(TEXTS, numbers)
    assert regressor.score(TEXTS, numbers) > 0.5


def test_trained_estimators_answer_on_the_engine(encoder: str, tmp_path: Path) -> None:
    """Trained in PyTorch, pickled, and saved: the same answers; tags of words as well."""
    pytest.importorskip("torch")
    model = TextClassifier(encoder, finetune=True, max_steps=2, class_weight={"good": 2.0}).fit(TEXTS, LABELS)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert model.score(TEXTS, LABELS) > 0.8
    model.save(tmp_path / "model")
    answers = pipeline("text-classification", str(tmp_path / "model"))(list(TEXTS))
    assert [answer["label"] for answer in answers] == model.predict(TEXTS).tolist()
    words = [["the", name, verb, "in", town, "."] for name, verb, town in stories(40)]
    tags = [["O", "B-PER", "O", "O", "B-LOC", "O"]] * 40
    tagger = TokenClassifier(encoder, max_steps=3, learning_rate=1e-2).fit(words, tags)
    assert tagger.score(words, tags) > 0.5
    assert pickle.loads(pickle.dumps(tagger)).predict(words[:2]) == tagger.predict(words[:2])


def test_texts_and_labels_of_any_library(encoder: str) -> None:
    """Columns of pandas, polars and Arrow, of one and of two texts; classes that are categories, booleans, sparse."""
    pandas, polars, arrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    sparse = pytest.importorskip("scipy.sparse")
    expected = TextClassifier(encoder, strength=1.0).fit(TEXTS, LABELS).predict_proba(TEXTS[:4])
    texts, labels = TEXTS.tolist(), LABELS.tolist()
    for X, y in (
        (pandas.Series(texts, dtype="string"), pandas.Series(labels, dtype="category")),
        (pandas.DataFrame({"text": texts}), np.array(labels, dtype=object)),
        (polars.Series(texts), polars.Series(labels)),
        (polars.DataFrame({"text": texts}), tuple(labels)),
        (arrow.array(texts), arrow.chunked_array([labels[:7], labels[7:]])),
        (arrow.table({"text": texts}), np.array(labels)[:, None]),
        (tuple(texts), LABELS == "good"),
    ):
        np.testing.assert_allclose(TextClassifier(encoder, strength=1.0).fit(X, y).predict_proba(X[:4]), expected)
    columns = np.stack([LABELS == "good", np.arange(60) % 2 == 0], axis=1).astype(int)
    several = TextClassifier(encoder, strength=1.0).fit(texts, pandas.DataFrame(columns, columns=["good", "even"]))
    assert several.classes_.tolist() == ["good", "even"]
    same = TextClassifier(encoder, strength=1.0).fit(texts, sparse.csr_matrix(columns))
    np.testing.assert_array_equal(same.predict(texts), several.predict(texts))
    np.testing.assert_allclose(np.exp(several.predict_log_proba(texts)), several.predict_proba(texts))
    pairs = TextClassifier(encoder, strength=1.0).fit(arrow.table({"one": texts, "other": texts[::-1]}), labels)
    frame = pandas.DataFrame({"one": texts, "other": texts[::-1]})
    assert pairs.predict(frame).tolist() == pairs.predict(frame.to_numpy()).tolist()
    with pytest.raises(ValueError, match="X holds single texts, and the model was fitted to pairs"):
        pairs.predict(texts)


def test_seeds_as_scikit_learn_takes_them(encoder: str) -> None:
    for seed in (3, None, np.random.RandomState(3), np.int64(3)):
        assert TextClassifier(encoder, random_state=seed).fit(TEXTS, LABELS).score(TEXTS, LABELS) > 0.9


@pytest.mark.parametrize(
    ("X", "y", "problem"),
    [
        (TEXTS, np.zeros(60), "one class only"),
        ([], [], "X has no texts"),
        ("a text", ["a"], "must be a list or an array of texts"),
        ([1.0, 2.0], ["a", "b"], "row 0 holds a float"),
        ([["a", "b", "c"], ["d", "e", "f"]], ["a", "b"], "one column of texts, or two"),
        (["a", "b"], ["x", "y", "x"], "2 texts and y 3 labels"),
        (["a", "b"], np.array([[0, 2], [1, 0]]), "must hold 0 and 1"),
        (["a", "b"], [["x"], ["x", "y"]], "MultiLabelBinarizer"),
        (["a", "b"], None, "y is None"),
        (["a", "b"], ["x", None], "y lacks the label of row 1"),
        (["a", "b"], [1.0, np.nan], "y lacks the label of row 1"),
        (["a", "b"], [0.25, 0.5], "y holds fractions"),
        (np.array([b"a", b"b"]), ["x", "y"], "row 0 holds a bytes"),
        ([["a", b"b"], ["a", "b"]], ["x", "y"], "row 0 holds a bytes"),
    ],
)
def test_what_is_refused(encoder: str, X: Any, y: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TextClassifier(encoder).fit(X, y)
    with pytest.raises(ValueError, match="sample_weight has the shape"):
        TextClassifier(encoder).fit(["a", "b"], ["x", "y"], sample_weight=[1.0])
    with pytest.raises(ValueError, match="class_weight has 'z'"):
        TextClassifier(encoder, class_weight={"z": 2.0}).fit(["a", "b"], ["x", "y"])
    with pytest.raises(ValueError, match='must be "balanced"'):
        TextClassifier(encoder, class_weight="balance").fit(["a", "b"], ["x", "y"])
    for weights in ([1.0, -1.0], [0.0, 0.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="sample_weight must hold numbers from 0 on"):
            TextClassifier(encoder).fit(["a", "b"], ["x", "y"], sample_weight=weights)
    wrong: list[Any] = [0, -1.0, "strong"]
    for strength in wrong:
        with pytest.raises(ValueError, match="strength must be a number above 0"):
            TextClassifier(encoder, strength=strength).fit(["a", "b"], ["x", "y"])
    with pytest.raises(ValueError, match="max_length=0 leaves no room"):
        TextClassifier(encoder, max_length=0).fit(["a", "b"], ["x", "y"])


@pytest.mark.parametrize("y", [["x", "y"], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0], [2.0, 3.0]], [None, 1.0]])
def test_numbers_that_are_refused(encoder: str, y: Any) -> None:
    with pytest.raises(ValueError, match="y must h"):
        TextRegressor(encoder).fit(["a", "b"], y)
