"""Hyperparameter search, by Optuna.

Each trial is a run in a folder of its own in the output, `trial-0000` and so on. `search.log` is Optuna's journal, from
which an interrupted search is resumed; `search.json` and `search.png` are the results. The best trial is selected on
the evaluation data, so its metric there is slightly optimistic.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from pocketbert.checkpoints import write_text
from pocketbert.errors import CheckpointError, ConfigError, TrainingError, require
from pocketbert.metrics import smaller_is_better
from pocketbert.recipes.epoch_run import FinetuneResult
from pocketbert.recipes.finetune_options import FinetuneOptions, refuse_push
from pocketbert.training.progress import print_line
from pocketbert.training.state import latest_state

Options = TypeVar("Options", bound=FinetuneOptions)


@dataclass(frozen=True)
class Between:
    """A range of numbers."""

    low: float
    high: float
    log: bool = False


#: Option → its choices, or a range.
Space = Mapping[str, Between | Sequence[float]]

#: The search space of MobileBERT's paper (Sun et al. 2020, section 4.4).
FINETUNING: Space = {
    "batch_size": (16, 32, 48),
    "learning_rate": Between(1e-5, 1e-4, log=True),
    "epochs": Between(2, 10),
}
#: Neither paper publishes its search space for distillation: these ranges are ours.
DISTILLING: Space = {
    **FINETUNING,
    "alpha": Between(0.1, 1.0),
    "temperature": Between(1.0, 8.0, log=True),
}


@dataclass(frozen=True)
class Trial:
    """One run of a search."""

    number: int
    values: dict[str, float]
    """Values of the hyperparameters."""
    metrics: dict[str, float] | None
    """None where the run diverged."""


@dataclass(frozen=True)
class SearchResult:
    """Result of a search."""

    folder: Path
    """The model of the best trial."""
    trials: list[Trial]
    best: int
    """The number of the best trial."""
    metric: str
    """The metric that selected it."""


def search(
    run: Callable[..., FinetuneResult],
    options: Options,
    space: Space,
    trials: int,
    *,
    console: Console | None = None,
    argv: Sequence[str] = (),
) -> SearchResult:
    """Run `trials` trials, including those of an earlier, interrupted search.

    Args:
        run: `finetune` or `distill`.
        options: the options of every run, but for the hyperparameters and the output.
        space: the search space.
        trials: number of trials.
        console: where to show progress.
        argv: the command, for every `run.json`.

    Raises:
        ConfigError: `trials` is less than 1, or the search to resume had another space.
        CheckpointError: the folder holds a search, and `options.resume` is not set.
        MissingExtraError: Optuna is not installed.
        TrainingError: no trial finished.
    """
    if trials < 1:
        raise ConfigError(f"--search {trials} must be at least 1")
    refuse_push(options)
    require("search")
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if options.output is None:
        raise ConfigError("a search needs an output folder (--output)")
    folder = Path(options.output)
    journal = folder / "search.log"
    if journal.exists() and not options.resume:
        raise CheckpointError(f"{folder} holds a search: resume it with --resume, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    metric = options.metric_name
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))), study_name="search", load_if_exists=True
    )
    written = json.loads(json.dumps({name: _to_json(choice) for name, choice in space.items()}))
    if study.user_attrs.setdefault("space", written) != written:
        raise ConfigError(f"{folder} holds a search of another space: choose another folder")
    study.set_user_attr("space", written)
    unfinished = [trial for trial in study.trials if not trial.state.is_finished()]
    done = sum(trial.state.is_finished() for trial in study.trials)
    for count in range(done, trials):
        # A function of the number of earlier trials, so that a resumed search has the same trials as any other.
        study.sampler = optuna.samplers.TPESampler(seed=options.seed + count)
        number, values = _next(study, unfinished, space)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        print_line(console, f"── trial {count + 1} of {trials}: {shown}")
        output = folder / f"trial-{number:04d}"
        resume = latest_state(output / "checkpoints") is not None
        try:
            result = run(replace(options, **values, output=output, resume=resume), console=console, argv=argv)
        except TrainingError as error:
            print_line(console, f"trial {count + 1} failed: {error}")
            study.tell(number, state=optuna.trial.TrialState.FAIL)
            continue
        metric = metric if metric in result.metrics else next(iter(result.metrics))
        sign = 1.0 if smaller_is_better(metric) else -1.0  # studies minimise
        study.set_user_attr(f"metrics-{number}", result.metrics)
        study.tell(number, sign * result.metrics[metric])
        shutil.rmtree(output / "checkpoints", ignore_errors=True)  # three times the size of the model
    return _conclude(folder, study, metric)


def _to_json(choice: Between | Sequence[float]) -> list[Any]:
    return ["between", choice.low, choice.high, choice.log] if isinstance(choice, Between) else list(choice)


def _next(study: Any, unfinished: list[Any], space: Space) -> tuple[int, dict[str, Any]]:
    """Return number and values of the next trial: of an interrupted trial, otherwise of a new one."""
    if unfinished and unfinished[0].params.keys() == space.keys():
        trial = unfinished.pop(0)
        return trial.number, dict(trial.params)
    trial = study.ask()
    values: dict[str, Any] = {}
    for name, choice in space.items():
        if isinstance(choice, Between):
            values[name] = trial.suggest_float(name, choice.low, choice.high, log=choice.log)
        else:
            values[name] = trial.suggest_categorical(name, list(choice))
    return trial.number, values


def _conclude(folder: Path, study: Any, metric: str | None) -> SearchResult:
    """Write the results and the plot."""
    trials = [
        Trial(trial.number, dict(trial.params), study.user_attrs.get(f"metrics-{trial.number}"))
        for trial in study.trials
        if trial.state.is_finished()
    ]
    if metric is None or not any(trial.metrics for trial in trials):
        finished = [trial.metrics for trial in trials if trial.metrics]
        if not finished:
            raise TrainingError(f"{folder}: no trial finished; try smaller learning rates")
        metric = metric or next(iter(finished[0]))
    best = study.best_trial.number
    content = {"metric": metric, "best": best, "trials": [vars(trial) for trial in trials]}
    write_text(folder / "search.json", json.dumps(content, indent=1) + "\n")
    _plot(folder / "search.png", trials, metric, best)
    return SearchResult(folder / f"trial-{best:04d}", trials, best, metric)


def _plot(path: Path, trials: Sequence[Trial], metric: str, best: int) -> None:
    """Plot the metric over each hyperparameter; the best trial has another colour."""
    import matplotlib.figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = [trial for trial in trials if trial.metrics is not None]
    names = list(shown[0].values)
    figure = matplotlib.figure.Figure(figsize=(3 * len(names), 3), layout="constrained")
    for column, (name, axes) in enumerate(zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True)):
        for trial in shown:
            assert trial.metrics is not None
            axes.plot(
                trial.values[name], trial.metrics[metric], "o", color="C1" if trial.number == best else "C0",
                zorder=2 + (trial.number == best),
            )  # fmt: skip
        values = [trial.values[name] for trial in shown]
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
        if column == 0:
            axes.set_ylabel(metric)
    figure.suptitle(f"{len(shown)} trials; the best one is highlighted", fontsize="medium")
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=150, format="png")
    temporary.replace(path)
