"""`tf_model.h5`: files as transformers' TensorFlow classes wrote them, and damaged ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import CONFIGS, batch, our_class, randomise
from pocketbert.checkpoints import read_tensors
from pocketbert.errors import CheckpointError, MissingExtraError

h5py = pytest.importorskip("h5py", reason="the extra 'tf' is not installed")


def keras_path(name: str, norm: str) -> str:
    """The path of an official name in a `tf_model.h5`, from what the published classes call their parts."""
    *parts, leaf = name.split(".")
    if leaf == "weight":
        if "LayerNorm" in parts:
            leaf = "gamma" if norm == "layer_norm" or "transform" in parts else "weight"
        elif parts[-1] in ("position_embeddings", "token_type_embeddings"):
            leaf = "embeddings"
        elif parts[-1] not in ("word_embeddings", "decoder") and name != "cls.predictions.dense.weight":
            leaf = "kernel"
    elif leaf == "bias" and "LayerNorm" in parts and (norm == "layer_norm" or "transform" in parts):
        leaf = "beta"
    path = "/".join([*parts, leaf])
    for number in range(3):
        path = path.replace(f"/layer/{number}/", f"/layer_._{number}/").replace(f"/ffn/{number}/", f"/ffn.{number}/")
    path = path.replace("cls/predictions/", "predictions___cls/predictions/")
    return path.replace("cls/seq_relationship/", "seq_relationship___cls/seq_relationship/")


def write_keras(path: Path, model: Any, scope: str) -> None:
    """The state of a model, as Keras 2 laid it out: a group a layer, and in it the whole path of each variable."""
    with h5py.File(path, "w") as file:
        for name, tensor in model.state_dict().items():
            if name == "cls.predictions.decoder.bias":
                continue  # TensorFlow has one bias
            variable = keras_path(name, model.config.normalization_type)
            value = tensor.numpy()
            file[f"{variable.partition('/')[0]}/{scope}/{variable}:0"] = (
                np.ascontiguousarray(value.T) if variable.endswith("kernel") else value
            )
        file.create_group("top_level_model_weights").attrs["weight_names"] = []


@pytest.mark.parametrize(
    ("name", "head", "scope"),
    [
        ("mobilebert", "ForPreTraining", "tf_mobile_bert_for_pre_training_1"),
        ("mobilebert, layer_norm, raw pooler", "ForMaskedLM", "tf_mobile_bert_for_masked_lm"),
        ("mobilebert, tiny F-2", "ForQuestionAnswering", "tf_mobile_bert_for_question_answering"),
        ("mobilebert", "ForNextSentencePrediction", "tf_mobile_bert_for_next_sentence_prediction"),
    ],
)
def test_the_same_model(name: str, head: str, scope: str, tmp_path: Path) -> None:
    model = our_class(CONFIGS[name], head)(CONFIGS[name])
    randomise(model, seed=1)
    model.eval().config.save_pretrained(tmp_path)
    write_keras(tmp_path / "tf_model.h5", model, scope)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    inputs = batch(head, seed=2)
    with torch.no_grad():
        assert torch.equal(model(**inputs)[1], again(**inputs)[1])


def test_word_scores_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """TensorFlow trains them apart from the word embeddings; in files that never had any, they are zero."""
    config = CONFIGS["mobilebert"].replace(tie_word_embeddings=False)
    model = our_class(config, "ForMaskedLM")(config)
    randomise(model, seed=1)
    CONFIGS["mobilebert"].save_pretrained(tmp_path)
    with torch.no_grad():
        model.cls.predictions.bias.copy_(model.cls.predictions.decoder.bias)
    write_keras(tmp_path / "tf_model.h5", model, "tf_mobile_bert_for_masked_lm")
    with pytest.raises(CheckpointError, match="pass tie_word_embeddings=False to keep both"):
        type(model).from_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, tie_word_embeddings=False)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))

    with torch.no_grad():
        model.cls.predictions.decoder.weight.zero_()
    write_keras(tmp_path / "tf_model.h5", model, "tf_mobile_bert_for_masked_lm")
    with caplog.at_level(logging.WARNING, logger="pocketbert"):
        tied = type(model).from_pretrained(tmp_path)
    assert not caplog.records
    assert torch.equal(tied.cls.predictions.decoder.weight, tied.get_input_embeddings().weight)


class TestBadInput:
    def test_no_keras_file(self, tmp_path: Path) -> None:
        (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF and then nothing")
        with pytest.raises(CheckpointError, match=r"tf_model\.h5 is damaged or not a Keras file"):
            read_tensors(tmp_path)

    def test_truncated(self, tmp_path: Path) -> None:
        path = tmp_path / "tf_model.h5"
        with h5py.File(path, "w") as file:
            file["classifier/tf_x/classifier/kernel:0"] = np.zeros((400, 3), np.float32)
        whole = path.read_bytes()
        for size in (100, 1000, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match=r"damaged|truncated"):
                read_tensors(path)

    def test_numbers_elsewhere(self, tmp_path: Path) -> None:
        """A file cannot make us read another one, nor fill the memory."""
        (tmp_path / "secret").write_bytes(bytes(16))
        path = tmp_path / "tf_model.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("a", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
        with pytest.raises(CheckpointError, match="a is not stored as Keras stores weights"):
            read_tensors(path)
        with h5py.File(path, "w") as file:
            file.create_dataset("a", (10**6,), "f4", chunks=(10**5,), compression="gzip")
        with pytest.raises(CheckpointError, match="a is not stored as Keras stores weights"):
            read_tensors(path)
        with h5py.File(path, "w") as file:
            file.create_dataset("a", (10**9,), "f4")  # which takes no place in the file until it is written
        with pytest.raises(CheckpointError, match="a is larger than the whole file"):
            read_tensors(path)
        with h5py.File(path, "w") as file:
            file["a"] = h5py.ExternalLink("other.h5", "/x")
        assert not read_tensors(path)

    def test_twice(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "tf_model.h5", "w") as file:
            file["classifier/tf_x/classifier/kernel:0"] = np.zeros((2, 3), np.float32)
            file["classifier/tf_x/classifier/weight:0"] = np.zeros((3, 2), np.float32)
        with pytest.raises(CheckpointError, match=r"has classifier\.weight twice"):
            read_tensors(tmp_path)

    def test_h5py_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF")
        monkeypatch.setattr("pocketbert.checkpoints.keras_files.find_spec", lambda name: None)
        monkeypatch.setattr("pocketbert.errors.find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"pip install 'pocketbert\[tf\]'"):
            read_tensors(tmp_path)


def test_read_by_tensorflow_classes(tmp_path: Path) -> None:
    """The same numbers there as in PyTorch."""
    pytest.importorskip("tensorflow", reason="the extra 'tf' is not installed")
    from pocketbert.tf import TFMobileBertForQuestionAnswering

    model = our_class(CONFIGS["mobilebert"], "ForQuestionAnswering")(CONFIGS["mobilebert"])
    randomise(model, seed=3)
    model.eval().config.save_pretrained(tmp_path)
    write_keras(tmp_path / "tf_model.h5", model, "tf_mobile_bert_for_question_answering")
    other, info = TFMobileBertForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    inputs = batch("ForQuestionAnswering", seed=5)
    with torch.no_grad():
        expected = model(**inputs)
    found = other({name: value.numpy() for name, value in inputs.items()})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-5, atol=1e-5 * float(value.abs().max()))
