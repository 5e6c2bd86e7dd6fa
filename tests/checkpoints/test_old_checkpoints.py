"""The files that were really published, in small: every class loads them and computes what transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_writer
import torch
import transformers

import pocketbert
from helpers.families import CONFIGS, HEADS, randomise, theirs
from pocketbert import AutoModelForPreTraining, SqueezeBertConfig
from pocketbert.checkpoints.names import tensorflow_name

# Of config.json as published with squeezebert-uncased: the vocabulary is padded to a multiple of 8.
SQUEEZE = SqueezeBertConfig(
    vocab_size=30528, hidden_size=24, embedding_size=24, num_hidden_layers=2, num_attention_heads=12,
    intermediate_size=48,
)  # fmt: skip
STORED = (
    "attention_probs_dropout_prob", "embedding_size", "hidden_act", "hidden_dropout_prob", "hidden_size",
    "initializer_range", "intermediate_size", "max_position_embeddings", "model_type", "num_attention_heads",
    "num_hidden_layers", "type_vocab_size", "vocab_size", "q_groups", "k_groups", "v_groups", "post_attention_groups",
    "intermediate_groups", "output_groups",
)  # fmt: skip
INPUTS = {
    "input_ids": torch.tensor([[101, 2023, 103, 102], [101, 30521, 102, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}
POOLER = {"transformer.pooler.dense.bias", "transformer.pooler.dense.weight"}
FRESH = {
    "Model": set(),
    "ForPreTraining": {"cls.seq_relationship.bias", "cls.seq_relationship.weight"},
    "ForMaskedLM": set(),
    "ForSequenceClassification": {"classifier.bias", "classifier.weight"},
    "ForMultipleChoice": {"classifier.bias", "classifier.weight"},
    "ForTokenClassification": {"classifier.bias", "classifier.weight"},
    "ForQuestionAnswering": {"qa_outputs.bias", "qa_outputs.weight"},
}  # of an uncased checkpoint; its words have a head


@pytest.fixture(scope="module")
def uncased() -> Any:
    """transformers' model with weights that fp16 holds exactly."""
    model = transformers.SqueezeBertForMaskedLM(theirs(SQUEEZE)).eval()
    randomise(model, 0)
    return model.half().float()


def write_old(folder: Path, model: Any, without: tuple[str, ...], as_zip: bool, prefix: str = "transformer.") -> None:
    """As the first releases of transformers wrote it: fp16, older names, buffers among the weights."""
    state = {name: tensor.half() for name, tensor in model.state_dict().items() if not name.startswith(without)}
    if (decoder := "cls.predictions.decoder.weight") in state:
        state[decoder] = state["transformer.embeddings.word_embeddings.weight"]  # one storage, as they were tied
    state["transformer.embeddings.position_ids"] = torch.arange(512).expand(1, -1)
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {}
    for name, tensor in state.items():
        for new, former in older.items():
            name = name.replace(new, former)
        old[name.replace("transformer.", prefix, 1)] = tensor
    torch.save(old, folder / "pytorch_model.bin", _use_new_zipfile_serialization=as_zip)
    config = SQUEEZE.to_dict()
    (folder / "config.json").write_text(json.dumps({key: config[key] for key in STORED}))


def inputs_of(head: str) -> dict[str, torch.Tensor]:
    return {name: x[:, None] for name, x in INPUTS.items()} if head == "ForMultipleChoice" else INPUTS


