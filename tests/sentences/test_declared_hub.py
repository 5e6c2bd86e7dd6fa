"""Hub names declare what folders declare, and only the files that are needed are downloaded."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "checkpoints"))

from hub_server import Hub, Repo, only_hub

from helpers.sentences import copy, declare, modules
from pocketbert import pipeline
from pocketbert.sentences.declared import read_declared


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with only_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.mark.parametrize("inside", ["", "0_Transformer"])
def test_a_name_declares_what_its_folder_declares(
    hub: Hub, models: dict[str, Path], tmp_path: Path, inside: str
) -> None:
    path = tmp_path / "model"
    copy(models["embed"], path / inside)
    listed = [{**one, "path": one["path"] or inside} for one in modules("Pooling", "Dense")]
    weight = np.random.default_rng().normal(size=(4, 32))
    declare(
        path,
        {
            "modules.json": listed,
            "1_Pooling/config.json": {"pooling_mode": "cls"},
            "2_Dense/config.json": {"in_features": 32, "out_features": 4, "bias": False},
            "2_Dense/model.safetensors": {"linear.weight": weight},
            f"{inside}/sentence_bert_config.json".lstrip("/"): {"max_seq_length": 9},
            "config_sentence_transformers.json": {"prompts": {"query": "film: "}, "default_prompt_name": "query"},
        },
    )
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    unwanted = {"onnx/model.onnx": b"", "openvino/model.bin": b"", "rust_model.ot": b"", "README.md": b""}
    hub.repos["acme/sentences"] = Repo(files | unwanted)
    text = "the film is great the film is dull"
    by_name, by_folder = pipeline("feature-extraction", "acme/sentences"), pipeline("feature-extraction", path)
    assert by_name(text, pooling="declared") == by_folder(text, pooling="declared")
    assert by_name.max_length == 9
    assert not set(hub.downloaded()) & {"model.onnx", "model.bin", "rust_model.ot", "README.md"}


def test_a_name_that_declares_nothing(hub: Hub, models: dict[str, Path]) -> None:
    hub.repos["acme/plain"] = Repo({file.name: file.read_bytes() for file in models["embed"].iterdir()})
    assert read_declared("acme/plain").poolings == ("mean",)
    assert hub.downloaded() == ["config.json"]
