"""Folders for browsers and Node: the plan that they hold, what decoding needs, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.cases import export_to, model_of, save
from helpers.families import CONFIGS, each_in_turn
from helpers.plans import draw, tensors
from helpers.sentences import declare, modules
from helpers.tokenizers import spelling, tokenizer_of
from pocketbert.checkpoints.safetensors_files import open_safetensors
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.exporters.export import export
from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.web.plans import as_json, from_json
from pocketbert.exporters.web.predictor import WebPredictor
from pocketbert.features import Features
from pocketbert.pipelines import BUNDLED
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.lowering import lower
from pocketbert.runtime.quantize import quantize

CONFIG = CONFIGS["squeezebert"].replace(max_position_embeddings=512)


def described(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "web" / "model.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(("name", "head"), each_in_turn())
def test_a_plan_survives(name: str, head: str) -> None:
    """As JSON and back, in fp32 and int8, it computes the same bits."""
    whole = lower(CONFIGS[name], tensors(model_of(CONFIGS[name], head)), head)
    for plan in (whole, quantize(whole, smallest=1)):
        read = from_json(json.loads(json.dumps(as_json(plan))), plan.tensors)
        widths, shared = plan.buffers()
        assert {one["name"]: (one["width"], one["local"]) for one in as_json(plan)["buffers"]} == {
            buffer: (width, buffer not in shared) for buffer, width in widths.items()
        }
        inputs = draw([5, 1, 17])
        for expected, got in zip(Engine(plan)(inputs), Engine(read)(inputs), strict=True):
            assert expected.keys() == got.keys()
            for output, array in expected.items():
                np.testing.assert_array_equal(got[output], array)


def test_tensors_lie_in_the_order_of_the_steps(tmp_path: Path) -> None:
    """So a reader needs to keep none for later, but those of several steps."""
    [file] = export_to("web", BUNDLED / "sst2", tmp_path / "out")
    tensors_, steps = open_safetensors(file.path / "model.safetensors"), described(tmp_path / "out")["plan"]["steps"]
    keys = ("table", "scales", "weight", "outlier_weight", "bias", "residual_scale")
    last = -1
    places = {name: place for place, name in enumerate(_names_in_file(file.path / "model.safetensors"))}
    for step in steps:
        used = [places[step[key]] for key in keys if isinstance(step.get(key), str)]
        assert all(place <= last + len(used) for place in used)
        last = max([last, *used])
    assert last == len(tensors_) - 1


def _names_in_file(path: Path) -> list[str]:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    entries = {name: value["data_offsets"] for name, value in header.items() if name != "__metadata__"}
    return sorted(entries, key=entries.__getitem__)


def test_a_quantized_model_keeps_its_weights(tmp_path: Path) -> None:
    """Bit for bit, and so its outputs."""
    [file] = export_to("web", "sst2", tmp_path / "out")
    assert file.precision == WebPredictor(file.path).precision == "int8"
    inputs = [Features(np.arange(999, 999 + n, dtype=np.int32), np.zeros(n, np.int32)) for n in (3, 50)]
    expected = Engine.from_pretrained(BUNDLED / "sst2", "ForSequenceClassification")(inputs)
    predictor = WebPredictor(file.path)
    for mine, theirs, padded in zip(predictor(inputs), expected, predictor.run(inputs)["logits"], strict=True):
        np.testing.assert_array_equal(mine["logits"], theirs["logits"])
        np.testing.assert_array_equal(padded, theirs["logits"])
    about = described(tmp_path / "out")
    assert about["labels"] == ["negative", "positive"]
    assert about["head"] == "ForSequenceClassification"
    assert about["tokenizer"]["max_length"] == 512
    assert about["tokenizer"]["lower_case"] is True
    words = (file.path / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert words[about["tokenizer"]["mask"]] == "[MASK]"


def test_a_head_can_be_chosen(tmp_path: Path) -> None:
    """An encoder's head for masked words, or the encoder alone with its declared pooling."""
    export_to("web", "squeezebert-small", tmp_path / "encoder")
    about = described(tmp_path / "encoder")
    assert about["head"] == "Model"
    assert about["sentences"]["pooling"] == ["mean"]
    export_to("web", "squeezebert-small", tmp_path / "words", head="ForMaskedLM")
    assert described(tmp_path / "words")["head"] == "ForMaskedLM"
    with pytest.raises(CheckpointError, match="sst2 is a SqueezeBertForSequenceClassification"):
        export_to("web", "sst2", tmp_path / "tags", head="ForTokenClassification")
    with pytest.raises(ConfigError, match="--head"):
        ExportOptions(model="a", output="b", head="ForPoetry")


def test_what_decoding_needs_is_stated(tmp_path: Path) -> None:
    config = replace(CONFIG, problem_type="multi_label_classification")
    labels = list(config.id2label.values())
    model = save(model_of(config, "ForSequenceClassification"), tmp_path / "model")
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"thresholds": dict.fromkeys(labels, 0.25)}))
    export_to("web", model, tmp_path / "out")
    about = described(tmp_path / "out")
    assert about["thresholds"] == [0.25] * len(labels)
    assert about["problem_type"] == "multi_label_classification"
    assert about["labels"] == labels


def test_what_the_package_lacks_is_refused(tmp_path: Path) -> None:
    """Other tokenizers and layers behind the pooling, by name, and before anything is written."""
    model = save(model_of(CONFIG, "Model"), tmp_path / "model")
    width = CONFIG.hidden_size
    declare(
        model,
        {
            "modules.json": modules("Pooling", "Dense"),
            "1_Pooling/config.json": {"word_embedding_dimension": width, "pooling_mode": "mean"},
            "2_Dense/config.json": {"in_features": width, "out_features": 2, "bias": False},
            "2_Dense/model.safetensors": {"linear.weight": np.ones((2, width))},
        },
    )
    with pytest.raises(ConfigError, match=r"layers after its pooling \(Dense\)"):
        export(ExportOptions(format="web", model=model, output=tmp_path / "out"))
    plain = save(model_of(CONFIG, "Model"), tmp_path / "plain")
    tokenizer_of(spelling("film"), never_split=["film"]).save_pretrained(plain)
    with pytest.raises(ConfigError, match="must be separate words, such as 'film'"):
        export(ExportOptions(format="web", model=plain, output=tmp_path / "out"))
    tokenizer_of(spelling("film"), do_basic_tokenize=False).save_pretrained(plain)
    with pytest.raises(ConfigError, match="steps that BERT's lacks"):
        export(ExportOptions(format="web", model=plain, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    [file] = export_to("web", save(model_of(CONFIG, "Model"), tmp_path / "model"), tmp_path / "out")
    path, whole = file.path / "model.json", described(tmp_path / "out")
    for change, message in (
        ({"version": 99}, "export the model again"),
        ({"format": "other"}, "export the model again"),
        ({"plan": {}}, "is damaged"),
        ({"plan": whole["plan"] | {"steps": [{"kind": "sort"}]}}, "is damaged"),
        ({"plan": whole["plan"] | {"buffers": [], "steps": whole["plan"]["steps"][1:]}}, "model.json"),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(CheckpointError, match=message):
            WebPredictor(file.path)(draw([3]))
    path.write_text(json.dumps(whole))
    content = bytearray((file.path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (file.path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="does not have its checksum"):
        WebPredictor(file.path)
