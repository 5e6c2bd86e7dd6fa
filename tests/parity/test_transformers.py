"""Every class against transformers' on the same random weights: outputs, losses, gradients, files both ways."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pocketbert
from helpers.families import (
    CONFIGS,
    HEADS,
    all_that_matter,
    batch,
    each_in_turn,
    our_class,
    randomise,
    their_class,
    theirs,
)
from helpers.pairs import in_turn
from pocketbert import MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.families import FAMILIES


def each(cases: Iterable[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("name", "head"), [pytest.param(*case, id=f"{case[1]}: {case[0]}") for case in cases]
    )


ALL = each(all_that_matter(class_of=their_class))
IN_TURN = each((name, head) for name, head in each_in_turn() if their_class(CONFIGS[name], head) is not None)

# This configuration leaves MobileBERT's second table of word scores empty, of which torch warns in their constructor.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element")
AS_WIDE = "mobilebert, no bottleneck, as wide as its embeddings"

OTHER_ORDER = ("electra", "xlm-roberta", "camembert")  # some of their classes have the head before the encoder


def same(ours: torch.Tensor, reference: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Relative to the largest value: MobileBERT's have no fixed scale."""
    assert ours.shape == reference.shape
    assert ours.isfinite().all()
    scale = reference.detach().abs().amax().clamp(min=1.0) if reference.numel() else 1.0
    torch.testing.assert_close(ours / scale, reference / scale, rtol=0, atol=tolerance)


def without_segments(reference: Any, config: PreTrainedConfig) -> None:
    """Let a model that knows no segments ignore them, as ours does."""
    if not config.type_vocab_size:
        forward = reference.forward
        reference.forward = lambda *inputs, token_type_ids=None, **named: forward(*inputs, **named)


def both(name: str, head: str, seed: int = 0) -> tuple[Any, Any]:
    config = CONFIGS[name]
    reference = their_class(config, head)(theirs(config)).eval()
    reference.set_attn_implementation("eager")  # the fused one returns no probabilities
    randomise(reference, seed)
    without_segments(reference, config)
    model = our_class(config, head)(config).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    return model, reference


@ALL
def test_names_outputs_losses_and_gradients(name: str, head: str) -> None:
    model, reference = both(name, head)
    if CONFIGS[name].model_type in OTHER_ORDER:
        assert set(model.state_dict()) == set(reference.state_dict())
    else:
        assert list(model.state_dict()) == list(reference.state_dict())
        names = [key for key, _ in model.named_parameters()]
        assert names == [key for key, _ in reference.named_parameters()]  # a state of an optimiser goes by their order

    inputs = batch(head, seed=1)
    got, expected = (m(**inputs, output_hidden_states=True) for m in (model, reference))
    assert list(got.keys()) == [key for key in expected if key != "attentions"]
    for key in got.keys():  # noqa: SIM118 (not a dict: its keys are its fields)
        for a, b in zip(*((x[key] if isinstance(x[key], tuple) else (x[key],)) for x in (got, expected)), strict=True):
            same(a, b)

    for output in (got, expected):
        loss = output.loss if "loss" in output.keys() else output.last_hidden_state.square().mean()  # noqa: SIM118
        loss.backward()
    gradients = {key: p.grad for key, p in model.named_parameters(remove_duplicate=False)}
    for key, parameter in reference.named_parameters():
        if parameter.grad is None:
            assert gradients[key] is None or not gradients[key].any(), key
        else:
            same(gradients[key], parameter.grad, 1e-4)


