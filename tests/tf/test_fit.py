"""The TensorFlow classes being trained: losses, gradients, dropout, and what does not train."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.families import HEADS, batch
from helpers.seeds import SEED
from pocketbert import InputError

from .cases import IDS, LABELS, OURS, RELATIVE, SHALLOW, SQUEEZED, close, pair, published, tf_class

LABEL_NAMES = {"labels", "next_sentence_label", "start_positions", "end_positions"}


# ── losses ──


@pytest.mark.parametrize("head", HEADS[1:])
def test_the_loss_that_keras_sees(head: str) -> None:
    """With labels among the inputs, or as `y`: the loss of the head."""
    config = SHALLOW.replace(num_labels=2)
    model = tf_class(config, head)(config)
    inputs = published(batch(head, seed=5), head)
    labels = [inputs[name] for name in model.label_names]
    bare = {name: value for name, value in inputs.items() if name not in LABEL_NAMES}
    expected = model(inputs).loss
    assert model(bare).loss is None
    model.compile(optimizer="sgd", run_eagerly=True)
    assert close(model.test_on_batch(inputs), expected)
    assert close(model.test_on_batch(bare, labels[0] if len(labels) == 1 else labels), expected)
    assert close(model.test_on_batch(bare, dict(zip(model.label_names, labels, strict=True))), expected)
    with pytest.raises(InputError, match=f"needs {' and '.join(model.label_names)}"):
        model.test_on_batch(bare)
    with pytest.raises(InputError, match=f"{len(labels) + 1} labels were given; this head takes "):
        model.test_on_batch(bare, [*labels, labels[0]])


@pytest.mark.learning
def test_fit_evaluate_predict() -> None:
    """In a graph."""
    import keras

    keras.utils.set_random_seed(SEED)
    model = tf_class(SQUEEZED, "ForSequenceClassification")(SQUEEZED)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), metrics=["accuracy"], jit_compile=False)
    inputs = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    losses = model.fit(inputs, LABELS, epochs=15, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < 0.1 < 0.6 < losses[0]
    assert model.evaluate(inputs, LABELS, verbose=0)[1] == 1.0
    answers = model.predict({**inputs, "labels": LABELS}, verbose=0)
    assert list(answers) == ["logits"]
    assert (answers.logits.argmax(-1) == LABELS).all()


@pytest.mark.slow
@pytest.mark.parametrize(("config", "head"), [(SHALLOW, "ForPreTraining"), (SQUEEZED, "ForTokenClassification")])
def test_fit_with_labels_among_the_inputs(config: Any, head: str) -> None:
    """The first epoch's loss is that of the weights before it; the second's is lower. Once with XLA."""
    import keras

    model = tf_class(config, head)(config)
    inputs = published(batch(head, seed=5), head)
    expected = model(inputs).loss
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=None, jit_compile=config is SQUEEZED)
    first, second = model.fit(inputs, epochs=2, verbose=0).history["loss"]
    assert close(first, expected)
    assert second < first


# ── gradients ──


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("mobilebert", "ForPreTraining"),
        ("mobilebert, layer_norm, raw pooler", "ForSequenceClassification"),
        ("mobilebert, bottleneck attention with an unused shared one", "ForMaskedLM"),
        ("mobilebert, no bottleneck, as wide as its embeddings", "ForNextSentencePrediction"),
        ("squeezebert", "ForPreTraining"),
        ("squeezebert, a different group everywhere", "ForQuestionAnswering"),
    ],
)
def test_gradients(name: str, head: str, tmp_path: Path) -> None:
    """PyTorch's, of every weight; what has none there does not train here, so Keras has nothing to warn of."""
    import tensorflow as tf

    model, other = pair(OURS[name].replace(num_hidden_layers=1), head, tmp_path)
    inputs = batch(head, seed=5)
    inputs["input_ids"][:, -2:] = 0  # padding, which learns nothing but as a word to be guessed
    model(**inputs).loss.backward()
    expected: dict[str, Any] = {key: None if p.grad is None else p.grad.numpy() for key, p in model.named_parameters()}
    with tf.GradientTape() as tape:
        loss = other(published(inputs, head)).loss
    variables = other.trainable_variables
    found = dict(zip([id(v) for v in variables], tape.gradient(loss, variables), strict=True))
    named = other._named_weights()
    noise = 1e-6 * max(np.abs(value).max() for value in expected.values() if value is not None)
    assert {key for key, (variable, _) in named.items() if variable.trainable} == {
        key for key, value in expected.items() if value is not None
    }
    for key, (variable, transposed) in named.items():
        if variable.trainable:
            gradient = tf.convert_to_tensor(found[id(variable)]).numpy()
            wanted = expected[key]
            apart = np.abs((gradient.T if transposed else gradient) - wanted).max()
            assert apart <= RELATIVE * np.abs(wanted).max() + noise, key  # that of a key's bias is nothing but noise


# ── dropout ──


@pytest.mark.parametrize(
    ("config", "where"),
    [
        (SHALLOW.replace(classifier_dropout=0.0), "hidden_dropout_prob"),
        (SHALLOW.replace(classifier_dropout=0.0), "attention_probs_dropout_prob"),
        (SHALLOW, "classifier_dropout"),
        (SQUEEZED, "hidden_dropout_prob"),
        (SQUEEZED, "attention_probs_dropout_prob"),
    ],
)
def test_dropout_only_in_training(config: Any, where: str) -> None:
    plain = tf_class(config, "ForSequenceClassification")(config)
    model = tf_class(config, "ForSequenceClassification")(config.replace(**{where: 0.5}))
    model.set_weights(plain.get_weights())
    expected = plain(IDS).logits
    assert close(plain(IDS, training=True).logits, expected)
    assert close(model(IDS).logits, expected)
    assert close(model(IDS, training=False).logits, expected)
    once, again = model(IDS, training=True).logits, model(IDS, training=True).logits
    assert not close(once, expected)
    assert not close(once, again)
