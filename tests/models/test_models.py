"""What all three families must do, beyond agreeing with transformers on plain inputs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import pocketbert
from helpers.families import CONFIGS, batch, each_in_turn, our_class, randomise
from helpers.pairs import in_turn
from pocketbert import ConfigError, InputError, MobileBertConfig, SqueezeBertConfig
from pocketbert.configs import PRESETS
from pocketbert.families import FAMILIES
from pocketbert.models import ops

EACH = pytest.mark.parametrize("name", list(CONFIGS))
EACH_FAMILY = pytest.mark.parametrize("name", list(FAMILIES))  # for what depends on nothing that configurations vary

EACH_HEAD = in_turn(([model_type], list(family.heads)) for model_type, family in FAMILIES.items())


def build(name: str, head: str = "Model", **changes: Any) -> Any:
    config = CONFIGS[name].replace(**changes)
    model = our_class(config, head)(config).eval()
    randomise(model, 0)
    return model


@pytest.mark.parametrize(("name", "head"), each_in_turn())
def test_every_class_trains_a_step(name: str, head: str) -> None:
    model = our_class(CONFIGS[name], head)(CONFIGS[name]).train()
    output = model(**batch(head, seed=1))
    pooled = output.loss if head != "Model" else output.pooler_output
    (output.last_hidden_state if pooled is None else pooled).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@EACH
def test_attention_probabilities_sum_to_one_and_respect_the_mask(name: str) -> None:
    inputs = batch("Model", seed=2)
    output = build(name)(**inputs, output_attentions=True, output_hidden_states=True)
    assert len(output.attentions) == 2
    assert len(output.hidden_states) == 3
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        assert not weights[1, ..., 7:].any()


@EACH_FAMILY
def test_masks_of_three_and_four_axes_mean_the_same(name: str) -> None:
    model, inputs = build(name), batch("Model", seed=3)
    mask = inputs.pop("attention_mask")
    expected = model(**inputs, attention_mask=mask).last_hidden_state
    for wide in (mask[:, None, :].expand(-1, 11, -1), mask[:, None, None, :]):
        torch.testing.assert_close(model(**inputs, attention_mask=wide).last_hidden_state, expected)


@EACH
def test_a_row_with_everything_masked_is_finite(name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model, inputs = build(name).to(dtype), batch("Model", seed=4)
        inputs["attention_mask"][0] = 0
        for weights in (False, True):
            assert model(**inputs, output_attentions=weights).last_hidden_state.isfinite().all()


@EACH_FAMILY
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    grads = []
    for checkpointing in (False, True):
        model = build(name, "ForMaskedLM").train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        runs: list[Any] = []
        model.base_model.layers[0].register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        model(**batch("ForMaskedLM", seed=5)).loss.backward()
        assert len(runs) == 1 + checkpointing  # once more for the backward pass
        grads.append({key: p.grad for key, p in model.named_parameters()})
    for key, grad in grads[0].items():
        assert (grad is None) == (grads[1][key] is None)
        if grad is not None:
            torch.testing.assert_close(grad, grads[1][key], msg=key)


@pytest.mark.parametrize(("name", "head"), EACH_HEAD)
def test_embeddings_in_place_of_ids(name: str, head: str) -> None:
    model, inputs = build(name, head), batch(head, seed=12)
    ids = inputs.pop("input_ids")
    ids[ids == model.config.pad_token_id] = 9  # some families know the padding by its id
    torch.testing.assert_close(
        model(**inputs, inputs_embeds=model.get_input_embeddings()(ids))[0], model(ids, **inputs)[0]
    )


@EACH_FAMILY
def test_dropout_falls_only_in_training(name: str) -> None:
    model, inputs = build(name, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5), batch("Model", seed=6)
    assert torch.equal(model(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
    model.train()
    assert not torch.equal(model(**inputs).last_hidden_state, model(**inputs).last_hidden_state)


@pytest.mark.parametrize("with_weights", [True, False])
def test_dropout_on_probabilities(with_weights: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 9, 24) for _ in range(3))
    plain, _ = ops.attend(q, k, v, 3, None, 0.0, with_weights)
    dropped, weights = ops.attend(q, k, v, 3, None, 0.5, with_weights)
    assert not torch.allclose(plain, dropped)
    if weights is not None:  # they are those before the dropout
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 9))


@pytest.mark.parametrize("with_weights", [True, False])
def test_a_low_score_on_top_of_the_mask_stays_finite(with_weights: bool) -> None:
    q, k, v = torch.full((1, 3, 4), -100.0).half(), torch.full((1, 3, 4), 100.0).half(), torch.ones(1, 3, 4).half()
    context, _ = ops.attend(q, k, v, 1, ops.keep_mask(torch.zeros(1, 3)), 0.0, with_weights)
    assert context.isfinite().all()


@EACH
def test_half_precision_follows_fp32(name: str) -> None:
    model, inputs = build(name), batch("Model", seed=7)
    expected = model(**inputs).last_hidden_state
    for dtype, tolerance in ((torch.float16, 0.02), (torch.bfloat16, 0.15)):
        got = build(name).to(dtype)(**inputs).last_hidden_state.float()
        assert (got - expected).norm() / expected.norm() < tolerance
        with torch.autocast("cpu", dtype=dtype):
            got = model(**inputs).last_hidden_state.float()
        assert (got - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"])
def test_mobilebert_survives_a_stream_that_fp16_cannot_hold(head: str) -> None:
    """The published weights reach 2.5e7 on the first feature of [CLS]; fp16 ends at 65,504."""
    name, tiny = "mobilebert, layer_norm, raw pooler", 2.0**-20
    model = build(name, head, normalization_type="no_norm")
    with torch.no_grad():
        for layer in model.base_model.layers:
            layer.output["bottleneck"].dense.bias[0] = 30.0
            layer.output["bottleneck"].LayerNorm.weight[0] = 30_000.0
            for reader in (
                layer.bottleneck["input"].dense,
                layer.bottleneck["attention"].dense,
                layer.attention["self"].value,
            ):
                reader.weight[:, 0] = tiny
    inputs = {k: v for k, v in batch(head, seed=8).items() if k != "labels"}
    expected = model(**inputs)[0]
    for narrow, autocast in ((model, True), (copy.deepcopy(model).half(), False)):
        with torch.autocast("cpu", dtype=torch.float16, enabled=autocast):
            output = narrow(**inputs, output_hidden_states=True)
        assert output.hidden_states[-1].dtype == torch.float32
        assert output.hidden_states[-1].max() > 65504
        assert output[0].isfinite().all()
        assert (output[0].float() - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_mobilebert_keeps_its_stream_in_fp32(dtype: torch.dtype, autocast: bool) -> None:
    model = build("mobilebert") if autocast else build("mobilebert").to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        states = model(**batch("Model", seed=13), output_hidden_states=True).hidden_states
    assert {state.dtype for state in states} == {torch.float32}


def test_mask_aware_trigram_makes_padding_harmless() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    padded = {"input_ids": torch.tensor([[5, 6, 7, 8, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]])}
    for aware in (True, False):
        model = build("mobilebert", mask_aware_trigram=aware)  # with a random row for padding, as published files have
        alone = model(ids).last_hidden_state
        together = model(**padded).last_hidden_state[:, :4]
        assert torch.allclose(alone, together, rtol=1e-4, atol=1e-4) == aware
    with pytest.raises(InputError, match="mask_aware_trigram"):
        build("mobilebert", mask_aware_trigram=True)(ids, attention_mask=torch.ones(1, 4, 4))


@pytest.mark.parametrize("name", ["bert", "squeezebert", "squeezebert, a different group everywhere"])
def test_padding_is_harmless_in_the_others(name: str) -> None:
    model = build(name)
    ids = torch.tensor([[5, 6, 7, 8, 0, 0]])
    padded = model(ids, attention_mask=(ids > 0).long()).last_hidden_state[:, :4]
    torch.testing.assert_close(model(ids[:, :4]).last_hidden_state, padded, rtol=1e-4, atol=1e-4)


def test_ib_bert_builds_and_runs() -> None:
    """Wide inside (1024), narrow between the layers (512): query and key read the 512."""
    config = PRESETS["ib-bert"].replace(num_hidden_layers=2)
    assert isinstance(config, MobileBertConfig)
    model = pocketbert.MobileBertForPreTraining(config).eval()
    layer: Any = model.base_model.layers[0]
    assert layer.attention["self"].query.weight.shape == (1024, 512)
    assert layer.attention["self"].value.weight.shape == (1024, 512)
    assert layer.bottleneck["input"].dense.weight.shape == (1024, 512)
    assert "attention" not in layer.bottleneck
    output = model(torch.randint(0, 1000, (2, 9)))
    assert output.prediction_logits.shape == (2, 9, 30522)
    assert output.prediction_logits.isfinite().all()


@pytest.mark.parametrize("name", ["bert", "squeezebert", "mobilebert"])
def test_inputs_that_do_not_fit(name: str) -> None:
    model = build(name)
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(InputError, match="exactly one of input_ids and inputs_embeds"):
        model()
    with pytest.raises(InputError, match="exactly one"):
        model(ids, inputs_embeds=torch.randn(1, 3, 32))
    with pytest.raises(InputError, match=r"input_ids from 1 to 99 do not fit a table of 99 rows"):
        model(torch.tensor([[1, 99]]))
    with pytest.raises(InputError, match="input_ids from -1 to 1"):
        model(torch.tensor([[1, -1]]))
    with pytest.raises(InputError, match=r"token_type_ids from 0 to 2 do not fit a table of 2 rows"):
        model(ids, token_type_ids=torch.tensor([[0, 2, 0]]))
    with pytest.raises(InputError, match=r"a batch is input_ids \[B, S\] or inputs_embeds \[B, S, E\], not \[3\]"):
        model(ids[0])
    with pytest.raises(InputError, match=r"not \[3, 32\]"):
        model(inputs_embeds=torch.randn(3, 32))
    with pytest.raises(InputError, match="41 tokens are more than the 40 that the model reads"):
        model(torch.ones(1, 41, dtype=torch.long))


def test_a_span_has_two_labels() -> None:
    with pytest.raises(ConfigError, match="num_labels=3 must be 2"):
        build("bert", "ForQuestionAnswering", num_labels=3)


def test_a_model_wants_its_own_configuration() -> None:
    with pytest.raises(ConfigError, match="SqueezeBertModel needs a SqueezeBertConfig, not a BertConfig"):
        our_class(CONFIGS["squeezebert"], "Model")(CONFIGS["bert"])


def test_untied_word_embeddings_are_separate() -> None:
    tied, untied = (build("bert", "ForMaskedLM", tie_word_embeddings=t) for t in (True, False))
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight
    assert untied.num_parameters() - tied.num_parameters() == 99 * 32 + 99


def test_initial_weights() -> None:
    torch.manual_seed(0)
    config = SqueezeBertConfig(num_hidden_layers=1, hidden_size=128, embedding_size=128, num_attention_heads=4)
    model = pocketbert.SqueezeBertForMaskedLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name.lower():
            assert (parameter == 1).all(), name
        else:
            assert abs(parameter.std().item() - 0.02) < 0.004, name
    assert not model.get_input_embeddings().weight[0].any()


@pytest.mark.parametrize("name", ["bert", "squeezebert", "mobilebert"])
@pytest.mark.parametrize("tied", [True, False])
def test_words_that_are_added_start_as_at_initialisation(name: str, tied: bool) -> None:
    model = build(name, "ForMaskedLM", tie_word_embeddings=tied)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert model.resize_token_embeddings(499) is model.get_input_embeddings()
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    for key, tensor in model.state_dict().items():
        axis = 1 if key == "cls.predictions.dense.weight" else 0
        kept = before[key].size(axis)
        assert torch.equal(tensor.narrow(axis, 0, kept), before[key])
        added = tensor.narrow(axis, kept, tensor.size(axis) - kept)
        if key.endswith("bias"):
            assert not added.any(), key
        elif added.numel():
            assert abs(added.std().item() - 0.02) < 0.001, key


def test_outputs_are_tuples_and_names() -> None:
    output = build("bert", "ForQuestionAnswering")(torch.tensor([[1, 2, 3]]))
    assert list(output) == ["start_logits", "end_logits"]
    assert output[0] is output.start_logits is output["start_logits"]
    assert len(output) == 2
    with pytest.raises(KeyError):
        output["loss"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fused_attention_equals_the_plain_one(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 9, 24).to(dtype) for _ in range(3))
    keep = ops.keep_mask(torch.tensor([[1] * 9, [1] * 4 + [0] * 5]))
    for mask in (None, keep):
        fused, none = ops.attend(q, k, v, 3, mask, 0.0, with_weights=False)
        plain, weights = ops.attend(q, k, v, 3, mask, 0.0, with_weights=True)
        assert none is None
        assert weights is not None
        torch.testing.assert_close(fused, plain, rtol=2e-2 if dtype != torch.float32 else 1e-5, atol=1e-2)


def test_activations_are_those_of_the_field() -> None:
    from transformers.activations import ACT2FN

    from pocketbert.configs import ACTIVATIONS

    assert set(ACTIVATIONS) == set(ops.ACTIVATIONS)
    x = torch.linspace(-8, 8, 101)
    for name, activation in ops.ACTIVATIONS.items():
        expected: Tensor = ACT2FN[name](x)
        torch.testing.assert_close(activation(x), expected, rtol=1e-5, atol=1e-6, msg=name)