@IN_TURN
def test_dropout_falls_where_theirs_does(name: str, head: str) -> None:
    """The same rates, and each of them alone changes the answer in training."""
    rates: dict[str, Any] = {"num_hidden_layers": 1, "hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.5}
    if "classifier_dropout" in CONFIGS[name].to_dict():
        rates["classifier_dropout"] = 0.6
    config = CONFIGS[name].replace(**rates)
    reference, model = their_class(config, head)(theirs(config)), our_class(config, head)(config)
    randomise(model, 0)
    places = [(m, "p") for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.p]
    places += [(m, "dropout") for m in model.modules() if type(m).__name__.endswith("SelfAttention")]
    found = sorted(getattr(*place) for place in places)
    assert found == sorted(m.p for m in reference.modules() if isinstance(m, torch.nn.Dropout) and m.p)

    torch.manual_seed(0)
    inputs = {k: v for k, v in batch(head, seed=11).items() if "label" not in k and "positions" not in k}
    model.train()
    for module, rate in places:
        setattr(module, rate, 0.0)
    expected = model(**inputs)[0]
    for module, rate in places:
        setattr(module, rate, 0.5)
        assert not torch.equal(model(**inputs)[0], expected), (module, rate)
        setattr(module, rate, 0.0)


@each(in_turn([(["bert", "mobilebert", "squeezebert"], HEADS)]))  # transformers' SqueezeBERT lacks two of the heads
def test_tuples(name: str, head: str) -> None:
    model, reference = both(name, head)
    for labels in (True, False):
        inputs = {k: v for k, v in batch(head, seed=2).items() if labels or ("label" not in k and "positions" not in k)}
        got, expected = (m(**inputs, return_dict=False) for m in (model, reference))
        assert isinstance(got, tuple)
        for a, b in zip(got, expected, strict=True):
            same(a, b)


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("squeezebert")])
def test_attentions_are_theirs(name: str) -> None:
    model, reference = both(name, "Model")
    inputs = batch("Model", seed=3)
    got, expected = (m(**inputs, output_attentions=True) for m in (model, reference))
    for a, b in zip(got.attentions, expected.attentions, strict=True):
        same(a, b)
    same(got.last_hidden_state, model(**inputs).last_hidden_state)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("squeezebert")])
def test_attentions_of_squeezebert_are_probabilities_where_theirs_are_scores(name: str) -> None:
    model, reference = both(name, "Model")
    inputs = batch("Model", seed=3)
    got, expected = (m(**inputs, output_attentions=True) for m in (model, reference))
    for a, b in zip(got.attentions, expected.attentions, strict=True):
        same(a, b.softmax(-1))


@IN_TURN
def test_a_folder_of_ours_loads_there_and_theirs_here(name: str, head: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    inputs = batch(head, seed=4)
    ours = our_class(config, head)(config).eval()
    randomise(ours, 5)
    ours.save_pretrained(tmp_path / "ours")
    there, info = their_class(config, head).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    without_segments(there, config)
    same(ours(**inputs)[0], there.eval()(**inputs)[0])

    there.save_pretrained(tmp_path / "theirs")
    here, info = type(ours).from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(info.values()), info
    same(here(**inputs)[0], there(**inputs)[0])
    written = type(config).from_pretrained(tmp_path / "theirs")
    changes: dict[str, Any] = {
        "extra": {},
        "problem_type": None,
    }  # both models settled the problem type by their labels
    assert written.replace(**changes) == config


@each(in_turn([(list(FAMILIES), ("ForMaskedLM", "ForSequenceClassification"))]))
def test_old_bin_files(name: str, head: str, tmp_path: Path) -> None:
    _, reference = both(name, head)
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma"): v for k, v in reference.state_dict().items()}
    prefix = reference.base_model_prefix
    old[f"{prefix}.embeddings.position_ids"] = torch.arange(40)[None]
    torch.save(old, tmp_path / "pytorch_model.bin")
    reference.config.save_pretrained(tmp_path)
    model, info = our_class(CONFIGS[name], head).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    inputs = batch(head, seed=6)
    same(model(**inputs).logits, reference(**inputs).logits)


@pytest.mark.parametrize("name", [*FAMILIES, "mobilebert, no bottleneck, no trigram"])
def test_embeddings_and_positions_can_be_given(name: str) -> None:
    model, reference = both(name, "Model")
    inputs = batch("Model", seed=7)
    words = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    positions = torch.arange(11).flip(0)[None]
    given = {**inputs, "inputs_embeds": words, "position_ids": positions}
    same(model(**given).last_hidden_state, reference(**given).last_hidden_state)


@each([("squeezebert", "Model"), *((name, "ForMaskedLM") for name in (*FAMILIES, AS_WIDE))])
def test_resizing_the_vocabulary(name: str, head: str) -> None:
    model, reference = both(name, head)
    for size in (77, 131):
        model.resize_token_embeddings(size)
        reference.resize_token_embeddings(size)
        kept = min(size, 77)
        assert model.config.vocab_size == model.base_model.config.vocab_size == size
        inputs = {"input_ids": batch(head, seed=8)["input_ids"] % kept}
        a, b = (m(**inputs)[0] for m in (model, reference))
        same(a[..., :kept], b[..., :kept])
        assert {k: v.shape for k, v in model.state_dict().items()} == {
            k: v.shape for k, v in reference.state_dict().items()
        }


@pytest.mark.parametrize(
    ("name", "labels"), in_turn([(list(FAMILIES), ("one number", "numbers", "classes", "several at once"))])
)
def test_problem_types(name: str, labels: str) -> None:
    count = 1 if labels == "one number" else 3
    config = CONFIGS[name].replace(num_labels=count)
    if labels == "numbers":
        config = config.replace(problem_type="regression")
    reference = their_class(config, "ForSequenceClassification")(theirs(config)).eval()
    randomise(reference, 9)
    model = our_class(config, "ForSequenceClassification")(config).eval()
    model.load_state_dict(reference.state_dict())
    target = {
        "one number": torch.tensor([0.5, -1.0, 2.0]),
        "numbers": torch.randn(3, 3),
        "classes": torch.tensor([0, 2, 1]),
        "several at once": torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]]),
    }[labels]
    inputs = {**batch("Model", seed=10), "labels": target}
    got, expected = model(**inputs), reference(**inputs)
    same(got.loss, expected.loss)
    assert model.config.problem_type == reference.config.problem_type


