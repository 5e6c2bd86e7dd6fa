"""Heads on frozen vectors: the minimum, against scikit-learn; folds; the folder that is saved, on every path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tokenizers import spelling, tokenizer_of
from pocketbert.bundles import ENCODER
from pocketbert.configs import AutoConfig
from pocketbert.errors import CheckpointError
from pocketbert.features import encode_texts
from pocketbert.frozen.encoder import HEAD, FrozenClassifier, FrozenEncoder, normal
from pocketbert.frozen.linear import CLASSES, NUMBER, SEVERAL, fit_head, out_of_sample
from pocketbert.frozen.minimize import minimize
from pocketbert.runtime.engine import Engine

RANDOM = np.random.default_rng(7)
LABELLED = ["the film is great", "great film", "is great", "dull film .", "the film is dull", "dull"]


def test_the_minimum_of_a_narrow_valley() -> None:
    """Rosenbrock's function in ten dimensions, from a random start."""

    def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray]:
        up, ahead = x[1:] - x[:-1] ** 2, 1 - x[:-1]
        slope = np.zeros_like(x)
        slope[:-1] = -400 * x[:-1] * up - 2 * ahead
        slope[1:] += 200 * up
        return float(100 * (up**2).sum() + (ahead**2).sum()), slope

    start = np.random.default_rng().normal(1.0, 0.3, 10)
    np.testing.assert_allclose(minimize(rosenbrock, start), 1.0, atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 90), (120, 12)])
@pytest.mark.parametrize("problem", [CLASSES, SEVERAL, NUMBER])
def test_heads_are_those_of_scikit_learn(shape: tuple[int, int], problem: str) -> None:
    """The same weights for the same strength and sample weights, on vectors far from zero and of any size."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng()
    vectors = (random.normal(size=shape) * 5 + 40).astype(np.float32)
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=1).mean())
    weights = random.uniform(0.2, 3.0, len(vectors))
    weights /= weights.mean()
    targets: Any = random.integers(0, 3, len(vectors))
    if problem == SEVERAL:
        targets = np.stack([targets == 0, targets != 1], axis=1).astype(float)
    elif problem == NUMBER:
        targets = 100 + 7 * random.normal(size=len(vectors))
    head = fit_head(vectors, targets, problem, 1 if problem == NUMBER else 3 - (problem == SEVERAL),
                    weights=weights, strength=4.0)  # fmt: skip
    if problem == CLASSES:
        model = linear_model.LogisticRegression(C=4.0, tol=1e-9, max_iter=5000)
        expected = model.fit(centred / scale, targets, weights).predict_proba(centred / scale)
        got = head.probabilities(vectors)
    elif problem == SEVERAL:
        got = head.probabilities(vectors)
        expected = np.stack([
            linear_model.LogisticRegression(C=4.0, tol=1e-9, max_iter=5000)
            .fit(centred / scale, column, weights).predict_proba(centred / scale)[:, 1]
            for column in targets.T
        ], axis=1)  # fmt: skip
    else:
        ridge = linear_model.Ridge(alpha=1 / 4.0).fit(centred / scale, targets, weights)
        got, expected = head.logits(vectors)[:, 0], ridge.predict(centred / scale)
    np.testing.assert_allclose(got, expected, atol=2e-3 * (np.ptp(targets) if problem == NUMBER else 1))


def test_out_of_sample_never_sees_its_own_label() -> None:
    """Random labels cannot be told, though a head fits them; groups stay together; folds are the seed's."""
    vectors = RANDOM.normal(size=(60, 40)).astype(np.float32)
    labels = np.arange(60) % 2
    assert (fit_head(vectors, labels, CLASSES, 2, strength=1000.0).logits(vectors).argmax(1) == labels).all()
    first = out_of_sample(vectors, labels, CLASSES, 2, strength=1000.0)
    assert (first.argmax(1) == labels).mean() < 0.75
    np.testing.assert_array_equal(first, out_of_sample(vectors, labels, CLASSES, 2, strength=1000.0))
    twice = np.concatenate([vectors[:30], vectors[:30]])
    chance, known = (
        (out_of_sample(twice, np.tile(labels[:30], 2), CLASSES, 2, strength=1000.0, groups=groups).argmax(1)
         == np.tile(labels[:30], 2)).mean()
        for groups in (np.tile(np.arange(30), 2), None)
    )  # fmt: skip
    assert chance < 0.8 < known


