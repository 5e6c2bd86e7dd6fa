"""Models are pushed to the hub: the files of the model, and no others."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from helpers.runs import options_in
from pocketbert import pipeline
from pocketbert.checkpoints.push import prepare_push, push
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.seeds import over_seeds

from hub_server import Hub, Repo, only_hub  # isort: skip

# huggingface_hub uploads large files by an argument that its HTTP library is giving up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

MODEL = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with only_hub(monkeypatch, tmp_path / "cache") as hub:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "secret")
        hub.writers = {"secret"}
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a run leaves, in small."""
    made = tmp_path / "my-model"
    for name in (*MODEL, "report.html", "run.json", "bad-rows.jsonl", ".hidden", "last/model.safetensors",
                 "evaluation/errors.tsv", "checkpoints/step-1/weights"):  # fmt: skip
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(f"content of {name}")
    return made


def test_the_files_of_the_model_and_no_others(hub: Hub, folder: Path) -> None:
    prepare_push("acme/reviews")
    assert hub.repos["acme/reviews"].files == {}
    assert hub.repos["acme/reviews"].private
    assert push(folder, "acme/reviews") == f"{hub.endpoint}/acme/reviews"
    assert hub.repos["acme/reviews"].files == {name: (folder / name).read_bytes() for name in MODEL}
    assert hub.tokens == {"secret", ""}  # large files go to an address that is the permission
    (folder / "config.json").write_text("changed")
    push(folder, "acme/reviews")
    assert hub.repos["acme/reviews"].files["config.json"] == b"changed"
    assert push(folder, "mine") == f"{hub.endpoint}/me/mine"


def test_a_public_model_stays_public(hub: Hub, folder: Path) -> None:
    hub.repos["acme/reviews"] = Repo({"old.txt": b"old"})
    push(folder, "acme/reviews")
    assert not hub.repos["acme/reviews"].private
    assert {*hub.repos["acme/reviews"].files} == {*MODEL, "old.txt"}


def test_what_the_hub_refuses(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"--push a//b is not a valid name of a model on the hub"):
        prepare_push("a//b")
    hub.writers = {"other"}
    for action in (lambda: prepare_push("acme/x"), lambda: push(folder, "acme/x")):
        with pytest.raises(CheckpointError, match=r"--push acme/x is refused by the hub: run `hf auth login`"):
            action()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"--push acme/x needs the hub, and HF_HUB_OFFLINE is set"):
        prepare_push("acme/x")


@pytest.mark.usefixtures("no_pictures")
def test_a_run_is_pushed_and_read_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.writers = set()
    options: FinetuneOptions = options_in(tmp_path, epochs=1, push="acme/reviews")
    with pytest.raises(CheckpointError, match="is refused by the hub"):
        finetune(options)  # before anything is trained
    assert not (tmp_path / "out" / "model.safetensors").exists()
    hub.writers = {"secret"}
    result = finetune(options)
    files = hub.repos["acme/reviews"].files
    assert {*MODEL, "tokenizer_config.json", "vocab.txt"} <= files.keys()
    assert not {"report.html", "run.json"} & files.keys()
    assert files["model.safetensors"] == (result.folder / "model.safetensors").read_bytes()
    assert "\npipeline_tag: text-classification\n" in str(ModelCard(files["README.md"].decode()))
    text = "a lovely film"
    assert pipeline(model="acme/reviews")(text) == pipeline(model=result.folder)(text)
    # The run is finished: the same command with --resume only pushes again.
    files.clear()
    finetune(replace(options, resume=True))
    assert files["model.safetensors"] == (result.folder / "model.safetensors").read_bytes()


def test_one_run_under_one_name(tmp_path: Path) -> None:
    options = options_in(tmp_path, push="acme/reviews")
    with pytest.raises(ConfigError, match="--push is for a single run"):
        over_seeds(finetune, options, 2)
    with pytest.raises(ConfigError, match="--push acme/reviews needs an output folder"):
        replace(options, output=None)
