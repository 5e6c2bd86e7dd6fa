"""A file that leaves tensors to a bundled model is read whole, or refused; its numbers are those of a whole file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import our_class, randomise
from pocketbert import bundles
from pocketbert.checkpoints import open_tensors, read_tensors, shared, write_tensors
from pocketbert.checkpoints.safetensors_files import open_safetensors
from pocketbert.configs import SqueezeBertConfig
from pocketbert.errors import CheckpointError
from pocketbert.features import Features
from pocketbert.models.auto import AutoModelForSequenceClassification
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.quantized_folders import quantize_folder

WORDS = "transformer.embeddings.word_embeddings.weight"
POSITIONS = "transformer.embeddings.position_embeddings.weight"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the package have one bundled model, `small`, in int8, and another of other sizes."""
    folder = tmp_path / "bundled"
    for name, width in (("another", 32), ("small", 64)):
        config = SqueezeBertConfig(
            vocab_size=200, hidden_size=width, embedding_size=width, num_hidden_layers=1, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=64,
        )  # fmt: skip
        model = our_class(config, "ForMaskedLM")(config)
        randomise(model, width)
        model.save_pretrained(tmp_path / name)
        quantize_folder(tmp_path / name, folder / name)
    monkeypatch.setattr(bundles, "BUNDLED", folder)
    monkeypatch.setattr(shared, "BUNDLED", folder)
    return folder


@pytest.fixture
def tuned(bundled: Path, tmp_path: Path) -> Path:
    """A classifier made from the bundled model, with its embeddings."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(bundled / "small")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embeddings" not in name:
                parameter += torch.randn_like(parameter) / 50
    model.save_pretrained(tmp_path / "tuned")
    return tmp_path / "tuned"


def test_what_is_shared_is_read_from_the_bundled_model(bundled: Path, tuned: Path, tmp_path: Path) -> None:
    quantize_folder(tuned, tmp_path / "whole")
    quantize_folder(tuned, tmp_path / "part", share=True)
    own = open_safetensors(tmp_path / "part" / "model.safetensors")
    assert {WORDS, POSITIONS} <= open_safetensors(tmp_path / "whole" / "model.safetensors").keys() - own.keys()
    assert json.loads(own.metadata[shared.KEY])["model"] == "small"
    whole, part = read_tensors(tmp_path / "whole"), read_tensors(tmp_path / "part")
    assert whole.keys() == part.keys()
    for name, tensor in whole.items():
        np.testing.assert_allclose(part[name], tensor, rtol=1e-6)
    rng = np.random.default_rng()
    inputs = [Features(rng.integers(0, 200, n, dtype=np.int32), np.zeros(n, np.int32)) for n in (1, 7, 40)]
    engines = [Engine.from_pretrained(tmp_path / name, "ForSequenceClassification") for name in ("whole", "part")]
    for one, other in zip(*(engine(inputs) for engine in engines), strict=True):
        np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-4, atol=1e-5)
    again: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "part")
    assert again.config.num_labels == 2


def test_tensors_that_changed_are_not_shared(bundled: Path, tuned: Path, tmp_path: Path) -> None:
    tensors = read_tensors(tuned)
    tensors[WORDS][3] *= 1.5
    write_tensors(tuned / "model.safetensors", tensors)
    quantize_folder(tuned, tmp_path / "part", share=True)
    own = open_safetensors(tmp_path / "part" / "model.safetensors")
    assert {WORDS, f"{WORDS}_scale"} <= own.keys()
    assert POSITIONS not in own


def test_what_does_not_fit_is_refused(bundled: Path, tuned: Path, tmp_path: Path) -> None:
    quantize_folder(tuned, tmp_path / "part", share=True)
    file = tmp_path / "part" / "model.safetensors"
    own = open_safetensors(file)
    tensors, described = dict(own), json.loads(own.metadata[shared.KEY])
    for text, message in (
        ("no JSON", "description of its shared tensors"),
        (json.dumps(["small"]), "description of its shared tensors"),
        (json.dumps(described | {"model": "large"}), "bundled model large, which this version lacks"),
        (json.dumps(described | {"model": "../part"}), r"bundled model \.\./part, which this version lacks"),
        (json.dumps(described | {"tensors": {WORDS: "00000000"}}), f"needs {WORDS} of another version"),
        (json.dumps(described | {"tensors": {"no.such": "00000000"}}), "needs no.such of another version"),
    ):
        write_tensors(file, tensors, {"format": "pt", shared.KEY: text})
        with pytest.raises(CheckpointError, match=message):
            open_tensors(tmp_path / "part")
    other = SqueezeBertConfig(
        vocab_size=90,
        hidden_size=32,
        embedding_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
    )
    our_class(other, "Model")(other).save_pretrained(tmp_path / "foreign")
    with pytest.raises(CheckpointError, match=r"no bundled model \(another, small\) has tensors of this one"):
        quantize_folder(tmp_path / "foreign", tmp_path / "out", share=True)
    assert not (tmp_path / "out").exists()
