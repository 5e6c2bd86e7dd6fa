import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from hub_server import SHA, Hub, Repo, only_hub
from huggingface_hub import constants
from safetensors.numpy import save

from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert.checkpoints import read_config, read_tensors, resolve
from pocketbert.configs import AutoConfig
from pocketbert.errors import CheckpointError, PocketBertError
from pocketbert.pipelines import pipeline
from pocketbert.tokenization import AutoTokenizer

CONFIG = json.dumps({"model_type": "bert"}).encode()
WEIGHTS = save({"x": np.arange(3, dtype=np.float16)})
TINY = {
    "config.json": CONFIG,
    "vocab.txt": b"[PAD]\n",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"not wanted",
    "tf_model.h5": b"not wanted",
    "onnx/model.safetensors": b"not wanted",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with one model."""
    with only_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.repos["acme/tiny"] = Repo(dict(TINY), revisions=("main", "v1"))
        yield hub


def test_only_what_is_wanted_is_downloaded(hub: Hub) -> None:
    assert read_config("acme/tiny") == {"model_type": "bert"}
    assert hub.downloaded() == ["config.json"]
    found = read_tensors("acme/tiny")
    assert found["x"].tolist() == [0, 1, 2]
    assert found["x"].dtype == np.float32
    assert hub.downloaded() == ["config.json", "model.safetensors"]


def test_a_token_of_a_call_goes_with_its_requests_alone(hub: Hub) -> None:
    names: list[dict[str, Any]] = [{"token": "hf_a"}, {"use_auth_token": "hf_a"}]
    for given in names:
        AutoConfig.from_pretrained("acme/tiny", **given)
        with pytest.raises(PocketBertError):  # it has no vocabulary
            AutoTokenizer.from_pretrained("acme/tiny", **given)
        with pytest.raises(PocketBertError):
            pipeline("fill-mask", "acme/tiny", **given)
        assert hub.tokens == {"hf_a"}
    hub.tokens.clear()
    AutoConfig.from_pretrained("acme/tiny")
    assert "hf_a" not in hub.tokens


def test_what_is_in_the_cache_takes_one_request_or_two(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    read_config("acme/tiny")
    read_tensors("acme/tiny")
    hub.asked.clear()
    read_config("acme/tiny")
    assert len(hub.asked) <= 1
    read_tensors("acme/tiny")
    assert len(hub.asked) <= 3
    assert hub.downloaded() == []
    assert capfd.readouterr() == ("", "")  # no progress bars


def test_patterns_and_files_that_are_not_there(hub: Hub) -> None:
    folder = resolve("acme/tiny", files=["*.txt", "config.json", "tokenizer.json"])
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "vocab.txt"]


def test_other_revisions_and_folders(hub: Hub, tmp_path: Path) -> None:
    for revision in ("v1", SHA):
        folder = resolve("acme/tiny", files=["config.json"], revision=revision, cache_dir=tmp_path / "elsewhere")
        assert folder == tmp_path / "elsewhere" / "models--acme--tiny" / "snapshots" / SHA
    assert not (tmp_path / "cache").exists()


def test_a_local_folder_comes_first(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    (tmp_path / "acme" / "tiny" / "config.json").write_text('{"here": true}')
    monkeypatch.chdir(tmp_path)
    assert read_config("acme/tiny") == {"here": True}
    assert hub.asked == []


class TestFormats:
    @pytest.mark.parametrize(
        ("wanted", "not_wanted"),
        [
            (["model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"], ["pytorch_model.bin"]),
            (["pytorch_model.bin"], ["rust_model.ot", "flax_model.msgpack"]),
            (["pytorch_model-1.bin", "pytorch_model.bin.index.json"], ["other.bin", "tf_model.h5"]),
            (["bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index"], ["bert_model.ckpt.meta"]),
        ],
    )
    def test_the_files_of_each(self, hub: Hub, wanted: list[str], not_wanted: list[str]) -> None:
        hub.repos["acme/other"] = Repo({name: name.encode() for name in wanted + not_wanted})
        with pytest.raises(CheckpointError, match="snapshots"):  # it names the damaged file
            read_tensors("acme/other")
        assert hub.downloaded() == wanted

    def test_none(self, hub: Hub) -> None:
        hub.repos["acme/keras"] = Repo({"config.json": CONFIG, "flax_model.msgpack": b"x"})
        with pytest.raises(CheckpointError, match=r"acme/keras has no weights.*it has flax_model\.msgpack, which"):
            read_tensors("acme/keras")
        hub.repos["acme/nothing"] = Repo({".gitattributes": b""})
        with pytest.raises(CheckpointError, match=r"acme/nothing has no config\.json"):
            read_config("acme/nothing")


class TestFailures:
    @pytest.mark.parametrize("read", [read_config, read_tensors])
    def test_no_such_model(self, hub: Hub, read: Callable[..., object]) -> None:
        with pytest.raises(
            CheckpointError,
            match=r"^'acme/nope' is not a folder, and the hub has no public model "
            r"of that name",
        ):
            read("acme/nope")

    @pytest.mark.parametrize("read", [read_config, read_tensors])
    def test_no_such_revision(self, hub: Hub, read: Callable[..., object]) -> None:
        with pytest.raises(CheckpointError, match="the hub's model of that name has no revision 'v9'"):
            read("acme/tiny", revision="v9")

    @pytest.mark.parametrize("read", [read_config, read_tensors])
    def test_gated(self, hub: Hub, read: Callable[..., object]) -> None:
        hub.repos["acme/tiny"].gated = True
        with pytest.raises(CheckpointError, match="on the hub is gated: request access"):
            read("acme/tiny")

    def test_what_can_only_be_a_folder(self, hub: Hub) -> None:
        for name in ("a/b/c", "./model", "../model", "/model", "~/model", "model/", "a\\b", "a//b"):
            with pytest.raises(CheckpointError, match=f"{re.escape(repr(name))}: no such folder"):
                read_config(name)
        assert hub.asked == []

    def test_a_file_in_place_of_its_folder(self, hub: Hub, tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("[PAD]\n")
        with pytest.raises(CheckpointError, match=r"vocab\.txt is a file: give its folder"):
            resolve(tmp_path / "vocab.txt", files=())
        assert hub.asked == []

    def test_what_can_be_neither(self, hub: Hub) -> None:
        for name in ("my model", "a--b", "-a", "a..b", "x" * 200):
            says = rf"{name}.* is not a folder, and not a valid name of a model on the hub"
            with pytest.raises(CheckpointError, match=says):
                read_config(name)
        assert hub.asked == []

    def test_the_hub_is_down(self, hub: Hub) -> None:
        read_config("acme/tiny")
        read_tensors("acme/tiny")
        hub.broken = True
        assert read_config("acme/tiny") == {"model_type": "bert"}
        assert list(read_tensors("acme/tiny")) == ["x"]
        for read in (read_config, read_tensors):
            with pytest.raises(CheckpointError, match=r"not in the download cache \(the hub cannot be reached: .*503"):
                read("acme/other")

    def test_no_network(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
        with pytest.raises(CheckpointError, match=r"the hub cannot be reached: .*refused"):
            read_tensors("acme/tiny")

    def test_a_full_disk(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
        with pytest.raises(CheckpointError, match=r"the download from the hub failed: .*No space left"):
            read_config("acme/tiny")


class TestOffline:
    @pytest.mark.parametrize("how", ["argument", "environment"])
    def test_the_cache_is_enough(self, hub: Hub, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        read_config("acme/tiny")
        read_tensors("acme/tiny")
        hub.asked.clear()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "environment")
        local = how == "argument"
        assert read_config("acme/tiny", local_files_only=local) == {"model_type": "bert"}
        assert list(read_tensors("acme/tiny", local_files_only=local)) == ["x"]
        for name in ("acme/other", "other"):
            with pytest.raises(CheckpointError, match=r"are not in the download cache \(offline mode\)"):
                read_tensors(name, local_files_only=local)
        assert hub.asked == []

    def test_a_cache_without_the_weights(self, hub: Hub) -> None:
        read_config("acme/tiny")
        with pytest.raises(CheckpointError, match="acme/tiny has no weights"):
            read_tensors("acme/tiny", local_files_only=True)

    def test_a_prepared_cache_in_a_process_of_its_own(self, tmp_path: Path) -> None:
        """As an image for a server has it; the environment is read when huggingface_hub is imported."""
        repo = tmp_path / "hub" / "models--acme--tiny"
        for name, data in (("config.json", CONFIG), ("model.safetensors", WEIGHTS)):
            (repo / "snapshots" / SHA).mkdir(parents=True, exist_ok=True)
            (repo / "snapshots" / SHA / name).write_bytes(data)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(SHA)
        code = (
            "from pocketbert.checkpoints import read_config, read_tensors; import sys\n"
            "print(read_config('acme/tiny'), read_tensors('acme/tiny')['x'], 'torch' in sys.modules)\n"
            "read_tensors('acme/other')"
        )
        env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
        env.pop("HF_HUB_CACHE", None)
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert done.stdout == "{'model_type': 'bert'} [0. 1. 2.] False\n"
        assert "are not in the download cache (offline mode): connect once" in done.stderr.splitlines()[-1]


class TestClasses:
    """Configurations, models and tokenizers by name."""

    @pytest.fixture
    def model(self, hub: Hub, tmp_path: Path) -> Any:
        """A model on the hub, under `acme/words`."""
        import pocketbert

        config = pocketbert.SqueezeBertConfig(
            vocab_size=6,
            hidden_size=8,
            embedding_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
        model = pocketbert.SqueezeBertForSequenceClassification(config).eval()
        model.save_pretrained(tmp_path / "saved")
        tokens = [*SPECIAL, "low"]
        tokenizer_of(tokens, pocketbert.SqueezeBertTokenizer).save_pretrained(tmp_path / "saved")
        files = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
        hub.repos["acme/words"] = Repo(files, revisions=("main", "v1"))
        return model

    @pytest.mark.parametrize("auto", [True, False])
    def test_where_it_is_read_from_is_handed_on(self, hub: Hub, model: Any, tmp_path: Path, auto: bool) -> None:
        import torch

        import pocketbert

        ids = torch.tensor([[2, 5, 3]])
        config_class = pocketbert.AutoConfig if auto else pocketbert.SqueezeBertConfig
        model_class = pocketbert.AutoModelForSequenceClassification if auto else type(model)
        tokenizer_class = pocketbert.AutoTokenizer if auto else pocketbert.SqueezeBertTokenizer

        where: dict[str, Any] = {"revision": "v1", "cache_dir": tmp_path / "elsewhere"}
        for local in (False, True):  # what was downloaded is then there without the hub
            hub.asked.clear()
            assert config_class.from_pretrained("acme/words", local_files_only=local, **where) == model.config.replace(
                extra={"architectures": ["SqueezeBertForSequenceClassification"], "dtype": "float32"}
            )
            again = model_class.from_pretrained("acme/words", local_files_only=local, **where)
            assert torch.equal(again(ids).logits, model(ids).logits)
            tokenizer = tokenizer_class.from_pretrained("acme/words", local_files_only=local, **where)
            assert type(tokenizer) is pocketbert.SqueezeBertTokenizer
            assert tokenizer.encode("low") == [2, 5, 3]
            assert not hub.asked if local else hub.asked
            assert not [line for line in hub.asked if "/main" in line]
        assert not (tmp_path / "cache").exists()

        for cls in (config_class, model_class, tokenizer_class):
            with pytest.raises(CheckpointError, match="no revision 'v9'"):
                cls.from_pretrained("acme/words", revision="v9")
            with pytest.raises(CheckpointError, match="are not in the download cache"):
                cls.from_pretrained("acme/words", cache_dir=tmp_path / "nothing", local_files_only=True)
