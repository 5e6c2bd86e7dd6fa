"""finetune, evaluate and info, from a table to a model that answers; stopped and resumed on the way."""

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.labelled import CLASS_METRICS
from helpers.models import TASK_HEADS
from helpers.shell import Outcome, start
from pocketbert.configs import AutoConfig
from pocketbert.models import auto
from pocketbert.runtime.engine import native_core, usable_threads

Run = Callable[..., Outcome]
Models = dict[str, Path]


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    chance = random.Random(0)
    path = tmp_path / "reviews.csv"
    rows = [f"the film is {chance.choice(['', 'in poland '])}{word},{label}"
            for _ in range(24) for word, label in (("great", "good"), ("dull", "bad"))]  # fmt: skip
    path.write_text("\n".join(["review,sentiment", *rows]))
    return path


@pytest.fixture
def flags(data: Path, models: Models, tmp_path: Path) -> list[str | Path]:
    return [
        "finetune", data, "--model", models["classify"], "--output", tmp_path / "my model", "--epochs", "2",
        "--batch-size", "8", "--learning-rate", "1e-2", "--no-tensorboard", "--device", "cpu",
    ]  # fmt: skip


def test_from_a_table_to_answers(run: Run, flags: list[str | Path], data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    outcome = run(*flags)
    [line] = outcome.lines
    assert line.keys() == {"folder", "metrics", "best_step", "steps", "seconds"}
    assert " ms |" in (folder / "README.md").read_text()
    assert line["folder"] == str(folder)
    assert list(line["metrics"]) == CLASS_METRICS
    assert "training examples" in outcome.err

    [answer] = run("classify", "--model", folder, "the film is great").lines
    assert answer["label"] in ("good", "bad")
    [metrics] = run("evaluate", folder, data).lines
    assert list(metrics) == CLASS_METRICS
    assert squeezed(run("evaluate", folder, data, "--table").text).startswith("Metric Value")

    [found] = run("info", folder).lines
    assert found["run"]["data"]["train"]["file"] == "reviews.csv"
    text = squeezed(run("info", folder, "--table").text)
    assert "labels bad, good" in text
    assert "on reviews.csv, 42 examples" in text
    assert f"accuracy {line['metrics']['accuracy']:.4f} after step {line['best_step']}" in text


def test_people_are_told_what_to_type_next(
    run: Run, flags: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # so that the command is one line
    text = run(*flags, "--table").text
    assert squeezed(text).startswith("Metric After step ")
    [said] = [line for line in text.splitlines() if line.startswith("next")]
    assert said.split(maxsplit=1)[1].startswith("pocketbert classify --model ")


def test_of_pairs_the_next_command_has_two_texts(run: Run, models: Models, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    rows = [{"premise": "the film", "hypothesis": word, "label": word} for word in ("great", "dull")] * 12
    data.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    text = run(
        "finetune", data, "-m", models["nli"], "-o", out, "--epochs", "1", "--no-tensorboard", "--table"
    ).text  # fmt: skip
    assert '--pair "another"' in squeezed(text)


def test_ctrl_c_keeps_the_state_and_resume_goes_on(
    run: Run, flags: list[str | Path], data: Path, tmp_path: Path
) -> None:
    flags = [*flags, "--epochs", "10", "--eval-every", "1"]
    folder = tmp_path / "my model"
    process = start(flags)
    deadline = time.monotonic() + 300
    while not list(folder.glob("checkpoints/step-*[0-9]")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    last = err.splitlines()[-1]
    assert last.startswith("stopped by SIGINT after step ")
    assert last.endswith("run the same command with --resume to continue")
    assert "Traceback" not in err

    assert "--resume" in run(*flags).error
    assert "options or data changed" in run(*flags, "--resume", "--seed", "1").err
    outcome = run(*flags, "--resume")
    [line] = outcome.lines
    assert line["steps"] == 60
    assert "resuming from" in outcome.err
    assert json.loads((folder / "run.json").read_text())["finished"]


def test_a_run_that_failed_before_it_had_begun_is_in_nobodys_way(
    run: Run, flags: list[str | Path], tmp_path: Path
) -> None:
    assert "--metric beauty" in run(*flags, "--metric", "beauty").err.splitlines()[-1]
    assert not list(tmp_path.rglob("*.tmp"))
    assert run(*flags, "--epochs", "1").lines


# ── info ──


@pytest.mark.parametrize("name", TASK_HEADS)
def test_info_counts_as_the_model_does(run: Run, models: Models, name: str) -> None:
    [found] = run("info", models[name]).lines
    model: Any = auto.model_class(AutoConfig.from_pretrained(models[name]), TASK_HEADS[name])
    loaded = model.from_pretrained(models[name])
    assert found["parameters"] == loaded.num_parameters()
    embeddings = loaded.base_model.embeddings
    assert found["embedding_parameters"] == sum(
        getattr(embeddings, f"{kind}_embeddings").weight.numel() for kind in ("word", "position", "token_type")
    )
    assert found["architecture"] == type(loaded).__name__
    assert found["files"]["config.json"] == (models[name] / "config.json").stat().st_size
    assert (found["labels"] is None) == (name not in ("classify", "nli", "rank", "tag"))


def test_info_says_what_the_model_runs_on(run: Run, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETBERT_KERNEL", "portable")
    [found] = run("info", models["embed"]).lines
    native = native_core() is not None
    assert found["engine"] == {
        "kernels": "portable" if native else None,
        "threads": usable_threads(),
        "refused": {},
    }
    assert ("portable kernels" if native else "is not built") in run("info", models["embed"], "--table").text
    if native:
        monkeypatch.delenv("POCKETBERT_KERNEL")
        monkeypatch.setattr("pocketbert.runtime.core.refused_kernels", lambda: [("abacus", "no permission")])
        assert run("info", models["embed"]).lines[0]["engine"]["refused"] == {"abacus": "no permission"}
        assert "; not abacus: no permission" in squeezed(run("info", models["embed"], "--table").text)
    monkeypatch.setattr("pocketbert.runtime.engine.native_core", lambda: None)
    assert "runs on NumPy, as the native core is not built" in squeezed(run("info", models["embed"], "--table").text)


def test_dry_run_shows_what_was_understood(run: Run, flags: list[str | Path], data: Path, tmp_path: Path) -> None:
    rows = data.read_text().splitlines()
    long = f"{'film ' * 90},{rows[1].rpartition(',')[2]}"
    data.write_text("\n".join([*rows, "a,b,c,d", ",x", long]) + "\n")
    outcome = run(*flags, "--dry-run", "--skip-bad", "--json")
    [found] = outcome.lines
    assert found["files"]["train"]["columns"] == ["review", None, "sentiment"]
    assert found["files"]["train"]["examples"] + found["files"]["dev"]["examples"] == len(rows)
    counts = found["files"]["train"]["labels"]
    assert sum(counts.values()) == found["files"]["train"]["examples"]
    assert [row["line"] for row in found["rows"]] == sorted(row["line"] for row in found["rows"])
    assert len(found["rows"]) == 5
    tokens = found["tokens"]
    assert (tokens["longest"], tokens["cut"], tokens["in_windows"]) in ((92, 1, 0), (tokens["longest"], 0, 0))
    assert tokens["shortest"] <= tokens["median"] <= tokens["percentile_95"] <= tokens["longest"]
    [bad] = found["bad"]
    assert "skipped 2 bad rows: line" in bad
    text = squeezed(run(*flags, "--dry-run", "--skip-bad", "--table").text)
    assert all(word in text for word in ("Label", "train", "dev", "lengths", "bad rows", "skipped 2 bad rows"))
    assert run(*flags, "--dry-run", "--seeds", "2").code == 2
    assert not (tmp_path / "my model").exists()


def test_bad_rows_and_spellings_of_a_run(
    run: Run, flags: list[str | Path], data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = data.read_text().splitlines()
    label = rows[1].rpartition(",")[2]
    data.write_text("\n".join([*rows, "a,b,c,d", f"another film,{label.upper()} "]) + "\n")
    outcome = run(*flags, "--skip-bad", "--merge-labels", "--epochs", "1", "--json")
    assert outcome.lines[-1]["steps"] > 0
    assert "'GOOD' (1) beside 'good'" in caplog.text
    assert "skipped 1 bad rows" not in outcome.err
    assert "skipped 1 bad row: line" in outcome.err
    [bad] = map(json.loads, (tmp_path / "my model" / "bad-rows.jsonl").read_text().splitlines())
    assert (bad["file"], bad["line"], bad["row"]) == (data.name, len(rows) + 1, ["a", "b", "c", "d"])
    config = json.loads((tmp_path / "my model" / "config.json").read_text())
    assert len(config["id2label"]) == len({row.rpartition(",")[2] for row in rows[1:]})
