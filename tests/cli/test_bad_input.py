"""Bad input: one line that says what is wrong and what to do, status 1, and nothing half-written."""

import errno
import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from helpers.shell import Outcome
from helpers.tokenizers import SPECIAL

Run = Callable[..., Outcome]
Models = dict[str, Path]
Change = Callable[[Path], Any]


@pytest.fixture
def copy(models: Models, tmp_path: Path) -> Path:
    """A classifier to damage."""
    return Path(shutil.copytree(models["classify"], tmp_path / "model"))


def rewrite(name: str, **changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def remove(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_numbers(value: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors["classifier.bias"][0] = float(value)
        save_file(tensors, path, {"format": "pt"})

    return change


DAMAGE: dict[str, tuple[Change, str]] = {
    "missing": (remove("model.safetensors"), "has no weights"),
    "truncated": (cut, "is damaged or not a safetensors file"),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "is empty"),
    "text": (
        lambda folder: (folder / "model.safetensors").write_text("hello, world" * 9),
        "damaged or not a safetensors",
    ),
    "zip": (lambda folder: (folder / "model.safetensors").write_bytes(b"PK\3\4" + b"x" * 99), "pytorch_model.bin"),
    "page": (lambda folder: (folder / "model.safetensors").write_text("<!DOCTYPE html><html>"), "web page"),
    "nan": (not_numbers("nan"), "not finite numbers"),
    "infinity": (not_numbers("inf"), "not finite numbers"),
    "no config": (remove("config.json"), "config.json"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "line 1"),
    "other model": (rewrite("config.json", model_type="gpt2"), "'gpt2'"),
    "sister model": (rewrite("config.json", model_type="bert"), "does not fit this model"),
    "other width": (rewrite("config.json", hidden_size=36), "embedding_size=32"),
    "no vocabulary": (remove("vocab.txt", "tokenizer.json"), "neither tokenizer.json nor vocab.txt"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_models(run: Run, copy: Path, kind: str) -> None:
    change, says = DAMAGE[kind]
    change(copy)
    outcome = run("classify", "--model", copy, "the film")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: ")
    assert says in outcome.err
    if kind != "sister model":  # which lists every name
        assert outcome.err.count("\n") == 1


def test_the_ids_of_a_vocabulary_must_fit_the_model(run: Run, copy: Path) -> None:
    vocabulary = [f"word{i}" for i in range(200)]
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join([*SPECIAL, *vocabulary]))
    assert (
        "205 tokens and the model 72: they do not belong together" in run("classify", "--model", copy, "word199").error
    )


def test_models_of_another_task(run: Run, models: Models) -> None:
    assert "so the outputs would be random" in run("classify", "--model", models["fill-mask"], "x").error
    assert "is a SqueezeBertForSequenceClassification" in run("tag", "--model", models["classify"], "x").error
    assert "entailment" in run("classify", "--model", models["classify"], "x", "--labels", "a,b").error


def test_unknown_names_offline(run: Run) -> None:
    message = run("classify", "--model", "nobody/nothing", "x").error
    assert "'nobody/nothing' is not a folder" in message
    assert "download cache" in message
    assert "is not a folder" in run("info", "no-such-model").error


def test_texts_that_cannot_be_read(run: Run, models: Models, tmp_path: Path) -> None:
    base = ["classify", "--model", models["classify"]]
    assert run(*base, "great", " ").error == "text 2 is empty"
    assert "the text of --pair is empty" in run(*base, "x", "--pair", "").error
    assert "--context is empty" in run("answer", "--model", models["answer"], "q", "--context", " ").error
    assert "question 1 is empty" in run("answer", "--model", models["answer"], "", "--context", "x").error
    assert "standard input: contains no text" in run(*base, stdin="").error
    assert "standard input: contains no text" in run(*base, stdin="\n \n").error
    assert "not UTF-8" in run(*base, "caf\udce9").error
    assert "No such file" in run(*base, "--file", tmp_path / "nothing.txt").error
    assert "there is no such file" in run(*base, "--file", tmp_path / "nothing.csv").error
    assert "Is a directory" in run(*base, "--file", tmp_path).error
    (tmp_path / "half.jsonl").write_text('{"text": "\\ud800"}')
    assert (
        "half.jsonl, line 1: column 'text' holds an unpaired surrogate"
        in run(*base, "--file", tmp_path / "half.jsonl").error
    )
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\N{LATIN SMALL LETTER E WITH ACUTE}\n".encode("latin-1"))
    assert run(*base, "--file", latin).error.startswith(f"{latin}, line 1: byte 0xE9 is not UTF-8")
    assert "byte 0xE9 is not UTF-8" in run("answer", "--model", models["answer"], "q", "--file", latin).error
    for name, content in {"UTF-16": "great".encode("utf-16"), "gzip": gzip.compress(b"great")}.items():
        (tmp_path / "other").write_bytes(content)
        assert name in run(*base, "--file", tmp_path / "other").error
    (tmp_path / "void.txt").touch()
    assert "void.txt: contains no text" in run(*base, "--file", tmp_path / "void.txt").error
    passage = ["answer", "--model", models["answer"], "q", "--file", tmp_path / "void.txt"]
    assert "void.txt: contains no text" in run(*passage).error
    assert "no [MASK]" in run("fill-mask", "--model", models["fill-mask"], "the film").error
    assert "not one token" in run("fill-mask", "--model", models["fill-mask"], "[MASK]", "--targets", "xyz").error
    assert "device" in run(*base, "x", "--device", "warp").error


def test_what_was_answered_before_bad_input_is_kept(run: Run, models: Models, tmp_path: Path) -> None:
    outcome = run("classify", "--model", models["classify"], stdin=b"the film\n" * 9000 + b"\xff\n")
    assert outcome.code == 1
    assert outcome.err.startswith("error: standard input, line 9001: byte 0xFF")
    assert outcome.out.count("\n") == 9000
    table = tmp_path / "table.csv"
    table.write_text("text\n" + "the film\n" * 3000 + "a,b\nthe film\n")
    outcome = run("classify", "--model", models["classify"], "--file", table)
    assert outcome.err.startswith(f"error: {table}, line 3002: has 2 columns")
    assert outcome.out.count("\n") == 3000
    lines = tmp_path / "lines.txt"
    lines.write_text("the [MASK]\n" * 200 + "the film\nthe [MASK]\n")
    outcome = run("fill-mask", "--model", models["fill-mask"], "--file", lines)
    assert outcome.err == f"error: {lines}, line 201: no [MASK] in the first 64 tokens of 'the film'\n"
    assert outcome.out.count("\n") == 200


# ── training ──

TABLES: dict[str, tuple[bytes, str]] = {
    "no column": (
        b"words,more,label\na,c,x\nb,d,y\n",
        "no column was recognized as the text; name it with --text-column",
    ),
    "ragged": (b"text,label\na,x\nb,y,z\n", "line 3: has 3 columns, the header has 2"),
    "latin": (b"text,label\ncaf\xe9,x\nb,y\n", "line 2: byte 0xE9 is not UTF-8"),
    "utf-16": ("text,label\na,x\n".encode("utf-16"), "is UTF-16"),
    "empty": (b"", "is empty"),
    "no rows": (b"text,label\n", "has no rows"),
    "empty text": (b"text,label\n,x\nb,y\n", "line 2: the text in column 'text' is empty"),
    "one label": (b"text,label\na,x\nb,x\n", "two are needed"),
    "open quote": (b'text,label\n"a,x\nb,y\n', "double quote not closed"),
}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_that_cannot_be_learned_from(run: Run, models: Models, tmp_path: Path, kind: str) -> None:
    content, says = TABLES[kind]
    data = tmp_path / "data.csv"
    data.write_bytes(content)
    message = run("finetune", data, "--model", models["classify"], "--output", tmp_path / "out").error
    assert message.startswith(str(data))
    assert says in message
    assert tree(tmp_path) == {"data.csv": content}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model", "nobody/nothing"], "nobody/nothing"),
        (["--model", "MODEL", "--label-column", "mood"], "no column 'mood' (--label-column)"),
        (["--model", "MODEL", "--labels", "good,fine"], "is not one of good, fine"),
        (["--model", "MODEL", "--device", "warp"], "--device warp"),
        (["--model", "MODEL", "--metric", "beauty"], "--metric beauty must be one of accuracy"),
        (["--model", "MODEL", "--glue", "sst-9"], "'sst-9' is not a GLUE task"),
        (["--model", "MODEL", "--eval-data", "UNSEEN"], "the label 'superb' is not one of bad, good"),
    ],
)
def test_options_that_cannot_be_followed(run: Run, models: Models, tmp_path: Path, flags: list[str], says: str) -> None:
    data, unseen = tmp_path / "data.csv", tmp_path / "unseen.csv"
    data.write_text("text,label\n" + "the film is great,good\nthe film is dull,bad\n" * 10)
    unseen.write_text("text,label\nthe film,superb\n")
    names = {"MODEL": str(models["classify"]), "UNSEEN": str(unseen)}
    outcome = run("finetune", data, "--output", tmp_path / "out", *(names.get(flag, flag) for flag in flags))
    assert outcome.code == 1
    assert says in outcome.err.splitlines()[-1]
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_full_disk(run: Run, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "the film is great,good\nthe film is dull,bad\n" * 10)
    names = iter(["run.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json", "run.json"])
    sync = os.fsync

    def fill_up(file: int) -> None:
        if next(names, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr("pocketbert.checkpoints.files.os.fsync", fill_up)
    outcome = run(
        "finetune", data, "--model", models["classify"], "--output", tmp_path / "out", "--epochs", "1",
        "--no-tensorboard",
    )  # fmt: skip
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == (
        f"error: cannot write {tmp_path / 'out' / 'model.safetensors'}: "
        "the disk is full: free some space and save again"
    )
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model", "m", "--from-scratch", "c.json"], "exclude each other"),
        (["--from-scratch", "squeezebert-uncased"], "--vocab-size"),
        (["--model", "m", "--batch-size", "0"], "--batch-size 0 must be at least 1"),
        (["--model", "m", "--batch-size", "many"], "'many' is not a valid integer"),
        (["--model", "m", "--task", "cooking"], "'cooking' is not one of 'text-classification', 'token-"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(run: Run, tmp_path: Path, flags: list[str], says: str) -> None:
    outcome = run("finetune", "data.csv", "--output", tmp_path / "out", *flags)
    assert (outcome.code, outcome.out) == (2, "")
    assert says in outcome.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_labels_unseen_in_training(run: Run, models: Models, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("text,label\nthe film,positive\nthe film,superb\n")
    message = run("evaluate", models["classify"], data).error
    assert message == f"{data}, line 3: the label 'superb' is not one of negative, positive"


def test_folders_that_cannot_be_written(run: Run, models: Models, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "the film is great,good\nthe film is dull,bad\n" * 10)
    (tmp_path / "file").write_text("mine")
    before = tree(tmp_path)
    base = ["finetune", data, "--model", models["classify"], "--output"]
    assert "file" in run(*base, tmp_path / "file").error
    assert "folder" in run(*base, tmp_path / "file" / "out").error
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "is not empty and holds no run" in run(*base, tmp_path / "full").error
    assert tree(tmp_path) == {**before, "full/mine.txt": b"mine"}
