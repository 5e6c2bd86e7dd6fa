"""`CrossEncoder` against sentence-transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.sentences import TEXTS, copy, declare, transformers_encoder
from pocketbert import CrossEncoder
from pocketbert.errors import CheckpointError, InputError

PAIRS = [(TEXTS[0], text) for text in TEXTS] + [(text, TEXTS[3]) for text in TEXTS]
Made = dict[int, tuple[CrossEncoder, Any, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Number of labels → ours, theirs, and the folder that sentence-transformers wrote."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import CrossEncoder as Reference

    found: Made = {}
    for labels in (1, 3):
        base, out = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("out")
        seed = int(np.random.default_rng().integers(1000))
        Reference(str(transformers_encoder(base, seed=seed, labels=labels)), device="cpu").save(str(out))
        found[labels] = CrossEncoder(out), Reference(str(out), device="cpu"), out
    return found


CALLS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "softmax": {"apply_softmax": True},
    "prompt": {"prompt": "query: "},
    "batch_size": {"batch_size": 3, "show_progress_bar": False, "device": "cpu"},
}


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("name", CALLS)
def test_predict(made: Made, labels: int, name: str) -> None:
    ours, theirs, _ = made[labels]
    for inputs in (PAIRS, PAIRS[0], [list(pair) for pair in PAIRS], np.array(PAIRS[:3]), [], PAIRS[:1]):
        found, expected = ours.predict(inputs, **CALLS[name]), theirs.predict(inputs, **CALLS[name])
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("labels", [1, 3])
def test_activations(made: Made, labels: int) -> None:
    import torch

    ours, theirs, out = made[labels]
    for function in (torch.nn.Identity(), torch.nn.Sigmoid(), torch.nn.Tanh()):
        expected = theirs.predict(PAIRS, activation_fn=function)
        name = f"torch.nn.modules.{'linear' if isinstance(function, torch.nn.Identity) else 'activation'}."
        name += type(function).__name__
        for given in (function, name):
            np.testing.assert_allclose(ours.predict(PAIRS, activation_fn=given), expected, atol=1e-5)
            np.testing.assert_allclose(CrossEncoder(out, activation_fn=given).predict(PAIRS), expected, atol=1e-5)
    doubled = ours.predict(PAIRS, activation_fn=lambda x: 2 * x)
    assert np.array_equal(doubled, 2 * ours.predict(PAIRS, activation_fn="torch.nn.Identity"))
    with pytest.raises(InputError, match="Softmax"):
        ours.predict(PAIRS, activation_fn=torch.nn.Softmax())
    with pytest.raises(InputError, match="must be a function"):
        ours.predict(PAIRS, activation_fn=3)


def test_declared_activations(made: Made, tmp_path: Path) -> None:
    """In the settings of version 4 and later, in config.json of 4, and in that of older ones."""
    from sentence_transformers import CrossEncoder as Reference

    identity = "torch.nn.modules.linear.Identity"
    _, _, out = made[1]
    config = json.loads((out / "config.json").read_text())
    for number, files in enumerate(
        (
            {"config_sentence_transformers.json": {"model_type": "CrossEncoder", "activation_fn": identity}},
            {"config.json": {**config, "sentence_transformers": {"activation_fn": identity}}},
            {"config.json": {**config, "sbert_ce_default_activation_function": identity}},
        )
    ):
        path = copy(out, tmp_path / str(number))
        (path / "config_sentence_transformers.json").unlink()
        declare(path, files)
        expected = Reference(str(path), device="cpu").predict(PAIRS)
        assert ((expected < 0) | (expected > 1)).any()  # no sigmoid
        np.testing.assert_allclose(CrossEncoder(path).predict(PAIRS), expected, atol=1e-5)


def test_rank(made: Made) -> None:
    ours, theirs, _ = made[1]
    for options in ({}, {"top_k": 2}, {"return_documents": True}, {"top_k": 99, "prompt": "query: "}):
        found, expected = ours.rank("the film", TEXTS, **options), theirs.rank("the film", TEXTS, **options)
        assert [one["corpus_id"] for one in found] == [one["corpus_id"] for one in expected]
        assert [one.keys() for one in found] == [one.keys() for one in expected]
        assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)
    assert ours.rank("the film", []) == []
    ties = ours.rank("the film", ["dull"] * 3)
    assert [one["corpus_id"] for one in ties] == [0, 1, 2]
    with pytest.raises(InputError, match="this one has 3"):
        made[3][0].rank("the film", TEXTS)
    with pytest.raises(InputError, match="several texts, not one"):
        ours.rank("the film", "dull")


def test_lengths(made: Made) -> None:
    from sentence_transformers import CrossEncoder as Reference

    _, _, out = made[1]
    ours, theirs = CrossEncoder(out, max_length=12), Reference(str(out), max_length=12, device="cpu")
    assert ours.max_length == ours.max_seq_length == theirs.max_seq_length == 12
    np.testing.assert_allclose(ours.predict(PAIRS), theirs.predict(PAIRS), atol=1e-5)


def test_what_cannot_be_meant(models: dict[str, Path], tmp_path: Path) -> None:
    model = CrossEncoder(models["classify"])
    for inputs, message in (
        ([("a", "b", "c")], "a pair of texts"),
        ([("a", 3)], "is not a text"),
        ("ab", "a pair of texts"),
        ({"a": "b"}, "neither"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict(inputs)
    with pytest.raises(InputError, match="num_labels=7: the model has"):
        CrossEncoder(models["classify"], num_labels=7)
    with pytest.raises(CheckpointError, match="cross-encoder/no-such-model"):
        CrossEncoder("no-such-model")
    path = declare(copy(models["classify"], tmp_path / "model"), {"1_Pooling/config.json": {}})
    with pytest.raises(CheckpointError, match="declares a pooling"):
        CrossEncoder(path)
