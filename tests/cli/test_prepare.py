"""prepare: what it prints, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.shell import Outcome
from pocketbert.corpus.corpus import Corpus

pytest.importorskip("sentencex")
pytest.importorskip("datasketch")

Run = Callable[..., Outcome]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    sentences = [f"The {thing} number {i} was rather {i * 7} and so on." for i, thing in enumerate("abcdefgh" * 5)]
    path.write_text("".join(json.dumps({"text": f"{one} Then came some more words here."}) + "\n" for one in sentences))
    return path


def test_prepare(run: Run, source: Path, tmp_path: Path) -> None:
    [line] = run("prepare", source, tmp_path / "out", "--vocab-size", 120, "--similarity", 0, "--workers", 1).lines
    assert line["documents"] == 40
    assert line["sentences"] == 80
    assert line["vocabulary"] == len(Corpus(tmp_path / "out").tokenizer)
    assert line["held_out"] == 40 - Corpus(tmp_path / "out").documents
    assert line["left_out"] == {"short": 0, "near_duplicates": 0}
    text = run("prepare", source, tmp_path / "again", "--tokenizer", tmp_path / "out", "--table").text
    assert "left out" in text
    assert "near-duplicates" in text
    assert "--cased" in run("prepare", "--help").text


def test_what_cannot_be(run: Run, source: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([source, tmp_path / "out"], "either --tokenizer or --vocab-size"),
        ([source, tmp_path / "out", "--vocab-size", 120, "--address", "auto"], "--address auto needs --engine ray"),
        ([source, tmp_path / "out", "-t", tmp_path / "nothing"], "nothing"),
        ([tmp_path / "nothing", tmp_path / "out", "--vocab-size", 120], "no such file or folder"),
        ([source, tmp_path / "out", "--vocab-size", 20], "too small"),
        ([source, tmp_path / "out", "--vocab-size", 120, "--held-out", 2], "--held-out 2.0 must lie in [0, 1)"),
    ):
        outcome = run("prepare", *arguments)
        assert outcome.code in (1, 2)
        assert message in " ".join(outcome.err.split())
