"""Models that the package contains: by name, and as what a command begins with."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from helpers.families import our_class, randomise
from helpers.labelled import reviews, write_csv
from helpers.models import WORDS
from helpers.tokenizers import SPECIAL
from pocketbert import bundles, pipelines
from pocketbert.bundles import ENCODER, bundled_models, local_folder
from pocketbert.checkpoints import open_tensors
from pocketbert.configs import AutoConfig, SqueezeBertConfig
from pocketbert.errors import ConfigError
from pocketbert.models.auto import AutoModelForMaskedLM
from pocketbert.pipelines import pipeline
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.runtime.quantized_folders import quantize_folder
from pocketbert.sentences.sentence_transformer import SentenceTransformer
from pocketbert.tokenization import AutoTokenizer, BertTokenizer

REAL = bundles.BUNDLED


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that contains one small encoder in int8, with its word head."""
    vocabulary = [*SPECIAL, *WORDS]
    config = SqueezeBertConfig(
        vocab_size=len(vocabulary), hidden_size=64, embedding_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64,
    )  # fmt: skip
    model = our_class(config, "ForMaskedLM")(config)
    randomise(model, 3)
    model.save_pretrained(tmp_path / "original")
    BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}).save_pretrained(tmp_path / "original")
    quantize_folder(tmp_path / "original", tmp_path / "bundled" / ENCODER)
    for module in (bundles, pipelines):
        monkeypatch.setattr(module, "BUNDLED", tmp_path / "bundled")
    return tmp_path / "bundled" / ENCODER


def test_a_name_is_a_folder_if_there_is_one(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundled_models() == [ENCODER]
    assert local_folder(ENCODER) == bundle
    assert local_folder("bert-base-uncased") is None
    assert local_folder("..") == Path("..")
    assert AutoConfig.from_pretrained(ENCODER) == AutoConfig.from_pretrained(bundle)
    assert open_tensors(ENCODER).keys() == open_tensors(bundle).keys()
    assert len(AutoTokenizer.from_pretrained(ENCODER)) == len(AutoTokenizer.from_pretrained(bundle))
    (tmp_path / ENCODER).mkdir()
    monkeypatch.chdir(tmp_path)
    assert local_folder(ENCODER) == Path(ENCODER)


def test_pipelines_begin_with_it(bundle: Path) -> None:
    text = "the film is [MASK] ."
    np.testing.assert_array_equal(SentenceTransformer(ENCODER).encode(text), SentenceTransformer(bundle).encode(text))
    assert pipeline("fill-mask")(text) == pipeline("fill-mask", bundle)(text) == pipeline("fill-mask", ENCODER)(text)
    ours, same = (pipeline("feature-extraction", model)(text, pooling="mean") for model in (None, bundle))
    np.testing.assert_array_equal(ours, same)


def test_training_begins_with_it(bundle: Path, tmp_path: Path) -> None:
    """The weights of one step at a rate of almost nothing are those of the bundle in fp32."""
    rows = [(f"{text} film", label) for text, label in reviews(20)]
    data = write_csv(tmp_path / "rows.csv", rows)
    said = io.StringIO()
    options = FinetuneOptions(data=data, output=tmp_path / "out", max_steps=1, learning_rate=1e-12, frozen_start=False)
    result = finetune(options, console=Console(file=said, width=120))
    assert f"starting from {ENCODER}, the bundled encoder" in said.getvalue()
    assert not AutoConfig.from_pretrained(result.folder).quantized
    start = AutoModelForMaskedLM.from_pretrained(bundle).base_model.state_dict()
    tuned = open_tensors(result.folder)
    for name, value in start.items():
        stored = tuned[name] if name in tuned else tuned[f"transformer.{name}"]
        torch.testing.assert_close(torch.from_numpy(np.array(stored)), value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("made", [FinetuneOptions, DistillOptions], ids=["finetune", "distill"])
def test_what_to_start_from(made: Callable[..., FinetuneOptions]) -> None:
    further = {"teacher": ("t",)} if made is DistillOptions else {}
    options = {"data": "data.csv", "output": "out", **further}
    assert made(**options).model == ENCODER
    assert made(**options, model="m").model == "m"
    assert made(**options, from_scratch="c.json", tokenizer="t").model is None
    name = "--student" if made is DistillOptions else "--model"
    with pytest.raises(ConfigError, match=f"{name} m and --from-scratch exclude each other"):
        made(**options, from_scratch="c.json", tokenizer="t", model="m")


# ── the bundled models themselves ──


@pytest.mark.parametrize("name", bundled_models())
def test_a_bundled_model_is_in_int8_and_has_a_card(name: str) -> None:
    config, folder = AutoConfig.from_pretrained(name), REAL / name
    assert config.quantized
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "**Made by**" in card
    assert "**Limits**" in card
    for file in folder.rglob("*.json"):
        if file.name != "tokenizer.json":
            assert not re.search(r'"(/|[A-Z]:)\w', file.read_text()), file  # a path of the machine that made it
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 17e6


def test_all_bundled_models_together() -> None:
    assert ENCODER in bundled_models()
    assert sum(file.stat().st_size for file in REAL.rglob("*") if file.is_file()) <= 45e6


def test_the_bundled_tagger_finds_names() -> None:
    [found] = pipeline("ner", aggregation_strategy="first")(["Marie Curie was born in Warsaw."])
    assert [(one["entity_group"], one["word"]) for one in found] == [("PER", "marie curie"), ("LOC", "warsaw")]


def test_the_bundled_reader_finds_answers() -> None:
    read = pipeline("question-answering")
    asked = {"Where was Marie Curie born?": "Warsaw", "When was she born?": "1867"}
    context = "Marie Curie was born in Warsaw in 1867."
    assert {question: read(question=question, context=context)["answer"] for question in asked} == asked


def test_the_bundled_encoder_has_four_groups_and_all_words() -> None:
    config = AutoConfig.from_pretrained(ENCODER)
    assert isinstance(config, SqueezeBertConfig)
    assert (config.q_groups, config.intermediate_groups, config.output_groups) == (4, 4, 4)
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(ENCODER)) == 30522
    vectors = SentenceTransformer(ENCODER).encode(["a small dog", "one little puppy", "the stock market fell"])
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.3
    assert pipeline("fill-mask")("She opened the [MASK] and went in.")[0]["token_str"] == "door"
