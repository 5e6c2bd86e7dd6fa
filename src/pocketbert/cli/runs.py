"""Training runs: presets, one run, several seeds or a search, and the report on the results."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pocketbert.cli import console
from pocketbert.cli.commands import Function, option
from pocketbert.recipes.finetune_options import FinetuneOptions

if TYPE_CHECKING:
    from pocketbert.recipes.epoch_run import FinetuneResult
    from pocketbert.recipes.pretrain import PretrainResult
    from pocketbert.recipes.search import SearchResult
    from pocketbert.recipes.seeds import SeedsResult

_PANEL = "Multiple runs"


def multi_run_options(function: Function) -> Function:
    """Declare --preset, --seeds and --search."""
    from pocketbert.recipes.presets import PRESETS

    preset = option(
        "--preset",
        panel="Training",
        type=click.Choice(list(PRESETS)),
        help="Published hyperparameters, for all options that are not given.",
    )
    seeds = option("--seeds", panel=_PANEL, metavar="N", type=int, help="Repeat the run with N seeds.")
    search = option("--search", panel=_PANEL, metavar="N", type=int, help="Search hyperparameters with N trials.")
    return preset(seeds(search(function)))


def apply_preset(preset: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a command's options, with those of a preset for all that the user did not set."""
    from pocketbert.recipes.presets import PRESETS

    context = click.get_current_context()
    published = {} if preset is None else PRESETS[preset]
    is_default = {name for name in values if context.get_parameter_source(name) is ParameterSource.DEFAULT}
    return {**values, **{name: value for name, value in published.items() if name in is_default}}


def import_recipe(recipe: str) -> Any:
    """Import a module of `recipes`, with a message while PyTorch is loading. Raises `MissingExtraError`."""
    from pocketbert.errors import require

    require("train")
    with console.busy("loading PyTorch"):
        return import_module(f"pocketbert.recipes.{recipe}")


def run_and_report(
    run: Any,
    options: Any,
    json: bool | None,
    *,
    seeds: int | None = None,
    search: int | None = None,
    space: str = "FINETUNING",
) -> None:
    """Carry out one training run, or many, and print the results.

    Args:
        run: `finetune`, `distill`, `pretrain` or `transfer`.
        options: of the run.
        json: as for `console.use_json`.
        seeds: the number of seeds to repeat the run with.
        search: the number of trials of a hyperparameter search.
        space: the name of its search space in `recipes.search`.
    """
    context: dict[str, Any] = {
        "console": console.rich_console(stderr=True), "argv": ["pocketbert", *sys.argv[1:]],
    }  # fmt: skip
    if seeds is not None and search is not None:
        raise click.UsageError("--seeds and --search exclude each other: repeat the best trial of a search with seeds")
    if seeds is not None:
        _print_seeds(import_recipe("seeds").over_seeds(run, options, seeds, **context), json)
    elif search is not None:
        recipe = import_recipe("search")
        _print_search(recipe.search(run, options, getattr(recipe, space), search, **context), json)
    else:
        if isinstance(options, FinetuneOptions):
            context["measure_latency"] = _measure_latency
        _print_run(run(options, **context), json)


def _measure_latency(folder: Path) -> dict[str, float]:
    """Measure the latency of a model folder, for its card."""
    from pocketbert.cli.latency import latency

    with console.busy("timing the model"):
        return latency(folder)


def _print_run(result: FinetuneResult | PretrainResult, json: bool | None) -> None:
    """Print the result of one run."""
    from pocketbert.recipes.epoch_run import FinetuneResult

    if os.environ.get("RANK", "0") != "0":  # one of several processes that have the same result
        return
    line: dict[str, Any] = {"folder": str(result.folder), "metrics": result.metrics}
    if isinstance(result, FinetuneResult):
        line |= {"best_step": result.best_step, "steps": result.steps, "seconds": round(result.seconds, 1)}
        column, command = f"After step {result.best_step:,}", _next_command(result)
    else:
        line |= {"steps": result.steps}
        column, command = "Held out", _COMMANDS["feature-extraction"]
    if console.use_json(json):
        console.print_json(line)
        return
    console.print_metrics({column: result.metrics})
    console.print_facts(
        [
            ("steps", f"{result.steps:,} in {timedelta(seconds=round(result.seconds))}"),
            ("model", f"{result.folder}"),
            ("next", command.format(folder=shlex.quote(str(result.folder)))),
        ]
    )


_COMMANDS = {
    "token-classification": 'pocketbert tag --model {folder} "your text"',
    "question-answering": 'pocketbert answer "your question?" --model {folder} --file passage.txt',
    "multiple-choice": 'pocketbert choose --model {folder} "a beginning" "one end" "another"',
    "feature-extraction": "pocketbert finetune reviews.csv --model {folder} --output my-model",
}


def _next_command(result: FinetuneResult) -> str:
    """A command that uses a model of the task, with {folder} in it."""
    text = '"one text" --pair "another"' if result.pairs else '"your text"'
    return _COMMANDS.get(result.task, f"pocketbert classify --model {{folder}} {text}")


def _print_seeds(result: SeedsResult, json: bool | None) -> None:
    if console.use_json(json):
        for seed, metrics in result.seeds.items():
            console.print_json({"seed": seed, "metrics": metrics})
        console.print_json({"mean": result.mean, "deviation": result.deviation, "best": result.best})
        return
    rows = {f"{seed}": metrics for seed, metrics in result.seeds.items()} | {"mean": result.mean}
    if result.deviation is not None:
        rows["deviation"] = result.deviation
    names = list(result.mean)
    cells = [(name, *(f"{metrics[metric]:.4f}" for metric in names)) for name, metrics in rows.items()]
    console.print_table(["Seed", *names], cells, numbers=names)
    console.print_facts([("best", f"{result.folder}")])


def _print_search(result: SearchResult, json: bool | None) -> None:
    if console.use_json(json):
        for trial in result.trials:
            console.print_json(vars(trial))
        console.print_json({"best": result.best, "folder": str(result.folder)})
        return
    names = list(result.trials[0].values)
    rows = [
        (
            f"{trial.number}",
            *(f"{trial.values[name]:.3g}" for name in names),
            "failed" if trial.metrics is None else f"{trial.metrics[result.metric]:.4f}",
        )
        for trial in result.trials
    ]
    console.print_table(["Trial", *names, result.metric], rows, numbers=[*names, result.metric])
    console.print_facts([("best", f"{result.folder}")])
