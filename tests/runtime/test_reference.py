"""Plans, interpreted, against the PyTorch models they were lowered from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.families import CONFIGS, all_that_matter, our_class, randomise
from helpers.plans import draw, run, tensors
from pocketbert import MobileBertConfig, PreTrainedConfig
from pocketbert.errors import CheckpointError
from pocketbert.models.predict import TorchPredictor
from pocketbert.runtime import reference
from pocketbert.runtime.lowering import lower


@pytest.mark.parametrize(("name", "head"), all_that_matter())
def test_equals_pytorch(name: str, head: str) -> None:
    equals_pytorch(CONFIGS[name], head)


def equals_pytorch(config: PreTrainedConfig, head: str, name: str = "") -> None:
    model = our_class(config, head)(config)
    randomise(model, 0)
    inputs = draw([1, 40, 7, 2, 23])
    lengths = [len(x.input_ids) for x in inputs]
    got = run(lower(config, tensors(model), head), inputs)
    expected = TorchPredictor(model)(inputs)
    if head == "ForPreTraining":
        expected = [{"logits": one.pop("prediction_logits"), **one} for one in expected]
    assert list(got) == list(expected[0])
    for key, array in got.items():
        per_token = len(array) == sum(lengths)
        parts = np.split(array, np.cumsum(lengths)[:-1]) if per_token else list(array)
        for part, result in zip(parts, expected, strict=True):
            scale = max(1.0, np.abs(result[key]).max())
            np.testing.assert_allclose(part / scale, result[key] / scale, atol=2e-5, err_msg=f"{name} {key}")


def test_norms_in_every_structure_of_mobilebert() -> None:
    """Layer norms cannot be folded into other steps, as factors are: another lowering of each structure."""
    for name, config in CONFIGS.items():
        if isinstance(config, MobileBertConfig):
            equals_pytorch(config.replace(normalization_type="layer_norm"), "ForPreTraining", name)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_no_sequence_sees_another(name: str) -> None:
    model = our_class(CONFIGS[name], "Model")(CONFIGS[name])
    randomise(model, 0)
    plan = lower(CONFIGS[name], tensors(model), "Model")
    inputs = draw([5, 11, 3])
    together = np.split(run(plan, inputs)["last_hidden_state"], [5, 16])
    for alone, part in zip(inputs, together, strict=True):
        np.testing.assert_allclose(run(plan, [alone])["last_hidden_state"], part, rtol=1e-4, atol=1e-4)


def test_the_folds_are_there() -> None:
    """The published MobileBERT: two linear steps where the model has five linears and two norms, and no norm at all."""
    config = CONFIGS["mobilebert"]
    model = our_class(config, "Model")(config)
    steps = str(lower(config, tensors(model), "Model"))
    assert "LayerNorm " not in steps
    assert steps.count("Attention") == config.num_hidden_layers
    # A layer: two steps into attention; after it the output, four networks of two, the way back.
    assert steps.count("Linear ") == 1 + config.num_hidden_layers * (2 + 1 + 2 * 4 + 1) + 1


def test_what_a_file_lacks_is_named() -> None:
    config = CONFIGS["bert"]
    model = our_class(config, "Model")(config)
    with pytest.raises(
        CheckpointError, match=r"lacks classifier.bias, classifier.weight, so the outputs would be random"
    ):
        lower(config, tensors(model), "ForSequenceClassification")
    wrong = tensors(model) | {"encoder.layer.1.output.dense.bias": np.zeros(31, np.float32)}
    with pytest.raises(CheckpointError, match=r"encoder.layer.1.output.dense.bias of shape \[31\], expected \[32\]"):
        lower(config, wrong, "Model")
    more = tensors(model) | {"encoder.layer.2.output.dense.bias": np.zeros(32, np.float32)}
    with pytest.raises(CheckpointError, match=r"does not fit this model: it has encoder.layer.2.output.dense.bias"):
        lower(config, more, "Model")
    with pytest.raises(CheckpointError, match=r"does not fit this model: it lacks encoder.layer.1"):
        lower(config, {k: v for k, v in tensors(model).items() if "layer.1.output.LayerNorm" not in k}, "Model")


def test_activations_equal_pytorch() -> None:
    from pocketbert.models.ops import ACTIVATIONS

    assert reference.ACTIVATIONS.keys() == ACTIVATIONS.keys() | {"gelu_to_int8"}
    x = np.linspace(-12, 12, 2001, dtype=np.float32)
    for name, activation in reference.ACTIVATIONS.items():
        official, tolerance = ("gelu", 2e-4) if name == "gelu_to_int8" else (name, 2e-6)
        expected = ACTIVATIONS[official](torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(activation(x), expected, atol=tolerance, err_msg=name)
        assert activation(x).dtype == np.float32, name


def test_a_coarser_gelu_is_exact_where_it_is_small_or_large() -> None:
    small, large = np.array([-0.01, 1e-5, 0.01], np.float32), np.array([-1000, -5, 0, 5, 1000], np.float32)
    got, exact = (reference.ACTIVATIONS[name](small) for name in ("gelu_to_int8", "gelu"))
    np.testing.assert_allclose(got, exact, rtol=1e-4)
    np.testing.assert_allclose(reference.ACTIVATIONS["gelu_to_int8"](large), np.maximum(large, 0), atol=1e-3)