def test_the_published_sizes() -> None:
    """Parameter counts of spec A1.11 and A2.10, and the number of names in the published MobileBERT files."""
    from pocketbert import PRESETS

    squeeze, mobile = PRESETS["squeezebert-uncased"], PRESETS["mobilebert-uncased"]
    assert isinstance(mobile, MobileBertConfig)
    expected = {
        pocketbert.SqueezeBertModel: (squeeze, 51_094_272),
        pocketbert.SqueezeBertForMaskedLM: (squeeze, 51_716_928),
        pocketbert.SqueezeBertForSequenceClassification: (squeeze, 51_095_810),
        pocketbert.SqueezeBertForMultipleChoice: (squeeze, 51_095_041),
        pocketbert.MobileBertModel: (mobile, 24_581_888),
        pocketbert.MobileBertForPreTraining: (mobile, 36_597_564),
        pocketbert.MobileBertForMaskedLM: (mobile, 36_596_538),
        pocketbert.MobileBertForNextSentencePrediction: (mobile, 24_582_914),
        pocketbert.MobileBertForQuestionAnswering: (mobile, 24_582_914),
    }
    with torch.device("meta"):
        models = {cls: cls(config) for cls, (config, _) in expected.items()}
        pooled = pocketbert.MobileBertModel(mobile.replace(classifier_activation=True))
    assert {cls: model.num_parameters() for cls, model in models.items()} == {
        cls: count for cls, (_, count) in expected.items()
    }
    assert len(models[pocketbert.MobileBertModel].state_dict()) == 1111
    assert len(pooled.state_dict()) == 1113
    assert len(models[pocketbert.MobileBertForPreTraining].state_dict()) == 1121


def test_every_published_field_and_default() -> None:
    derived = {"transformers_version", "architectures", "dtype", "chunk_size_feed_forward", "is_encoder_decoder",
               "_name_or_path", "use_cache", "is_decoder", "add_cross_attention"}  # fmt: skip
    for cls in (pocketbert.BertConfig, SqueezeBertConfig, MobileBertConfig):
        ours = cls().to_dict()
        reference = getattr(transformers, cls.__name__)().to_dict()
        reference["id2label"] = {str(k): v for k, v in reference["id2label"].items()}
        for key in reference.keys() - derived:
            if key not in ("bos_token_id", "eos_token_id") or key in ours:
                assert ours[key] == reference[key], (cls, key)
