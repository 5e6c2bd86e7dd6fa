"""quantize, and what the other commands make of its folders."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.labelled import CLASS_METRICS
from helpers.shell import Outcome
from pocketbert.runtime.quantize import matrices, quantize, unquantized_matrices

Run = Callable[..., Outcome]
ANSWERS = {"the film is great .": "positive", "the film is dull .": "negative"}


@pytest.fixture
def model(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A classifier whose matrices count as large."""
    for function in (unquantized_matrices, matrices, quantize):
        monkeypatch.setattr(function, "__defaults__", (0,))
    return models["classify"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ANSWERS.items()))
    return path


def test_quantize_and_use(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8"
    [line] = run("quantize", model, out, "--eval", data).lines
    assert line["folder"] == str(out)
    assert line["int8_weights"] > 0
    assert line["fp32_steps"] == {}
    assert list(line["metrics"]["int8"]) == list(line["metrics"]["fp32"]) == CLASS_METRICS
    assert json.loads((out / "config.json").read_text())["quantization_config"]["metrics"] == line["metrics"]

    [evaluated] = run("evaluate", out, data).lines
    assert evaluated == line["metrics"]["int8"]
    before, after = (run("classify", "the film", "--model", folder).lines[0] for folder in (model, out))
    assert before["label"] == after["label"]
    assert before["score"] == pytest.approx(after["score"], abs=0.05)
    [about] = run("info", out).lines
    [original] = run("info", model).lines
    assert about["parameters"] == original["parameters"]
    assert about["int8_parameters"] == line["int8_weights"]
    assert original["int8_parameters"] == 0
    assert f"{line['int8_weights']:,} in int8" in run("info", out, "--table").text


def test_a_table_for_people(run: Run, models: dict[str, Path], data: Path, tmp_path: Path) -> None:
    text = run("quantize", models["classify"], tmp_path / "int8", "--eval", data, "--table").text
    assert "accuracy" in text
    assert "encoder.layers.*.attention.key.weight (2): is small" in " ".join(text.split())


def test_plan(run: Run, models: dict[str, Path]) -> None:
    text = run("info", models["classify"], "--plan").text
    assert text.count("Attention") == 2
    assert "Linear    source=pooled[0:32]  target=scores[0:2]  weight=classifier.weight" in text


def test_what_is_refused(
    run: Run, model: Path, models: dict[str, Path], data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tags = tmp_path / "tags.csv"
    tags.write_text("text,label\nthe film,O\nmarie,B-PER\n")
    out = tmp_path / "x"

    def error(*arguments: str | Path) -> str:
        return run("quantize", *arguments).error

    assert "exists already: choose another folder" in error(model, model)
    assert "none.csv: there is no such file" in error(model, out, "--eval", tmp_path / "none.csv")
    assert "tags.csv, line 1: has 1 columns: the word" in error(models["tag"], out, "--eval", tags)
    assert "has no config.json" in error(tmp_path, out)
    done = run("quantize", model, out, "--glue", "sst-2")
    assert done.code == 2
    assert "--glue needs --eval" in done.err
    assert not out.exists()

    int8 = tmp_path / "int8"
    run("quantize", model, int8)
    assert "already in int8" in error(int8, out, "--eval", data)
    done = run("finetune", data, "--eval-data", data, "-m", int8, "-o", out, "--max-steps", "1")
    assert done.code == 0
    assert "has int8 weights, which were converted to fp32" in caplog.text
