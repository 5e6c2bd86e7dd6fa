"""The first step of a run on a small table: never worse than its own head on frozen vectors, and said so."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.labelled import reviews
from helpers.tokenizers import spelling, tokenizer_of
from pocketbert.configs import AutoConfig, BertConfig
from pocketbert.features import encode_texts
from pocketbert.frozen.encoder import HEAD, FrozenClassifier, FrozenEncoder, normal
from pocketbert.frozen.linear import CLASSES, fit_head
from pocketbert.models.auto import AutoModel
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.runtime.engine import Engine
from pocketbert.tasks.classification import TextClassification
from pocketbert.tokenization import AutoTokenizer

ROWS = reviews(60)


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    """A tiny encoder with random weights, the mean of whose tokens tells words apart."""
    torch.manual_seed(0)
    words = sorted({word for text, _ in ROWS for word in text.split()})
    config = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path / "encoder")
    tokenizer_of(spelling(*words)).save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


def test_the_first_step_is_the_head_and_is_kept(encoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A rate that ruins the model: what is saved is step 0, which the engine runs; and training goes on from it."""
    caplog.set_level(logging.INFO, "pocketbert")
    options = FinetuneOptions(
        data=ROWS, output=tmp_path / "out", model=encoder, max_steps=3, learning_rate=5.0, eval_every=3, clip=1e9,
        device="cpu", precision="fp32", tensorboard=False,
    )  # fmt: skip
    result = finetune(options)
    assert [entry["step"] for entry in result.history] == [0, 3]
    assert result.best_step == 0
    assert result.metrics["accuracy"] >= 0.8 > result.history[1]["accuracy"]
    assert "step 0 is a linear head on frozen vectors" in caplog.text
    assert "fine-tuning did not improve on the linear head on frozen vectors" in caplog.text
    assert "initialised randomly" not in caplog.text
    assert "24 examples per label" not in caplog.text
    assert "27 examples per label is few-shot data: --few-shot" in caplog.text
    config = AutoConfig.from_pretrained(result.folder)
    assert (config.classifier_input, config.tuned_for) == ("normalized_mean", HEAD)
    # The same head as without PyTorch, but for the dev set.
    alone = FrozenEncoder(encoder)
    texts, labels = [text for text, _ in ROWS], np.array([label == "good" for _, label in ROWS]).astype(int)
    frozen = FrozenClassifier(alone, fit_head(normal(alone.vectors(texts)), labels, CLASSES, 2))
    given = encode_texts(alone.tokenizer, texts)
    answers = [
        np.array([output["logits"].argmax() for output in predictor(given)])
        for predictor in (frozen, Engine.from_pretrained(result.folder, HEAD))
    ]
    assert (answers[0] == answers[1]).mean() > 0.9

    again = finetune(
        FinetuneOptions(data=ROWS, output=None, model=str(result.folder), max_steps=1, learning_rate=1e-5, device="cpu")
    )
    assert [entry["step"] for entry in again.history] == [1]  # a head for these labels is there: nothing to begin with
    assert again.metrics["accuracy"] >= 0.8


def test_without_it_the_head_is_the_families_own(encoder: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pocketbert")
    result = finetune(
        FinetuneOptions(data=ROWS, output=None, model=encoder, max_steps=1, frozen_start=False, device="cpu")
    )
    assert result.model is not None
    assert result.model.config.classifier_input is None
    assert [entry["step"] for entry in result.history] == [1]
    assert "initialised randomly" in caplog.text


def test_what_learned_nothing_is_said(encoder: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pocketbert")
    rows = [("the same text", label) for label in ("a", "b", "b") * 8]
    finetune(FinetuneOptions(data=rows, output=None, model=encoder, max_steps=1, device="cpu"))
    assert "the model is no better than the majority class: its accuracy is" in caplog.text
    assert "always predicting 'b'" in caplog.text


def test_the_baseline_is_trained_on_the_same_split(
    encoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Classes, several labels and numbers; words that decide are all that TF-IDF needs."""
    pytest.importorskip("sklearn")
    caplog.set_level(logging.INFO, "pocketbert")
    result = finetune(
        FinetuneOptions(data=ROWS, output=tmp_path / "out", model=encoder, max_steps=1, baseline=True, device="cpu")
    )
    baseline = json.loads((result.folder / "run.json").read_text())["baseline"]
    assert baseline["accuracy"] >= 0.8
    assert f"TF-IDF with logistic regression: accuracy {baseline['accuracy']:.4f}; the model" in caplog.text
    several = [(text, [label, "any"] if i % 3 else [label]) for i, (text, label) in enumerate(ROWS)]
    numbers = [(text, 1.5 + (label == "good")) for text, label in ROWS]
    for rows, metric in ((several, "micro_f1"), (numbers, "pearson")):
        data = TextClassification(FinetuneOptions(data=rows, eval_data=rows[:20]))
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        config, _ = data.configure(AutoConfig.from_pretrained(encoder))
        assert data.evaluation(tokenizer, config, 32).score_baseline(data.train, 1)[metric] > 0.9
