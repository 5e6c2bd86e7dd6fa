"""export, and evaluate on what it wrote."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.shell import Outcome

pytest.importorskip("onnxruntime")
Run = Callable[..., Outcome]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("text,label\nthe film is great .,positive\nthe film is dull .,negative\n")
    return path


def test_export_and_evaluate(run: Run, models: dict[str, Path], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = ("--precision", "fp32", "--precision", "int8")
    first, second = run("export", models["classify"], out, *both, "--eval", data).lines
    assert (first["precision"], second["precision"]) == ("fp32", "int8")
    assert first["differences"]["logits"]["largest"] < 1e-4
    assert first["metrics"]["model"] == pytest.approx(first["metrics"]["export"], abs=1e-4)
    [evaluated] = run("evaluate", first["path"], data).lines
    assert evaluated == first["metrics"]["export"]
    assert f"{out}: " not in run("evaluate", out, data).err
    assert "several exported files" in run("evaluate", out, data).err
    assert "--device" in run("evaluate", first["path"], data, "--device", "cpu").err


@pytest.mark.parametrize("name", ["nli", "tag", "answer", "fill-mask", "choose", "embed"])
def test_every_task(run: Run, models: dict[str, Path], tmp_path: Path, name: str) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("the film is great .\nmarie curie was born in warsaw .\n")
    [line] = run("export", models[name], tmp_path / "out", "--text", texts).lines
    assert all(one["relative"] < 1e-4 for one in line["differences"].values())
    assert "model.onnx" in line["path"]


def test_a_table_for_people(run: Run, models: dict[str, Path], data: Path, tmp_path: Path) -> None:
    text = run("export", models["classify"], tmp_path / "out", "--eval", data, "--table").text
    assert all(word in text for word in ("fp32", "logits", "100.0 %", "accuracy", "folder"))


def test_what_is_refused(
    run: Run, models: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = models["classify"], tmp_path / "out"
    assert "exists already: choose another folder" in run("export", model, model).error
    assert "has no config.json" in run("export", tmp_path, out).error
    assert "none.txt" in run("export", model, out, "--text", tmp_path / "none.txt").error
    assert "opset 12 is too old: choose one from 17" in run("export", model, out, "--opset", "12").error
    assert not out.exists()
    assert run("export", model, out, "--format", "caffe").code == 2
    assert run("export", model, out, "--glue", "sst-2").code == 2
    [line] = run("export", model, out).lines
    assert "exists already" in run("export", model, line["path"], "--format", "onnx").error
    Path(line["path"]).write_bytes(b"\x08\x08 cut off")
    assert "model.onnx is damaged, or not an ONNX file" in run("evaluate", out, data).error
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("pocketbert.errors.find_spec", lambda name: None if name == "onnxruntime" else object())
    missing = run("export", model, tmp_path / "new").error
    assert "this needs onnxruntime, from the extra 'export': pip install 'pocketbert[export]'" in missing
    assert "pocketbert[export]" in run("evaluate", line["path"], data).error


def test_bench_takes_exported_files(
    run: Run, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside our engine; the others are left out here."""
    monkeypatch.setattr("pocketbert.cli.bench.SECONDS", 0.0)
    monkeypatch.setattr("pocketbert.bench.peers.PEERS", ())
    monkeypatch.setattr("pocketbert.bench.measure.peaks", lambda all_kernels: {})  # they take seconds
    [line] = run("export", models["classify"], tmp_path / "out", "--precision", "int8").lines
    [report] = run("bench", line["path"], "--batch", "2", "--length", "7", "--json").lines
    rows = {row["engine"]: row for row in report["shapes"]}
    assert list(rows) == ["PocketBERT int8", "PocketBERT fp32", "exported file in ONNX Runtime int8"]
    assert all(row["model"] == "out" and row["median_ms"] > 0 for row in rows.values())


@pytest.mark.slow
def test_litert_and_savedmodel(run: Run, models: dict[str, Path], data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("tensorflow")
    texts = tmp_path / "texts.txt"
    texts.write_text("the film is great .\nthe film is dull .\n")
    both = ("--precision", "fp32", "--precision", "integer", "--calibrate", texts, "--max-length", "16")
    first, second = run(
        "export", models["classify"], tmp_path / "out", "--format", "litert", *both, "--eval", data, "--force"
    ).lines
    assert first["differences"]["logits"]["largest"] < 1e-4
    assert second["path"].endswith("model_integer.tflite")
    assert run("evaluate", first["path"], data).lines == [first["metrics"]["export"]]
    [saved] = run("export", models["classify"], tmp_path / "saved", "--format", "savedmodel").lines
    assert run("evaluate", tmp_path / "saved", data).lines[0]["accuracy"] == first["metrics"]["model"]["accuracy"]
    assert saved["path"].endswith("saved_model/1")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    refused = ("--format", "litert", "--precision", "integer", "--calibrate", empty)
    assert "text" in run("export", models["classify"], tmp_path / "none", *refused).error
    assert not (tmp_path / "none").exists()


def test_options_of_another_format(run: Run, models: dict[str, Path], tmp_path: Path) -> None:
    for options in (
        ("--precision", "integer"),
        ("--max-length", "16"),
        ("--format", "savedmodel", "--precision", "int8"),
    ):
        assert run("export", models["classify"], tmp_path / "out", *options).code == 2
