"""The TensorFlow classes outside of eager calls: in graphs, compiled by XLA, in functional models, in PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pocketbert
from helpers.families import batch

from .cases import IDS, SHALLOW, SQUEEZED, assert_close_outputs, assert_same, pair, published, tf_class

CASES = [(SHALLOW, "ForPreTraining"), (SQUEEZED, "ForQuestionAnswering")]


@pytest.mark.parametrize(("config", "head"), CASES)
def test_compiled_by_xla(config: Any, head: str, tmp_path: Path) -> None:
    """PyTorch's numbers, the loss among them, and all that can be asked for."""
    import tensorflow as tf

    model, other = pair(config, head, tmp_path)
    inputs = batch(head, seed=5)
    compiled = tf.function(other, jit_compile=True)
    found = compiled(published(inputs, head), output_hidden_states=True, output_attentions=True)
    assert type(found) is type(other(IDS))
    with torch.no_grad():
        assert_same(model(**inputs, output_hidden_states=True, output_attentions=True), found)


@pytest.mark.parametrize(("config", "head"), [*CASES, (SHALLOW, "ForMultipleChoice")])
def test_any_batch_and_length_in_one_graph(config: Any, head: str) -> None:
    import tensorflow as tf

    model = tf_class(config, head)(config)
    axes = model.axes
    traced = tf.function(
        lambda ids, mask: model(ids, mask), input_signature=[tf.TensorSpec([None] * axes, tf.int64)] * 2
    )
    for rows, length in ((3, 7), (1, 1), (2, 40)):
        shape = (rows, length) if axes == 2 else (rows, 2, length)
        ids = np.random.default_rng(1).integers(0, config.vocab_size, shape)
        mask = np.broadcast_to(np.arange(shape[-1]) < 5, shape).astype(np.int64)
        assert_close_outputs(traced(ids, mask), model(ids, mask))
    assert traced.experimental_get_tracing_count() == 1


def test_functional_models() -> None:
    """A model of Keras around one of ours."""
    import keras

    encoder = tf_class(SQUEEZED, "Model")(SQUEEZED)
    ids = keras.Input((None,), dtype="int32")
    whole = keras.Model(ids, keras.layers.Dense(3)(encoder(ids).last_hidden_state))
    assert whole(IDS).shape == (16, 9, 3)
    assert len(whole.trainable_variables) == len(encoder.trainable_variables) + 2


@pytest.mark.parametrize(("config", "head"), CASES)
def test_saved_here_and_loaded_in_pytorch(config: Any, head: str, tmp_path: Path) -> None:
    other = tf_class(config, head)(config)
    other.save_pretrained(tmp_path)
    theirs = getattr(pocketbert, type(other).__name__.removeprefix("TF"))
    model, info = theirs.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    inputs = batch(head, seed=5)
    with torch.no_grad():
        assert_same(model.eval()(**inputs), other(published(inputs, head)))
