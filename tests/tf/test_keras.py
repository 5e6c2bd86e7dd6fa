"""The TensorFlow classes as Keras models: packed inputs, fresh weights, and what is refused."""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import batch
from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert import InputError
from pocketbert.errors import CheckpointError, ConfigError, MissingExtraError

from .cases import (
    IDS,
    LABELS,
    OURS,
    SHALLOW,
    assert_close_outputs,
    assert_same,
    close,
    pair,
    published,
    tf_class,
)

# ── how inputs come ──


def test_packed_inputs() -> None:
    model = tf_class(SHALLOW, "Model")(SHALLOW)
    mask, types = np.tri(16, 9, 4, dtype=np.int64), IDS % 2
    expected = model(input_ids=IDS, attention_mask=mask, token_type_ids=types)
    for same in (
        model({"input_ids": IDS, "attention_mask": mask, "token_type_ids": types}),
        model([IDS, mask, types]),
        model((IDS, mask, types)),
        model([IDS, mask], token_type_ids=types),
        model(IDS, mask, types),
        model(input_ids={"input_ids": IDS, "attention_mask": mask, "token_type_ids": types}),
    ):
        assert_close_outputs(same, expected)
    as_tuple = model({"input_ids": IDS, "return_dict": False, "output_hidden_states": True})
    assert isinstance(as_tuple, tuple)
    assert len(as_tuple) == 3
    assert len(as_tuple[2]) == 2


def test_what_a_tokenizer_returns() -> None:
    words = [*SPECIAL, "a"]
    tokenizer = tokenizer_of(words)
    encoding = tokenizer(["a a", "a"], padding=True, return_tensors="tf")
    model = tf_class(SHALLOW, "ForSequenceClassification")(SHALLOW)
    assert_close_outputs(model(encoding), model(**encoding))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "pass exactly one of input_ids and inputs_embeds"),
        ({"input_ids": IDS, "inputs_embeds": np.ones((16, 9, 32))}, "pass exactly one"),
        ({"input_ids": IDS[0]}, r"a batch is input_ids \[B, S\] or inputs_embeds \[B, S, E\], not \[9\]"),
        ({"input_ids": np.ones((1, 41), int)}, "41 tokens are more than max_position_embeddings=40"),
        ({"input_ids": IDS + 99}, r"^input_ids from \d+ to \d+ do not fit a table of 99 rows$"),
        ({"input_ids": IDS, "position_ids": IDS - 60}, "position_ids from .* do not fit a table of 40 rows"),
        ({"input_ids": IDS, "head_mask": np.ones(4)}, "heads cannot be masked"),
        ({"input_ids": {"ids": IDS}}, "packed inputs are some of input_ids, .*: not ids"),
        ({"input_ids": {"attention_mask": IDS}, "attention_mask": IDS}, "not attention_mask"),
    ],
)
def test_bad_inputs(inputs: dict[str, Any], says: str) -> None:
    model = tf_class(SHALLOW, "Model")(SHALLOW)
    with pytest.raises(InputError, match=says):
        model(**inputs)


def test_bad_construction(tmp_path: Path) -> None:
    import pocketbert.tf

    with pytest.raises(ConfigError, match="TFMobileBertModel needs a MobileBertConfig, not a SqueezeBertConfig"):
        pocketbert.tf.TFMobileBertModel(OURS["squeezebert"])
    with pytest.raises(ConfigError, match="num_labels=3 must be 2 to find spans"):
        pocketbert.tf.TFMobileBertForQuestionAnswering(SHALLOW.replace(num_labels=3))
    tf_class(SHALLOW, "ForSequenceClassification")(SHALLOW).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks mobilebert\.encoder\.layer\.1\..*\n"):
        pocketbert.tf.TFMobileBertForMaskedLM.from_pretrained(tmp_path, num_hidden_layers=2, from_pt=True)
    with pytest.raises(CheckpointError, match=r"has classifier\.weight of shape \[2, 64\], expected \[3, 64\]"):
        pocketbert.tf.TFMobileBertForSequenceClassification.from_pretrained(tmp_path, num_labels=3)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "bfloat16", "float64"])
def test_another_precision(policy: str) -> None:
    import keras

    import pocketbert.tf

    keras.config.set_dtype_policy(policy)
    try:
        with pytest.raises(ConfigError, match=f"policy is {policy}, but TFMobileBertModel computes in float32: build"):
            pocketbert.tf.TFMobileBertModel(SHALLOW)
    finally:
        keras.config.set_dtype_policy("float32")


def test_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    import pocketbert.tf

    monkeypatch.setattr("keras.backend.backend", lambda: "torch")
    with pytest.raises(MissingExtraError, match=r"Keras runs on torch here: set .* KERAS_BACKEND=tensorflow"):
        importlib.reload(pocketbert.tf)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, when it writes weights
def test_keras_files(tmp_path: Path) -> None:
    """A `.keras` file holds the configuration and the weights, and loads by name."""
    import keras

    model = tf_class(SHALLOW, "ForSequenceClassification")(SHALLOW.replace(num_labels=3))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    assert again.config == model.config
    assert_close_outputs(again(IDS), model(IDS))


# ── the trigram, ties, problem types ──


def test_mask_aware_trigram(tmp_path: Path) -> None:
    config = SHALLOW.replace(mask_aware_trigram=True)
    model, other = pair(config, "Model", tmp_path)
    mask = np.tri(16, 9, 4, dtype=np.int64)
    with torch.no_grad():
        expected = model(torch.from_numpy(IDS), torch.from_numpy(mask))
    assert_same(expected, other(IDS, mask))
    assert not close(other(IDS, mask).pooler_output, other(IDS, mask * 0 + 1).pooler_output)
    with pytest.raises(InputError, match=r"mask_aware_trigram needs an attention_mask of \[batch, sequence\]"):
        other(IDS, mask[:, None, None, :])


def test_word_scores_of_their_own(tmp_path: Path) -> None:
    config = SHALLOW.replace(tie_word_embeddings=False)
    model, other = pair(config, "ForMaskedLM", tmp_path / "a")
    inputs = batch("ForMaskedLM", seed=5)
    with torch.no_grad():
        assert_same(model(**inputs), other(published(inputs, "ForMaskedLM")))
    other.save_pretrained(tmp_path / "b")
    again = type(model).from_pretrained(tmp_path / "b")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_problem_types(labels: int, kind: type, tmp_path: Path) -> None:
    """Settled by the first labels, as in PyTorch."""
    model, other = pair(SHALLOW.replace(num_labels=labels), "ForSequenceClassification", tmp_path)
    wanted = LABELS.astype(kind) if labels == 1 or kind is np.int64 else np.eye(3, dtype=kind)[IDS[:, 0] % 3]
    with torch.no_grad():
        expected = model(torch.from_numpy(IDS), labels=torch.from_numpy(wanted))
    assert_same(expected, other(IDS, labels=wanted))
    assert other.config.problem_type == model.config.problem_type


def test_fresh_weights() -> None:
    """Drawn as PyTorch's."""
    model = tf_class(OURS["squeezebert"], "ForPreTraining")(OURS["squeezebert"])
    for name, (variable, _) in model._named_weights().items():
        value = variable.numpy()
        if name.endswith("bias"):
            assert not value.any(), name
        elif "norm" in name.lower():
            assert (value == 1).all(), name
        else:
            error = 1 / math.sqrt(2 * value.size)  # standard error of the deviation, relative
            assert value.std() == pytest.approx(0.02, rel=6 * error), name
    assert not model.transformer.embeddings.word_embeddings.weight.numpy()[0].any()
