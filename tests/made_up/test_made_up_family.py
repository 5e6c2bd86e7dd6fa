"""A family that the package does not know, described from outside it, goes everywhere that the others go.

Its parameters, fields and layers have other names and another order than BERT's; it has neither segments nor a pooler,
and its classifier has a layer of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from helpers.configs import VOCABULARY
from helpers.families import randomise
from helpers.plans import draw
from helpers.service import Inside
from helpers.tokenizers import spelling, tokenizer_of
from made_up.family import FAMILY, PebbleConfig
from pocketbert import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoTokenizer,
    BertTokenizer,
    cli,
    pipeline,
)
from pocketbert.bench.subjects import with_random_weights
from pocketbert.configs import AutoConfig
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.exporters.export import export
from pocketbert.exporters.load import load_export
from pocketbert.exporters.options import ExportOptions
from pocketbert.families import FAMILIES, MODULES
from pocketbert.models.auto import load_trained, model_class
from pocketbert.models.predict import TorchPredictor
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.quantized_folders import quantize_folder

PIECES = spelling("the", "film", "is", "great", "dull", ".")
PIECES += [f"word{i}" for i in range(VOCABULARY - len(PIECES))]
TOKENIZER = tokenizer_of(PIECES, model_max_length=32)
CONFIG = PebbleConfig(vocab_size=VOCABULARY, max_position_embeddings=32, id2label={0: "bad", 1: "good", 2: "none"})
TEXTS = ["the film is great .", "dull", "is the film the film ?"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of the registry."""
    monkeypatch.setitem(MODULES, "pebble", "made_up.family")


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the folder of a model with random weights."""

    def save(head: str) -> Path:
        model = model_class(CONFIG, head)(CONFIG)
        randomise(model, 0)
        model.save_pretrained(tmp_path / head)
        TOKENIZER.save_pretrained(tmp_path / head)
        return tmp_path / head

    return save


def test_the_configuration(tmp_path: Path) -> None:
    assert (CONFIG.hidden_size, CONFIG.num_hidden_layers, CONFIG.type_vocab_size) == (72, 2, 0)
    assert CONFIG.replace(num_hidden_layers=3).n_blocks == 3
    CONFIG.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path) == CONFIG
    assert "n_blocks" in CONFIG.to_dict()
    assert "num_hidden_layers" not in CONFIG.to_dict()
    for values, message in (
        ({"n_heads": 5}, "PebbleConfig: n_heads=5 must divide dim=72"),
        ({"n_blocks": 0}, "PebbleConfig: n_blocks=0 must be at least 1"),
        ({"activation": "sine"}, "PebbleConfig: activation='sine' must be one of gelu"),
    ):
        with pytest.raises(ConfigError, match=message):
            CONFIG.replace(**values)


@pytest.mark.parametrize("head", FAMILY.heads)
def test_the_engine_computes_what_pytorch_does(head: str, saved: Callable[[str], Path]) -> None:
    folder, inputs = saved(head), draw([1, 32, 7, 12])
    model = model_class(CONFIG, head).from_pretrained(folder)
    engine = Engine.from_pretrained(folder, head)
    for expected, got in zip(TorchPredictor(model)(inputs), engine(inputs), strict=True):
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4)


def test_loading_is_strict(saved: Callable[[str], Path]) -> None:
    folder = saved("ForSequenceClassification")
    encoder, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert info["unexpected_keys"] == ["before.bias", "before.weight", "classifier.bias", "classifier.weight"]
    assert info["missing_keys"] == []
    assert encoder.get_input_embeddings().weight.shape == (VOCABULARY, 72)
    words, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == ["guess.dense.bias", "guess.dense.weight", "guess.norm.bias", "guess.norm.weight",
                                    "guess.out.bias"]  # fmt: skip
    assert words.get_output_embeddings().weight is words.get_input_embeddings().weight
    with pytest.raises(ConfigError, match="PebbleForMultipleChoice does not exist"):
        AutoModelForMultipleChoice.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"lacks tags\.bias, tags\.weight, so the outputs would be random"):
        Engine.from_pretrained(saved("Model"), "ForTokenClassification")
    tensors = load_file(folder / "model.safetensors")
    gone = tensors.pop("pebble.stack.blocks.1.up.bias")
    save_file(tensors | {"pebble.stack.blocks.1.sideways.bias": gone}, folder / "model.safetensors")
    for load in (AutoModel.from_pretrained, lambda path: Engine.from_pretrained(path, "ForSequenceClassification")):
        with pytest.raises(CheckpointError, match=r"lacks .*stack\.blocks\.1\.up\.bias"):
            load(folder)


def test_tied_words_follow_a_larger_vocabulary() -> None:
    model = AutoModelForMaskedLM.from_config(CONFIG)
    model.resize_token_embeddings(VOCABULARY + 5)
    assert model(torch.tensor([[VOCABULARY + 4]])).logits.shape == (1, 1, VOCABULARY + 5)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_pipelines(saved: Callable[[str], Path]) -> None:
    folders = {head: saved(head) for head in ("ForSequenceClassification", "ForTokenClassification", "ForMaskedLM")}
    assert type(AutoTokenizer.from_pretrained(folders["ForMaskedLM"])) is BertTokenizer
    for task, head, inputs in (
        ("text-classification", "ForSequenceClassification", TEXTS),
        ("token-classification", "ForTokenClassification", TEXTS),
        ("fill-mask", "ForMaskedLM", ["the [MASK] is great", "[MASK] ."]),
    ):
        fast, slow = (
            pipeline(task, model, folders[head]) for model in (folders[head], load_trained(folders[head], head))
        )
        assert _rounded(fast(inputs)) == _rounded(slow(inputs))


def test_int8(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder, inputs = saved("ForTokenClassification"), draw([9, 30, 17])
    report = quantize_folder(folder, tmp_path / "int8")
    tensors = load_file(tmp_path / "int8" / "model.safetensors")
    matrices = {name for name, tensor in tensors.items() if tensor.dtype == np.int8}
    layer = [f"pebble.stack.blocks.{i}.{name}.weight" for i in range(2) for name in ("up", "down", "out")]
    assert matrices == {*layer, *(f"pebble.stack.blocks.{i}.qkv.{part}.weight" for i in range(2) for part in "qkv"),
                        "pebble.embeddings.words.weight"}  # fmt: skip
    assert report.int8 == sum(tensors[name].size for name in matrices)
    exact, whole = (Engine.from_pretrained(path, "ForTokenClassification") for path in (folder, tmp_path / "int8"))
    for expected, got in zip(exact(inputs), whole(inputs), strict=True):
        error = got["logits"] - expected["logits"]
        assert np.sqrt(np.square(error).mean()) < 0.1 * expected["logits"].std()


def test_info(saved: Callable[[str], Path]) -> None:
    shown = _run("info", saved("ForSequenceClassification"), "--table")
    assert "PebbleForSequenceClassification" in shown
    assert "2 of width 72, 4 heads, 144 inside" in shown
    assert "bad, good, none" in shown
    facts = json.loads(_run("info", saved("Model"), "--json"))
    assert facts["embedding_parameters"] == (VOCABULARY + 32) * 72


def test_onnx(saved: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = saved("ForSequenceClassification")
    result = export(ExportOptions(model=folder, output=tmp_path / "onnx", texts=TEXTS, precisions=("fp32",)))
    inputs = draw([1, 9, 32])
    engine, exported = Engine.from_pretrained(folder, "ForSequenceClassification"), load_export(result.files[0].path)
    for expected, got in zip(engine(inputs), exported(inputs), strict=True):
        np.testing.assert_allclose(got["logits"], expected["logits"], atol=1e-4)


def test_the_service(saved: Callable[[str], Path]) -> None:
    pytest.importorskip("fastapi")
    folder = saved("ForSequenceClassification")
    [expected] = pipeline("text-classification", folder)(TEXTS[0])
    with Inside(("pebble", folder)) as service:
        reply = asyncio.run(service.ask("/v1/classify", {"inputs": [TEXTS[0]]}))
    assert reply.status == 200
    assert expected["label"] in reply.body.decode()


def test_benchmarks_draw_its_tensors() -> None:
    drawn = with_random_weights("pebble", CONFIG).tensors
    own = AutoModel.from_config(CONFIG).state_dict()
    assert {name: tensor.shape for name, tensor in drawn.items()} == {n: tuple(t.shape) for n, t in own.items()}


def test_the_registry_is_as_before() -> None:
    """Outside these tests nobody knows the family."""
    assert list(FAMILIES)[-1] == "pebble"
    del MODULES["pebble"]
    with pytest.raises(ConfigError, match="model_type='pebble' is not one of bert, squeezebert, mobilebert"):
        AutoConfig.from_dict({"model_type": "pebble"})


def _run(*arguments: str | Path) -> str:
    """The output of a command in this process, which knows the family."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def _rounded(value: Any) -> Any:
    """Numbers to four places, wherever they are."""
    if isinstance(value, float | np.floating):
        return round(float(value), 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
