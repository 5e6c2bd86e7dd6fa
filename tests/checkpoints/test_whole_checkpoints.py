"""Checkpoints that hold all of a model and something beside it, as other programs leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.families import CONFIGS, our_class, randomise
from helpers.plans import draw
from pocketbert import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, ConfigError
from pocketbert.checkpoints import read_tensors, write_tensors
from pocketbert.errors import CheckpointError
from pocketbert.models.auto import load_trained
from pocketbert.pipelines import pipeline
from pocketbert.runtime.engine import Engine
from pocketbert.tokenization import BertTokenizer

HEAD = "ForSequenceClassification"


def saved(folder: Path, name: str = "bert", prefix: str = "", **beside: np.ndarray) -> dict[str, np.ndarray]:
    """A classifier whose tensors have a prefix, with others beside them; returns the classifier's."""
    model: Any = our_class(CONFIGS[name], HEAD)(CONFIGS[name])
    randomise(model, 0)
    model.save_pretrained(folder)
    tensors = {key: np.array(tensor) for key, tensor in read_tensors(folder).items()}
    renamed = {f"{prefix}{key}": tensor for key, tensor in tensors.items()}
    write_tensors(folder / "model.safetensors", {**renamed, **{k.replace("__", "."): t for k, t in beside.items()}})
    return tensors


def logits(folder: Path) -> np.ndarray:
    return np.stack([output["logits"] for output in Engine.from_pretrained(folder, HEAD)(draw([9, 4]))])


@pytest.mark.parametrize(
    ("name", "prefix", "beside"),
    [
        (
            "bert",
            "",
            {"fit_denses__0__weight": np.zeros((3, 4), np.float32), "fit_dense__bias": np.zeros(3, np.float32)},
        ),
        ("squeezebert", "", {"loss_fct__weight": np.ones(2, np.float32)}),
        ("mobilebert", "", {"criterion__pos_weight": np.ones(2, np.float32)}),
        (
            "bert",
            "",
            {"class_weights": np.ones(2, np.float32), "ce_loss_fn__weight": np.ones(2, np.float32)},
        ),
        ("bert", "", {"linear__weight": np.ones((128, 32), np.float32)}),
        ("bert", "module.", {}),
        ("mobilebert", "module._orig_mod.", {}),
        ("squeezebert", "model.", {}),
    ],
)
def test_what_changes_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, prefix: str, beside: dict[str, np.ndarray]
) -> None:
    plain = saved(tmp_path / "plain", name)
    saved(tmp_path / "other", name, prefix, **beside)
    found = logits(tmp_path / "other")
    np.testing.assert_array_equal(found, logits(tmp_path / "plain"))
    noted = caplog.text
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "other")
    for key in beside:  # said aloud by the engine, and by the class
        assert all(key.replace("__", ".") in text for text in (noted, caplog.text.removeprefix(noted)))
    assert {key: tensor.numpy().tobytes() for key, tensor in model.state_dict().items()} == {
        key: tensor.tobytes() for key, tensor in plain.items()
    }


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("", {"crf__transitions": np.zeros((2, 2), np.float32)}),
        ("", {"bert__encoder__layer__9__output__dense__bias": np.zeros(4, np.float32)}),
        ("module.", {"crf__transitions": np.zeros((2, 2), np.float32)}),  # then the prefix is not all tensors'
    ],
)
def test_what_changes_answers_is_refused(tmp_path: Path, prefix: str, beside: dict[str, np.ndarray]) -> None:
    saved(tmp_path, "bert", prefix, **beside)
    for load in (logits, AutoModelForSequenceClassification.from_pretrained):
        with pytest.raises(CheckpointError, match="does not fit this model"):
            load(tmp_path)


def test_many_tensors_that_do_not_fit_are_not_all_listed(tmp_path: Path) -> None:
    """Case 24: no prefix fits, and the message stays short."""
    saved(tmp_path, "bert")
    tensors = {f"net.{key.replace('bert.', 'enc.')}": np.array(one) for key, one in read_tensors(tmp_path).items()}
    write_tensors(tmp_path / "model.safetensors", tensors)
    for load in (logits, AutoModelForSequenceClassification.from_pretrained):
        with pytest.raises(CheckpointError, match="does not fit this model") as error:
            load(tmp_path)
        assert len(str(error.value)) < 2500
    with pytest.raises(CheckpointError, match=r"(?s)lacks \d+ more\n.*\n  has \d+ more$"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_a_config_without_model_type(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    expected, known = logits(tmp_path), AutoConfig.from_pretrained(tmp_path)
    for value in ({}, {"model_type": None}, {"model_type": ""}):  # the class tells the family
        (tmp_path / "config.json").write_text(
            json.dumps({**{k: v for k, v in config.items() if k != "model_type"}, **value})
        )
        assert AutoConfig.from_pretrained(tmp_path) == known
        np.testing.assert_array_equal(logits(tmp_path), expected)
    (tmp_path / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if key not in ("model_type", "architectures")})
    )
    for load in (AutoConfig.from_pretrained, logits):
        with pytest.raises(
            ConfigError, match=r'config\.json has no model_type; add a line such as "model_type": "bert"'
        ):
            load(tmp_path)


def test_blank_lines_at_the_end_of_a_vocabulary(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film"]
    for end in ("", "\n", "\n\n", "\r\n\r\n\n"):
        (tmp_path / "vocab.txt").write_text("\n".join(tokens) + end, newline="")
        assert len(BertTokenizer.from_pretrained(tmp_path)) == len(tokens)
    (tmp_path / "vocab.txt").write_text("\n".join([*tokens[:5], "", *tokens[5:]]))  # a line within keeps its number
    assert AutoTokenizer.from_pretrained(tmp_path).convert_tokens_to_ids("the") == 6


@pytest.mark.parametrize("device", [None, "cpu"])
def test_pairs_for_a_model_with_one_segment(tmp_path: Path, device: str | None) -> None:
    """As BERTs made with RoBERTa's settings have it: both texts have that segment."""
    config = CONFIGS["bert"].replace(type_vocab_size=1)
    model: Any = our_class(config, HEAD)(config)
    randomise(model, 0)
    model.save_pretrained(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(config.vocab_size - 5))]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(tmp_path)
    pipe = pipeline("text-classification", tmp_path if device is None else load_trained(tmp_path, HEAD), tmp_path)
    pair, whole = pipe([{"text": "w1 w2", "text_pair": "w3"}], top_k=None), pipe(["w1 w2 [SEP] w3"], top_k=None)
    assert pair == whole
