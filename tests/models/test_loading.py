"""Loading and saving: what is forgiven, what is refused and how it is said, and that a failed save loses nothing."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pocketbert
from helpers.families import CONFIGS, HEADS, batch, our_class, randomise
from helpers.pairs import in_turn
from pocketbert import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForNextSentencePrediction,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    CheckpointError,
    ConfigError,
    SqueezeBertForMaskedLM,
    SqueezeBertForSequenceClassification,
    SqueezeBertModel,
)
from pocketbert.checkpoints import read_tensors, write_tensors
from pocketbert.models.auto import load_trained

FAMILIES = pytest.mark.parametrize("name", ["bert", "squeezebert", "mobilebert"])


def saved(name: str, head: str, folder: Path, **changes: Any) -> Any:
    config = CONFIGS[name].replace(**changes)
    model = our_class(config, head)(config).eval()
    randomise(model, 0)
    model.save_pretrained(folder)
    return model


def edit(folder: Path, **tensors: np.ndarray | None) -> None:
    """Replace, add or (None) drop tensors of a saved folder; `__` stands for a dot."""
    content: dict[str, Any] = {**read_tensors(folder)}
    for key, tensor in tensors.items():
        content[key.replace("__", ".")] = tensor
    write_tensors(folder / "model.safetensors", {k: t for k, t in content.items() if t is not None})


@pytest.mark.parametrize(("name", "head"), in_turn([(["bert", "squeezebert", "mobilebert"], HEADS)]))
def test_round_trip_is_exact(name: str, head: str, tmp_path: Path) -> None:
    model = saved(name, head, tmp_path)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert not again.training
    for (key, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), key
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    assert config["dtype"] == "float32"
    assert not [key for key in read_tensors(tmp_path) if "decoder" in key]  # tied: written once


@FAMILIES
def test_a_base_file_in_a_headed_class_says_what_starts_fresh(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = saved(name, "Model", tmp_path)
    cls = our_class(CONFIGS[name], "ForSequenceClassification")
    with caplog.at_level(logging.WARNING, "pocketbert"):
        model, info = cls.from_pretrained(tmp_path, output_loading_info=True)
        assert caplog.text == ""  # who asks is told once
        cls.from_pretrained(tmp_path)
    assert info["missing_keys"] == ["classifier.bias", "classifier.weight"]
    assert "classifier.bias, classifier.weight missing from the file: initialised randomly" in caplog.text
    assert not model.classifier.bias.any()
    assert 0.005 < model.classifier.weight.std() < 0.05
    inputs = batch("Model", seed=1)
    torch.testing.assert_close(model.base_model(**inputs)[0], base(**inputs)[0])


@FAMILIES
def test_a_headed_file_in_the_base_class(name: str, tmp_path: Path) -> None:
    headed = saved(name, "ForPreTraining", tmp_path)
    model, info = our_class(CONFIGS[name], "Model").from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert info["unexpected_keys"]
    assert all(key.startswith("cls.") for key in info["unexpected_keys"])
    inputs = batch("Model", seed=1)
    torch.testing.assert_close(model(**inputs)[0], headed.base_model(**inputs)[0])


def test_a_file_without_pooler(tmp_path: Path) -> None:
    """As squeezebert-mnli-headless is."""
    saved("squeezebert", "Model", tmp_path)
    edit(tmp_path, pooler__dense__weight=None, pooler__dense__bias=None)
    _, info = SqueezeBertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == [
        "classifier.bias", "classifier.weight", "transformer.pooler.dense.bias", "transformer.pooler.dense.weight",
    ]  # fmt: skip


def test_what_an_encoder_lacks_or_brings_is_refused_in_full(tmp_path: Path) -> None:
    saved("bert", "ForMaskedLM", tmp_path)
    extra = np.zeros(3, np.float32)
    edit(
        tmp_path,
        bert__embeddings__LayerNorm__weight=None,
        bert__encoder__layer__1__output__dense__bias=None,
        bert__encoder__layer__2__output__dense__bias=extra,
        something__else=extra,
    )
    with pytest.raises(CheckpointError) as error:
        BertForMaskedLM.from_pretrained(tmp_path)
    for part in (
        str(tmp_path),
        "lacks bert.embeddings.LayerNorm.weight [32]",
        "lacks bert.encoder.layer.1.output.dense.bias [32]",
        "has bert.encoder.layer.2.output.dense.bias, which BertForMaskedLM does not have",
        "has something.else, which BertForMaskedLM does not have",
    ):
        assert part in str(error.value)


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    saved("bert", "ForSequenceClassification", tmp_path, num_labels=3)
    with pytest.raises(CheckpointError, match=r"classifier.weight of shape \[3, 32\], expected \[5, 32\]"):
        BertForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    model, info = BertForSequenceClassification.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert sorted(info["mismatched_keys"]) == ["classifier.bias", "classifier.weight"]
    assert model.head_layers[0].weight.shape == (5, 32)
    with pytest.raises(CheckpointError, match="word_embeddings"):  # the encoder must always fit
        BertForSequenceClassification.from_pretrained(tmp_path, vocab_size=98, ignore_mismatched_sizes=True)


def test_two_word_matrices_under_a_tie_are_refused(tmp_path: Path) -> None:
    saved("squeezebert", "ForMaskedLM", tmp_path, tie_word_embeddings=False)
    untied = SqueezeBertForMaskedLM.from_pretrained(tmp_path)
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight
    with pytest.raises(CheckpointError, match="tie_word_embeddings=False"):
        SqueezeBertForMaskedLM.from_pretrained(tmp_path, tie_word_embeddings=True)


def test_half_precision_files_are_read_as_fp32(tmp_path: Path) -> None:
    model = saved("squeezebert", "ForMaskedLM", tmp_path)
    model.half().save_pretrained(tmp_path)
    assert SqueezeBertForMaskedLM.from_pretrained(tmp_path).dtype == torch.float32
    assert SqueezeBertForMaskedLM.from_pretrained(tmp_path, dtype=torch.float16).dtype == torch.float16
    model.bfloat16().save_pretrained(tmp_path)
    again = SqueezeBertForMaskedLM.from_pretrained(tmp_path)
    bias = "cls.predictions.bias"
    assert torch.equal(again.get_parameter(bias), model.get_parameter(bias).float())


def test_configuration_of_another_family(tmp_path: Path) -> None:
    saved("bert", "Model", tmp_path)
    with pytest.raises(ConfigError, match="model_type='bert' is not 'squeezebert'"):
        SqueezeBertModel.from_pretrained(tmp_path)


def test_unknown_keys_of_config_json_survive(tmp_path: Path) -> None:
    saved("bert", "Model", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"my_note": [1, 2], "torch_dtype": "float16"}))
    BertModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again["my_note"] == [1, 2]
    assert "torch_dtype" not in again  # what is written is fp32


def test_auto_classes_follow_the_model_type(tmp_path: Path) -> None:
    for name in ("bert", "squeezebert", "mobilebert"):
        saved(name, "ForMaskedLM", tmp_path / name)
        family = CONFIGS[name].model_type
        assert type(AutoModelForMaskedLM.from_pretrained(tmp_path / name)) is our_class(CONFIGS[name], "ForMaskedLM")
        assert AutoModel.from_config(CONFIGS[name]).config.model_type == family
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / name, num_labels=4)
        assert model.head_layers[0].out_features == 4
    with pytest.raises(ConfigError, match="SqueezeBertForNextSentencePrediction does not exist"):
        AutoModelForNextSentencePrediction.from_pretrained(tmp_path / "squeezebert")


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    saved("bert", "Model", tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    BertModel.from_pretrained(tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved("bert", "Model", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        model.embeddings.LayerNorm.bias.fill_(7.0)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file"):
        pocketbert.BertModel(CONFIGS["bert"]).save_pretrained(tmp_path / "file" / "model")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x00" * 64]
)
def test_damaged_weights(content: bytes, tmp_path: Path) -> None:
    saved("bert", "Model", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        BertModel.from_pretrained(tmp_path)


def test_truncated_weights(tmp_path: Path) -> None:
    saved("bert", "Model", tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for cut in (7, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            BertModel.from_pretrained(tmp_path)


def test_no_weights(tmp_path: Path) -> None:
    saved("bert", "Model", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        BertModel.from_pretrained(tmp_path)


# ── models for inference, which must be trained ──


def test_a_model_of_another_task_is_refused_by_its_class(tmp_path: Path) -> None:
    saved("bert", "ForTokenClassification", tmp_path)
    with pytest.raises(CheckpointError, match=r"is a BertForTokenClassification: .*ForSequenceClassification"):
        load_trained(tmp_path, "ForSequenceClassification")


def test_what_a_trained_model_may_lack(tmp_path: Path) -> None:
    """A head that reads the pooled state cannot do without the pooler; the words of a language model can."""
    saved("bert", "ForSequenceClassification", tmp_path / "classifier")
    load_trained(tmp_path / "classifier", "ForSequenceClassification")
    edit(tmp_path / "classifier", bert__pooler__dense__weight=None)
    with pytest.raises(CheckpointError, match=r"lacks bert\.pooler\.dense\.weight, so the outputs would be random"):
        load_trained(tmp_path / "classifier", "ForSequenceClassification")
    saved("bert", "Model", tmp_path / "encoder")
    edit(tmp_path / "encoder", pooler__dense__weight=None, pooler__dense__bias=None)
    assert load_trained(tmp_path / "encoder", "Model").config.hidden_size == CONFIGS["bert"].hidden_size
