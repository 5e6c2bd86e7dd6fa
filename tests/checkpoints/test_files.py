import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pocketbert.checkpoints import atomic_write, write_text
from pocketbert.checkpoints.files import look_at, read_json
from pocketbert.errors import CheckpointError, PocketBertError
from pocketbert.pipelines import pipeline


class TestWriting:
    def test_makes_folders_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "notes.txt"
        write_text(path, "naïve\nlines\n")
        assert path.read_bytes() == "naïve\nlines\n".encode()
        assert list(path.parent.iterdir()) == [path]

    def test_permissions_are_those_of_any_new_file(self, tmp_path: Path) -> None:
        write_text(tmp_path / "ours", "")
        (tmp_path / "any").write_text("")
        assert (tmp_path / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, CheckpointError])
    def test_a_block_that_fails_changes_nothing(self, tmp_path: Path, error: type[BaseException]) -> None:
        path = tmp_path / "model"
        path.write_bytes(b"before")

        def fail() -> None:
            with atomic_write(path) as file:
                file.write(b"half")
                file.flush()
                raise error("stop")

        with pytest.raises(error, match="stop"):
            fail()
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_link_into_the_download_cache_is_replaced_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "blob").write_text("shared")
        (tmp_path / "config.json").symlink_to(tmp_path / "blob")
        write_text(tmp_path / "config.json", "ours")
        assert (tmp_path / "blob").read_text() == "shared"
        assert (tmp_path / "config.json").read_text() == "ours"

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """A limit on the size of files stands for the disk; it needs a process of its own."""
        path = tmp_path / "model"
        path.write_bytes(b"before")
        code = (
            "import resource, sys; from pocketbert.checkpoints.files import CheckpointError, atomic_write\n"
            "before = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))\n"
            "try:\n    with atomic_write(sys.argv[1]) as file:\n        file.write(bytes(100_000))\n"
            "except CheckpointError as error:\n    print(error)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, before)\n"  # what measures coverage writes a file at the end
        )
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"cannot write {path}: ")
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(("number", "advice"), [(28, "disk is full"), (13, "no permission"), (30, "read-only")])
    def test_what_to_do_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(CheckpointError, match=rf"cannot write .*model: .*{advice}"):
            write_text(tmp_path / "model", "x")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(CheckpointError, match="a file of that name exists: choose another folder"):
            write_text(tmp_path / "file" / "config.json", "x")

    def test_a_folder_where_the_file_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").mkdir()
        with pytest.raises(CheckpointError, match="a folder of that name exists: choose another name"):
            write_text(tmp_path / "config.json", "x")
        assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


class TestLooking:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5\n", "git lfs pull"),
            (b"<!doctype html><html>404</html>", "web page"),
            (b"\xef\xbb\xbf\n  <HTML lang=en>", "web page"),
            (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "web page"),
        ],
    )
    def test_what_stands_in_place_of_weights(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"model\.safetensors .*{message}"):
            look_at(path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such file"):
            look_at(tmp_path / "x")
        with pytest.raises(CheckpointError, match="is a folder"):
            look_at(tmp_path)
        (tmp_path / "file").write_text("")
        with pytest.raises(CheckpointError, match=r"cannot read .*x: Not a directory"):
            look_at(tmp_path / "file" / "x")


class TestJson:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"   ", "line 1: not JSON"),
            (b'{\n"a": 1,\n}', "line 3: not JSON"),
            (b"[1]", "must hold a JSON object, not a list"),
            (b"null", "must hold a JSON object"),
            ('{"a": "é"}'.encode("latin-1"), "is not UTF-8"),
            (b"<html>", "web page"),
            (b'{"a": %s1}' % (b"[" * 100_000), "cannot|can be read|not JSON"),
            (b'{"a": %s}' % (b"1" * 10_000), "can be read"),
        ],
    )
    def test_what_is_no_object(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "config.json"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as caught:
            read_json(path)
        assert str(path) in str(caught.value)

    def test_nothing_that_can_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
            read_json(tmp_path / "config.json")
        (tmp_path / "config.json").mkdir()
        with pytest.raises(CheckpointError, match=r"config\.json is a folder, not a file"):
            read_json(tmp_path / "config.json")

    def test_a_byte_order_mark_is_no_harm(self, tmp_path: Path) -> None:
        (tmp_path / "c.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
        assert read_json(tmp_path / "c.json") == {"a": 1}


class TestSpecialFiles:
    """Names that stand for something else than a file, in folders of others: refused before they are opened."""

    @pytest.fixture
    def model(self, tmp_path: Path, models: dict[str, Path]) -> Path:
        shutil.copytree(models["classify"], tmp_path / "model")
        return tmp_path / "model"

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer_config.json", "tokenizer.json"])
    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_a_model_is_refused(self, model: Path, name: str, kind: str) -> None:
        (model / name).unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(model / name)
        else:
            (model / name).symlink_to("/dev/zero")
        if name == "tokenizer.json" and (model / "vocab.txt").is_file():
            (model / "vocab.txt").unlink()
        with pytest.raises(PocketBertError, match="is not a regular file but a pipe"):
            pipeline("text-classification", model)

    @pytest.mark.parametrize("name", ["modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"])
    def test_a_declaration_is_refused(self, model: Path, name: str) -> None:
        (model / "modules.json").write_text(
            '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},'
            ' {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]'
        )
        (model / "1_Pooling").mkdir()
        (model / name).unlink(missing_ok=True)
        os.mkfifo(model / name)
        with pytest.raises(CheckpointError, match="is not a regular file but a pipe"):
            pipeline("feature-extraction", model)

    def test_a_configuration_without_end(self, model: Path) -> None:
        with (model / "config.json").open("r+b") as file:
            file.truncate(20 << 30)  # which takes no room on the disk
        with pytest.raises(CheckpointError, match=r"has 20,480 MiB; files of its kind have at most 16 MiB"):
            pipeline("text-classification", model)
