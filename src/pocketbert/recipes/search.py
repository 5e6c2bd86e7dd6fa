"""A search for hyper-parameters, by Optuna: what the papers leave open is tried out.

Each trial is a run in a folder of its own in the output, `trial-0000` and so on. `search.log` is Optuna's journal, from
which an interrupted search goes on, `search.json` and `search.png` say at the end how the trials went. Whatever is best
was chosen on the evaluation data, so its metric there is a little too good.
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
from pocketbert.recipes.finetune import FinetuneResult
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.training.progress import say
from pocketbert.training.state import latest_state

Options = TypeVar("Options", bound=FinetuneOptions)


@dataclass(frozen=True)
class Between:
    """Any number of a range."""

    low: float
    high: float
    log: bool = False


#: What is tried where: a list of choices, or a range.
Space = Mapping[str, Between | Sequence[float]]

#: The ranges that MobileBERT's paper searches (Sun et al. 2020, section 4.4).
FINETUNING: Space = {
    "batch_size": (16, 32, 48),
    "learning_rate": Between(1e-5, 1e-4, log=True),
    "epochs": Between(2, 10),
}
#: Of distillation neither paper says what it searched: these ranges are ours.
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
    """Of the hyper-parameters."""
    metrics: dict[str, float] | None
    """None where the loss stopped being a number."""


@dataclass(frozen=True)
class SearchResult:
    """What came out of a search."""

    folder: Path
    """The best trial's model."""
    trials: list[Trial]
    best: int
    """The number of the best trial."""
    metric: str
    """What decided."""


def search(
    run: Callable[..., FinetuneResult],
    options: Options,
    space: Space,
    trials: int,
    *,
    console: Console | None = None,
    argv: Sequence[str] = (),
) -> SearchResult:
    """Try out `trials` combinations of `space`, those of an earlier, interrupted search included.

    Args:
        run: `finetune` or `distill`.
        options: of every run, but for what is tried out and the output.
        space: name of an option → what to try.
        trials: how many.
        console: where to show progress.
        argv: the command to note in every `run.json`.

    Raises:
        ConfigError: less than one trial, or a search with another space is to be resumed.
        CheckpointError: the folder holds a search, which is not to be resumed.
        MissingExtraError: Optuna is not installed.
        TrainingError: no trial came to an end.
    """
    if trials < 1:
        raise ConfigError(f"--search {trials} must be at least 1")
    require("search")
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = Path(options.output)
    journal = folder / "search.log"
    if journal.exists() and not options.resume:
        raise CheckpointError(f"{folder} holds a search: continue it with --resume, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    metric = options.metric
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))), study_name="search", load_if_exists=True
    )
    told = json.loads(json.dumps({name: _told(choice) for name, choice in space.items()}))
    if study.user_attrs.setdefault("space", told) != told:
        raise ConfigError(f"{folder}: holds a search of other ranges; choose another folder")
    study.set_user_attr("space", told)
    unfinished = [one for one in study.trials if not one.state.is_finished()]
    done = sum(one.state.is_finished() for one in study.trials)
    for count in range(done, trials):
        # A function of the number of trials before it, so that a search that was interrupted ends as any other.
        study.sampler = optuna.samplers.TPESampler(seed=options.seed + count)
        number, values = _next(study, unfinished, space)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        say(console, f"── trial {count + 1} of {trials}: {shown}")
        output = folder / f"trial-{number:04d}"
        one = replace(options, **values, output=output, resume=latest_state(output / "checkpoints") is not None)
        try:
            result = run(one, console=console, argv=argv)
        except TrainingError as error:
            say(console, f"trial {count + 1} failed: {error}")
            study.tell(number, state=optuna.trial.TrialState.FAIL)
            continue
        metric = metric or next(iter(result.metrics))
        sign = 1.0 if metric.endswith("loss") else -1.0  # studies minimise
        study.set_user_attr(f"metrics-{number}", result.metrics)
        study.tell(number, sign * result.metrics[metric])
        shutil.rmtree(output / "checkpoints", ignore_errors=True)  # three times the model, and of no more use
    return _conclude(folder, study, metric)


def _told(choice: Between | Sequence[float]) -> list[Any]:
    return ["between", choice.low, choice.high, choice.log] if isinstance(choice, Between) else list(choice)


def _next(study: Any, unfinished: list[Any], space: Space) -> tuple[int, dict[str, Any]]:
    """The number and values of the next trial: of one that was interrupted, else of a new one."""
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
    """Write table and plot."""
    found = [
        Trial(one.number, dict(one.params), study.user_attrs.get(f"metrics-{one.number}"))
        for one in study.trials
        if one.state.is_finished()
    ]
    if metric is None or not any(trial.metrics for trial in found):
        finished = [trial.metrics for trial in found if trial.metrics]
        if not finished:
            raise TrainingError(f"{folder}: no trial came to an end; try smaller learning rates")
        metric = metric or next(iter(finished[0]))
    best = study.best_trial.number
    content = {"metric": metric, "best": best, "trials": [vars(trial) for trial in found]}
    write_text(folder / "search.json", json.dumps(content, indent=1) + "\n")
    _plot(folder / "search.png", found, metric, best)
    return SearchResult(folder / f"trial-{best:04d}", found, best, metric)


def _plot(path: Path, trials: Sequence[Trial], metric: str, best: int) -> None:
    """The metric over each hyper-parameter; the best trial stands out."""
    import matplotlib.figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = [trial for trial in trials if trial.metrics is not None]
    names = list(shown[0].values)
    figure = matplotlib.figure.Figure(figsize=(3 * len(names), 3), layout="constrained")
    for place, (name, axes) in enumerate(zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True)):
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
        if place == 0:
            axes.set_ylabel(metric)
    figure.suptitle(f"{len(shown)} trials; the best in another colour", fontsize="medium")
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=150, format="png")
    temporary.replace(path)