@pytest.mark.parametrize(
    ("without", "as_zip"),
    [((), True), (("cls.predictions.decoder.bias",), False), (("cls.predictions.decoder",), True)],
)
def test_squeezebert_uncased(tmp_path: Path, uncased: Any, without: tuple[str, ...], as_zip: bool) -> None:
    write_old(tmp_path, uncased, without or ("nothing",), as_zip)
    reference = uncased(**INPUTS, output_hidden_states=True)
    for head, fresh in FRESH.items():
        cls = getattr(pocketbert, f"SqueezeBert{head}")
        model, info = cls.from_pretrained(tmp_path, output_loading_info=True)
        assert model.dtype == torch.float32
        assert set(info["missing_keys"]) == fresh
        output = model(**inputs_of(head), output_hidden_states=True)
        torch.testing.assert_close(output.hidden_states[-1], reference.hidden_states[-1], rtol=1e-5, atol=1e-5)
        if head in ("ForPreTraining", "ForMaskedLM"):
            assert info["unexpected_keys"] == []
            torch.testing.assert_close(output[0], reference.logits, rtol=1e-5, atol=1e-4)
        else:
            assert all(name.startswith("cls.predictions.") for name in info["unexpected_keys"])


@pytest.mark.parametrize("prefix", ["transformer.", ""], ids=["of a headed class", "of the encoder"])
def test_squeezebert_mnli_headless(tmp_path: Path, uncased: Any, prefix: str) -> None:
    """Neither pooler nor head: both start fresh, and are named."""
    write_old(tmp_path, uncased, ("cls.", "transformer.pooler."), True, prefix)
    reference = uncased(**INPUTS, output_hidden_states=True).hidden_states[-1]
    words = {
        f"cls.predictions.{name}"
        for name in ("bias", "transform.dense.weight", "transform.dense.bias", "transform.LayerNorm.weight",
                     "transform.LayerNorm.bias")
    }  # fmt: skip
    for head, fresh in FRESH.items():
        model, info = getattr(pocketbert, f"SqueezeBert{head}").from_pretrained(tmp_path, output_loading_info=True)
        pooler = {name.removeprefix("transformer.") for name in POOLER} if head == "Model" else POOLER
        scores = words if head in ("ForPreTraining", "ForMaskedLM") else set()
        assert set(info["missing_keys"]) == fresh | pooler | scores
        assert info["unexpected_keys"] == []
        states = model(**inputs_of(head), output_hidden_states=True).hidden_states
        torch.testing.assert_close(states[-1], reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("bert", "bert"),
        ("mobilebert", "mobilebert"),
        ("mobilebert, layer_norm, raw pooler", "mobilebert with layer_norm"),
        ("mobilebert, tiny F-2", "mobilebert"),
    ],
)
def test_tensorflow(tmp_path: Path, name: str, table: str) -> None:
    """A checkpoint and a configuration file of Google's code, loaded by name of the class and by family."""
    config = CONFIGS[name]
    family = "Bert" if table == "bert" else "MobileBert"
    reference = getattr(transformers, f"{family}ForPreTraining")(theirs(config)).eval()
    randomise(reference, 3)
    tensors = {"global_step": np.array(3)}
    for official, tensor in reference.state_dict().items():
        rule = tensorflow_name(official, table)
        if rule is not None:  # what is tied has no name of its own there
            tensors[rule.tensorflow] = tensor.numpy().T if rule.transposed else tensor.numpy()
            tensors[f"{rule.tensorflow}/adam_v"] = np.zeros(1, np.float32)
    tensorflow_writer.write_bundle(tmp_path / "bert_model.ckpt", tensors, shards=2)
    stored = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "true_hidden_size")}
    (tmp_path / f"{family.lower()}_config.json").write_text(json.dumps(stored))

    inputs = {"input_ids": torch.arange(1, 10).view(1, 9)}
    expected = reference(**inputs)
    for cls in (getattr(pocketbert, f"{family}ForPreTraining"), AutoModelForPreTraining):
        for place in (tmp_path, tmp_path / "bert_model.ckpt"):
            model, info = cls.from_pretrained(place, output_loading_info=True)
            assert not any(info.values()), info
            got = model(**inputs)
            for a, b in (
                (got.prediction_logits, expected.prediction_logits),
                (got.seq_relationship_logits, expected.seq_relationship_logits),
            ):
                scale = b.abs().max()
                torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=1e-5)


def test_every_head_is_here() -> None:
    assert set(FRESH) == {head for head in HEADS if hasattr(pocketbert, f"SqueezeBert{head}")}
