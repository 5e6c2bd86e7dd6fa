"""Models in PyTorch and TensorFlow with the same weights, their inputs, and when their outputs agree."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.families import CONFIGS, our_class, randomise
from pocketbert import PreTrainedConfig
from pocketbert.families import FAMILIES

if find_spec("tensorflow") is None:
    pytest.skip("the extra 'tf' is not installed", allow_module_level=True)

RELATIVE = 1e-5
OURS = {name: config for name, config in CONFIGS.items() if FAMILIES[config.model_type].tensorflow}
SHALLOW: Any = OURS["mobilebert"].replace(num_hidden_layers=1)
SQUEEZED: Any = OURS["squeezebert"].replace(num_hidden_layers=1)
IDS = np.random.default_rng(0).integers(0, SHALLOW.vocab_size, (16, 9))
LABELS = (IDS[:, 0] > SHALLOW.vocab_size // 2).astype(np.int64)


def tf_class(config: PreTrainedConfig, head: str) -> Any:
    from pocketbert import tf as pocketbert_tf

    return getattr(pocketbert_tf, f"TF{FAMILIES[config.model_type].class_name(head)}")


def pair(config: PreTrainedConfig, head: str, folder: Path) -> tuple[Any, Any]:
    """The same random model in PyTorch and, by way of a folder, in TensorFlow."""
    model = our_class(config, head)(config)
    randomise(model, seed=3)
    model.eval().save_pretrained(folder)
    other, info = tf_class(config, head).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    return model, other


def published(inputs: dict[str, Any], head: str) -> dict[str, np.ndarray]:
    """A batch as NumPy arrays, the labels under their name in TensorFlow."""
    names = {"labels": "next_sentence_label"} if head == "ForNextSentencePrediction" else {}
    return {names.get(name, name): np.asarray(value) for name, value in inputs.items()}


def assert_same(theirs: Any, ours: Any) -> None:
    """All fields of two outputs, each within RELATIVE of its largest number."""
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        several = isinstance(expected, tuple)
        for one, other in zip(
            expected if several else [expected], ours[name] if several else [ours[name]], strict=True
        ):
            wanted, found = one.detach().numpy(), other.numpy()
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= RELATIVE * np.abs(wanted).max(), name


def close(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return one.shape == other.shape and bool(np.abs(one - other).max() <= RELATIVE * np.abs(other).max())


def assert_close_outputs(one: Any, other: Any) -> None:
    assert list(one) == list(other)
    assert all(close(one[name], other[name]) for name in one)
