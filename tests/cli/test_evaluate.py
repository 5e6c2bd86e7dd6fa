"""evaluate and quantize --eval on every task, on the engine and in PyTorch."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.shell import Outcome

Run = Callable[..., Outcome]
Models = dict[str, Path]

CONTEXT = "marie curie was born in warsaw ."
QUESTIONS = [
    {"id": "a", "question": "was marie born ?", "answers": [{"text": "warsaw", "answer_start": 24}]},
    {"id": "b", "question": "is the film great ?", "answers": [{"text": "marie", "answer_start": 0}]},
]
FILES = {
    "answer": ("a.json", json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": QUESTIONS}]}]})),
    "tag": ("a.txt", "marie I-PER\ncurie I-PER\nwas O\nborn O\n\nin O\nwarsaw I-LOC\n"),
    "choose": ("a.jsonl", '{"prompt": "the film", "choices": ["is great", "is dull"], "label": 1}\n' * 2),
}
METRICS = {
    "answer": (["f1", "exact_match"], ["nbest_predictions.json", "outcomes.json", "predictions.json", "report.html"]),
    "tag": (
        ["f1", "precision", "recall", "accuracy", "loss"],
        ["entities.tsv", "outcomes.json", "predictions.conll", "report.html"],
    ),
    "choose": (["accuracy", "loss"], ["outcomes.json", "predictions.tsv", "report.html"]),
}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    for name, text in FILES.values():
        (tmp_path / name).write_text(text)
    return {task: tmp_path / name for task, (name, _) in FILES.items()}


@pytest.mark.parametrize("task", FILES)
def test_evaluate(run: Run, models: Models, data: dict[str, Path], tmp_path: Path, task: str) -> None:
    names, files = METRICS[task]
    [engine] = run("evaluate", models[task], data[task], "--output", tmp_path / "out").lines
    assert list(engine) == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    [torch] = run("evaluate", models[task], data[task], "--device", "cpu").lines
    assert torch == pytest.approx(engine, abs=1e-3)
    [line] = run("quantize", models[task], tmp_path / "int8", "--eval", data[task], "--force").lines
    assert list(line["metrics"]["int8"]) == names
    assert run("evaluate", tmp_path / "int8", data[task]).lines == [line["metrics"]["int8"]]


def test_submission(run: Run, models: Models, tmp_path: Path) -> None:
    for name in ("dev", "test"):
        label = "\tlabel" if name == "dev" else ""
        rows = [f"{word}{' .' * i}" for i in range(3) for word in ("great", "dull")]
        lines = [f"{row}\t{i % 2}" if label else f"{i}\t{row}" for i, row in enumerate(rows)]
        header = f"sentence{label}" if label else "index\tsentence"
        (tmp_path / f"{name}.tsv").write_text("\n".join([header, *lines]))
    done = run("evaluate", models["classify"], tmp_path, "--glue", "sst-2", "--submission", tmp_path / "a.zip")
    assert list(done.lines[0]) == ["accuracy", "loss", "brier_loss", "calibration_error", "score"]
    assert "a.zip: the submission still lacks CoLA.tsv, MRPC.tsv" in " ".join(done.err.split())
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        rows = archive.read("SST-2.tsv").decode().splitlines()
    assert rows[0] == "index\tprediction"
    assert [row.split("\t")[0] for row in rows[1:]] == [str(i) for i in range(6)]
    wrong = run("evaluate", models["classify"], tmp_path / "dev.tsv", "--submission", tmp_path / "b.zip")
    assert wrong.code == 2
    assert "--submission needs --glue" in " ".join(wrong.err.split())


def test_files_of_another_task(run: Run, models: Models, data: dict[str, Path]) -> None:
    assert "one of the suffixes .json, .jsonl" in run("evaluate", models["answer"], data["tag"]).error
    assert "expected prompt, choices and label" in run("evaluate", models["choose"], _lines(data)).error
    assert (
        "has 2 labels, not 3 (a, b, c)"
        in run("evaluate", models["classify"], data["tag"].with_name("none.csv"), "--labels", "a,b,c").error
    )
    assert "--glue does not apply to" in run("evaluate", models["tag"], data["tag"], "--glue", "rte").error


def _lines(data: dict[str, Path]) -> Path:
    path = data["choose"].with_name("other.jsonl")
    path.write_text('{"text": "x"}\n')
    return path


def test_bad_rows_and_spellings_of_labels(run: Run, models: Models, tmp_path: Path) -> None:
    data = tmp_path / "a.csv"
    data.write_text("text,label\nfilm,NEGATIVE\nfilm,positive\na,b,c\nfilm,unknown\ndull,negative \n")
    assert "line 4: has 3 columns" in run("evaluate", models["classify"], data).error
    outcome = run("evaluate", models["classify"], data, "--skip-bad")
    assert (
        "note: a.csv: skipped 3 bad rows: line 2: the label 'NEGATIVE' is not one of negative, positive" in outcome.err
    )
    outcome = run("evaluate", models["classify"], data, "--skip-bad", "--merge-labels", "--output", tmp_path / "out")
    assert "accuracy" in outcome.lines[0]
    assert "note: a.csv: skipped 2 bad rows: line 4: has 3 columns" in outcome.err
    bad = [json.loads(line) for line in (tmp_path / "out" / "bad-rows.jsonl").read_text().splitlines()]
    assert [one["line"] for one in bad] == [4, 5]
    assert bad[1]["problem"] == "the label 'unknown' is not one of negative, positive"
    rows = (tmp_path / "out" / "predictions.tsv").read_text().splitlines()
    assert [row.split("\t")[1] for row in rows[1:]] == ["negative", "positive", "negative"]