def test_weak_vectors_get_a_strong_penalty() -> None:
    """Where vectors tell nothing, cross-validation leaves probabilities near the classes' shares."""
    vectors, labels = RANDOM.normal(size=(80, 50)).astype(np.float32), np.arange(80) % 4
    head = fit_head(vectors, labels, CLASSES, 4)
    assert head.strength < 1.0
    assert head.probabilities(vectors).max() < 0.6
    clear = vectors + 10 * np.eye(4, 50, dtype=np.float32)[labels]
    shares = fit_head(clear, labels, CLASSES, 4).probabilities(clear)
    assert (shares.argmax(1) == labels).all()
    assert 0.9 < shares.max(1).mean() < 0.999


def test_a_class_may_have_one_example() -> None:
    vectors, labels = RANDOM.normal(size=(9, 5)).astype(np.float32), np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    assert fit_head(vectors, labels, CLASSES, 3).weight.shape == (3, 5)
    assert out_of_sample(vectors, labels, CLASSES, 3).shape == (9, 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FrozenClassifier]:
    """A classifier on the bundled encoder, which is in int8."""
    encoder = FrozenEncoder(ENCODER, max_length=32)
    targets = np.array([1, 1, 1, 0, 0, 0])
    model = FrozenClassifier(encoder, fit_head(normal(encoder.vectors(LABELLED)), targets, CLASSES, 2))
    folder = tmp_path_factory.mktemp("frozen") / "model"
    model.save(folder, encoder.config.replace(id2label={0: "no", 1: "yes"}, problem_type=CLASSES))
    return folder, model


def test_the_saved_folder_answers_alike(saved: tuple[Path, FrozenClassifier]) -> None:
    """On the engine, in int8 as the encoder is, to rounding; the encoder's other heads are gone."""
    folder, model = saved
    given = encode_texts(model.encoder.tokenizer, [*LABELLED, "", "marie curie " * 9], max_length=32)
    expected = np.stack([output["logits"] for output in model(given)])
    got = np.stack([output["logits"] for output in Engine.from_pretrained(folder, HEAD)(given)])
    np.testing.assert_allclose(got, expected, atol=0.05)
    config = AutoConfig.from_pretrained(folder)
    assert (config.quantized, config.classifier_input, config.tuned_for) == (True, "normalized_mean", HEAD)
    assert [config.id2label[i] for i in got[:6].argmax(1)] == ["yes"] * 3 + ["no"] * 3


def test_pytorch_reads_the_saved_folder(saved: tuple[Path, FrozenClassifier]) -> None:
    pytest.importorskip("torch")
    from pocketbert.models.auto import load_trained
    from pocketbert.models.predict import TorchPredictor

    folder, model = saved
    given = encode_texts(model.encoder.tokenizer, LABELLED, max_length=32)
    expected = np.stack([output["logits"] for output in model(given)])
    got = np.stack([output["logits"] for output in TorchPredictor(load_trained(folder, HEAD))(given)])
    assert np.abs(got - expected).max() < 0.5  # fp32 against int8
    assert (got.argmax(1) == expected.argmax(1)).all()


def test_a_headless_encoder_and_its_first_token(tmp_path: Path) -> None:
    """Files without the prefix of the encoder, whose declaration says that its vectors are those of [CLS]."""
    torch = pytest.importorskip("torch")
    from pocketbert import BertConfig, BertModel
    from pocketbert.models.auto import load_trained
    from pocketbert.models.predict import TorchPredictor

    torch.manual_seed(0)
    config = BertConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=24, max_position_embeddings=32)  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tokenizer_of(spelling("the", "film", "is", "great", "dull")).save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder/1_Pooling").mkdir()
    (tmp_path / "encoder/1_Pooling/config.json").write_text('{"pooling_mode": "cls"}')
    encoder = FrozenEncoder(tmp_path / "encoder")
    assert encoder.reads == "cls"
    head = fit_head(
        normal(encoder.vectors(LABELLED)), np.array([1.0, 2.0, 1.5, -1.0, -2.0, -1.5]), NUMBER, 1, strength=5.0
    )
    model = FrozenClassifier(encoder, head)
    model.save(tmp_path / "model", encoder.config.replace(num_labels=1, problem_type=NUMBER))
    given = encode_texts(encoder.tokenizer, LABELLED)
    expected = [float(output["logits"][0]) for output in model(given)]
    for predictor in (
        Engine.from_pretrained(tmp_path / "model", HEAD),
        TorchPredictor(load_trained(tmp_path / "model", HEAD)),
    ):
        np.testing.assert_allclose([float(output["logits"][0]) for output in predictor(given)], expected, atol=1e-3)


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        FrozenEncoder(tmp_path)
