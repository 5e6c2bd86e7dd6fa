"""distill in the shell: its flags are the recipe's options, and it makes a model that answers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.shell import Outcome

Run = Callable[..., Outcome]
Models = dict[str, Path]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text("review,sentiment\n" + "the film is great,positive\nthe film is dull,negative\n" * 20)
    return path


def test_from_a_teacher_to_answers(run: Run, models: Models, data: Path, tmp_path: Path) -> None:
    teacher, folder = models["classify"], tmp_path / "small"
    flags = [
        "distill", data, "--teacher", teacher, "--student", teacher, "-o", folder, "--epochs", "1", "--batch-size", "8",
        "--hidden-weight", "1", "--layers", "0:0,1:1", "--no-tensorboard", "--device", "cpu",
    ]  # fmt: skip
    [line] = run(*flags).lines
    assert line["folder"] == str(folder)
    [answer] = run("classify", "--model", folder, "the film is great").lines
    assert answer["label"] in ("negative", "positive")


def test_what_is_wrong_is_said_in_a_line(run: Run, models: Models, data: Path, tmp_path: Path) -> None:
    flags = ["distill", data, "--student", models["classify"], "-o", tmp_path / "x"]
    for wrong, message in (
        (["--teacher", "t", "--layers", "1-3"], "pairs such as 1:3"),
        ([], "name at least one teacher (--teacher)"),
        (["--teacher", "t", "--alpha", "0"], "--alpha"),
    ):
        outcome = run(*flags, *wrong)
        assert outcome.code == 2
        assert message in outcome.err.splitlines()[-1]


@pytest.mark.slow
def test_several_seeds_and_a_search(run: Run, models: Models, data: Path, tmp_path: Path) -> None:
    flags = ["finetune", data, "-m", models["classify"], "--epochs", "1", "--no-tensorboard", "--device", "cpu"]
    *runs, total = run(*flags, "-o", tmp_path / "seeds", "--seeds", "2").lines
    assert [one["seed"] for one in runs] == [42, 43]
    assert total["mean"]["loss"] == pytest.approx(sum(one["metrics"]["loss"] for one in runs) / 2)
    text = run(*flags, "-o", tmp_path / "seeds", "--seeds", "2", "--resume", "--table").text
    assert all(f"\n {word}" in text for word in ("42", "43", "mean", "deviation"))

    trial, best = run(*flags, "-o", tmp_path / "search", "--search", "1").lines
    assert trial["values"].keys() == {"batch_size", "learning_rate", "epochs"}
    assert (trial["number"], best["best"]) == (0, 0)
    text = run(*flags, "-o", tmp_path / "search", "--search", "1", "--resume", "--table").text
    assert "learning_rate" in text
    assert "exclude each other" in run(*flags, "-o", tmp_path / "x", "--search", "1", "--seeds", "2").err


def test_a_preset_gives_way_to_what_is_typed(run: Run, models: Models, data: Path, tmp_path: Path) -> None:
    flags = ["finetune", data, "-m", models["classify"], "--no-tensorboard", "--epochs", "1", "--preset", "mobilebert"]
    run(*flags, "-o", tmp_path / "out")
    options = json.loads((tmp_path / "out" / "run.json").read_text())["options"]
    assert (options["epochs"], options["batch_size"], options["learning_rate"]) == (1, 32, 1e-4)
    assert "'squeezebert', 'mobilebert'" in run(*flags, "-o", tmp_path / "x", "--preset", "gpt").err
