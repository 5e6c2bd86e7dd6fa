"""Several seeds and a search: that each run is the run it says it is, and that an interrupted one goes on."""

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocketbert.errors import CheckpointError, ConfigError, TrainingError
from pocketbert.recipes.epoch_run import FinetuneResult
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.search import Between, Space, search
from pocketbert.recipes.seeds import over_seeds

Options = Callable[..., FinetuneOptions]
pytestmark = pytest.mark.usefixtures("pictures")  # a search draws one
SPACE: Space = {"batch_size": (8, 16), "learning_rate": Between(1e-3, 1e-2, log=True)}


def result_of(options: FinetuneOptions, metrics: dict[str, float]) -> FinetuneResult:
    return FinetuneResult(
        folder=Path(str(options.output)), metrics=metrics, steps=1, history=[], seconds=0.0, best_step=1,
        task=options.task, pairs=False,
    )  # fmt: skip


def made_up(options: FinetuneOptions, **_: Any) -> FinetuneResult:
    """A run that costs nothing, and is best at a rate of 3e-3."""
    if options.learning_rate is not None and options.learning_rate > 9e-3:
        raise TrainingError("loss is inf at step 1")
    accuracy = 1 - abs((options.learning_rate or 0) - 3e-3) * 100 - options.batch_size / 1000
    metrics = {"accuracy": accuracy, "loss": 1 - accuracy}
    return result_of(options, metrics)


# ── seeds ──


@pytest.mark.slow
def test_seeds_are_the_runs_that_they_would_be_alone(options: Options, tmp_path: Path) -> None:
    result = over_seeds(finetune, options(epochs=1, seed=5), 3)
    alone = finetune(options(epochs=1, seed=6, output=tmp_path / "alone"))
    assert result.seeds[6] == alone.metrics
    assert list(result.seeds) == [5, 6, 7]
    losses = [metrics["loss"] for metrics in result.seeds.values()]
    assert result.mean["loss"] == statistics.mean(losses)
    assert result.deviation is not None
    assert result.deviation["loss"] == statistics.stdev(losses)
    accuracies = {seed: metrics["accuracy"] for seed, metrics in result.seeds.items()}
    assert accuracies[result.best] == max(accuracies.values())
    assert result.folder == tmp_path / "out" / f"seed-{result.best}"
    assert (result.folder / "model.safetensors").exists()
    written = json.loads((tmp_path / "out" / "seeds.json").read_text())
    assert written["mean"] == result.mean

    with pytest.raises(CheckpointError, match="--resume"):
        over_seeds(finetune, options(epochs=1, seed=5), 3)
    again = over_seeds(finetune, options(epochs=1, seed=5, resume=True), 4)
    assert {seed: again.seeds[seed] for seed in (5, 6, 7)} == result.seeds


def test_of_losses_the_smallest_is_best(options: Options, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    def run(options: FinetuneOptions, **_: Any) -> FinetuneResult:
        return result_of(options, {"loss": [0.3, 0.1, 0.2][options.seed]})

    assert over_seeds(run, options(seed=0, metric="loss"), 3).best == 1
    assert over_seeds(run, options(seed=0, metric="loss"), 1).deviation is None
    with pytest.raises(ConfigError, match="--seeds 0"):
        over_seeds(run, options(), 0)


# ── search ──


def test_a_search_finds_what_is_best(options: Options, tmp_path: Path) -> None:
    result = search(made_up, options(), SPACE, 25)
    assert len(result.trials) == 25
    best = next(trial for trial in result.trials if trial.number == result.best)
    assert best.metrics is not None
    assert best.metrics["accuracy"] > 0.95
    assert best.metrics["accuracy"] == max(trial.metrics["accuracy"] for trial in result.trials if trial.metrics)
    for trial in result.trials:
        assert trial.values["batch_size"] in (8, 16)
        assert 1e-3 <= trial.values["learning_rate"] <= 1e-2
        assert (trial.metrics is None) == (trial.values["learning_rate"] > 9e-3)
    written = json.loads((tmp_path / "out" / "search.json").read_text())
    assert written["best"] == result.best
    assert written["trials"][result.best]["values"] == best.values
    assert (tmp_path / "out" / "search.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("stop", [0, 3, 12])
def test_an_interrupted_search_ends_as_any_other(options: Options, tmp_path: Path, stop: int) -> None:
    whole = search(made_up, options(output=tmp_path / "whole"), SPACE, 14)
    runs = []

    def broken(options: FinetuneOptions, **how: Any) -> FinetuneResult:
        runs.append(options)
        if len(runs) == stop + 1:
            raise MemoryError
        return made_up(options, **how)

    with pytest.raises(MemoryError):
        search(broken, options(), SPACE, 14)
    with pytest.raises(CheckpointError, match="--resume"):
        search(broken, options(), SPACE, 14)
    result = search(broken, options(resume=True), SPACE, 14)
    assert [(t.number, t.values, t.metrics) for t in result.trials] == [
        (t.number, t.values, t.metrics) for t in whole.trials
    ]
    assert len(runs) == 15
    interrupted, resumed = runs[stop : stop + 2]
    assert replace(interrupted, resume=False) == replace(resumed, resume=False)  # and no other trial
    with pytest.raises(ConfigError, match="another space"):
        search(broken, options(resume=True), {"batch_size": (8, 16)}, 14)


def test_a_trial_is_a_run(options: Options, tmp_path: Path) -> None:
    result = search(finetune, options(epochs=1, metric="loss"), SPACE, 2)
    assert result.metric == "loss"
    for trial in result.trials:
        folder = tmp_path / "out" / f"trial-{trial.number:04d}"
        run = json.loads((folder / "run.json").read_text())
        assert run["options"]["learning_rate"] == trial.values["learning_rate"]
        assert trial.metrics is not None
        assert run["best"]["loss"] == trial.metrics["loss"]
        assert not (folder / "checkpoints").exists()
    assert (result.folder / "model.safetensors").exists()


def test_a_search_that_leads_nowhere(options: Options) -> None:
    def fails(options: FinetuneOptions, **_: Any) -> FinetuneResult:
        raise TrainingError("loss is nan at step 1")

    with pytest.raises(TrainingError, match="no trial finished"):
        search(fails, options(), SPACE, 2)
    with pytest.raises(ConfigError, match="--search 0"):
        search(fails, options(), SPACE, 0)
