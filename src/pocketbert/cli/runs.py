"""Training runs: presets, one run, several seeds or a search, and the report on the results."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pocketbert.cli import console
from pocketbert.cli.commands import Function, click_option
from pocketbert.cli.options import build
from pocketbert.cli.predictions import spare_numpy_threads
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.finetune_options import FinetuneOptions

if TYPE_CHECKING:
    from rich.console import Console

    from pocketbert.frozen.few_shot import FewShotResult
    from pocketbert.recipes.epoch_run import FinetuneResult
    from pocketbert.recipes.pretrain import PretrainResult
    from pocketbert.recipes.pretrain_options import PretrainOptions
    from pocketbert.recipes.search import SearchResult
    from pocketbert.recipes.seeds import SeedsResult

_PANEL = "Multiple runs"


def multi_run_options(function: Function) -> Function:
    """Declare --preset, --seeds and --search."""
    from pocketbert.recipes.presets import PRESETS

    preset = click_option(
        "--preset",
        panel="Training",
        type=click.Choice(list(PRESETS)),
        help="Published hyperparameters for all other options.",
    )
    seeds = click_option("--seeds", panel=_PANEL, metavar="N", type=int, help="Repeat the run with N seeds.")
    search = click_option("--search", panel=_PANEL, metavar="N", type=int, help="Search hyperparameters with N trials.")
    return preset(seeds(search(function)))


def apply_preset(preset: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a command's options, with those of a preset for all that the user did not set."""
    from pocketbert.recipes.presets import PRESETS

    context = click.get_current_context()
    is_default = {name for name in values if context.get_parameter_source(name) is ParameterSource.DEFAULT}
    return {**values, **{name: value for name, value in PRESETS[preset].items() if name in is_default}}


def import_recipe(recipe: str) -> Any:
    """Import a module of `recipes`, with a message while PyTorch is loading. Raises `MissingExtraError`."""
    from pocketbert.errors import require

    require("train")
    with console.busy("loading PyTorch"):
        return import_module(f"pocketbert.recipes.{recipe}")


def run_and_report(
    recipe: str,
    options_class: Callable[..., FinetuneOptions | PretrainOptions],
    values: Mapping[str, Any],
    json: bool | None,
    *,
    preset: str | None = None,
    seeds: int | None = None,
    search: int | None = None,
) -> None:
    """Build the options of a training command, carry out one run or many, and print the results.

    Args:
        recipe: finetune, distill, pretrain or transfer.
        options_class: its options.
        values: the values of the command's options.
        json: as for `console.use_json`.
        preset: the name of published hyperparameters.
        seeds: the number of seeds to repeat the run with.
        search: the number of trials of a hyperparameter search.
    """
    if seeds is not None and search is not None:
        raise click.UsageError("--seeds and --search exclude each other: repeat the best trial of a search with seeds")
    if (seeds is not None or search is not None) and os.environ.get("WORLD_SIZE", "1") != "1":
        raise click.UsageError(
            "--seeds and --search carry out many runs, one after the other: run them without torchrun"
        )
    options = build(options_class, values if preset is None else apply_preset(preset, values))
    run = getattr(import_recipe(recipe), recipe)
    context: dict[str, Any] = {
        "console": _rich_console(), "argv": ["pocketbert", *sys.argv[1:]],
    }  # fmt: skip
    if seeds is not None:
        _print_seeds(import_recipe("seeds").over_seeds(run, options, seeds, **context), json)
    elif search is not None:
        searching = import_recipe("search")
        # Distillation on raw text has no teacher loss whose weight could be searched.
        labelled = isinstance(options, DistillOptions) and options.task != "feature-extraction"
        space = searching.DISTILLING if labelled else searching.FINETUNING
        _print_search(searching.search(run, options, space, search, **context), json)
    else:
        if isinstance(options, FinetuneOptions):
            context["measure_latency"] = _measure_latency
        _print_run(run(options, **context), json)


def _rich_console() -> Console:
    """Where a run draws its bar and prints its lines as they are: no markup, no emoji codes, no automatic colours."""
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def run_few_shot(options: FinetuneOptions, json: bool | None, **several: Any) -> None:
    """Fit a head to frozen vectors, and print the result; `several` are options that this has no use for."""
    if wrong := [name for name, value in several.items() if value is not None]:
        raise click.UsageError(
            f"--{wrong[0]} is for training the encoder, which --few-shot does not do: leave one of them out"
        )
    spare_numpy_threads()
    from pocketbert.frozen.few_shot import few_shot

    result = few_shot(options, log=console.print_line)
    if console.use_json(json):
        console.print_json({"folder": str(result.folder), "metrics": result.metrics, "reads": result.chosen,
                            "seconds": round(result.seconds, 1)})  # fmt: skip
        return
    console.print_metrics({"Held out" if options.eval_data else "Cross-validated": result.metrics})
    command = _next_command(result).format(folder=shlex.quote(str(result.folder)))
    console.print_facts(
        [
            ("seconds", f"{result.seconds:.1f}"),
            ("model", f"{result.folder}"),
            ("report", f"{result.folder}/report.html"),
            ("next", command),
        ]
    )


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
    report = result.folder / "report.html"
    console.print_facts(
        [
            ("steps", f"{result.steps:,} in {timedelta(seconds=round(result.seconds))}"),
            ("model", f"{result.folder}"),
            *([("report", f"{report}")] if report.exists() else []),
            ("next", command.format(folder=shlex.quote(str(result.folder)))),
        ]
    )


_COMMANDS = {
    "text-classification": 'pocketbert classify --model {folder} "your text"',
    "token-classification": 'pocketbert tag --model {folder} "your text"',
    "question-answering": 'pocketbert answer "your question?" --model {folder} --file passage.txt',
    "multiple-choice": 'pocketbert choose --model {folder} "a beginning" "one end" "another"',
    "feature-extraction": "pocketbert finetune reviews.csv --model {folder} --output my-model",
}


def _next_command(result: FinetuneResult | FewShotResult) -> str:
    """A command that uses a model of the task, with {folder} in it."""
    command = _COMMANDS[result.task]
    return command.replace('"your text"', '"one text" --pair "another"') if result.pairs else command


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
