"""What finetune and distill have in common: presets; one run, the same with several seeds, or a search."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pocketbert.cli import console
from pocketbert.cli.commands import Function, option

if TYPE_CHECKING:
    from pocketbert.recipes.search import SearchResult
    from pocketbert.recipes.seeds import SeedsResult

PANEL = "Several runs"


def several_runs(function: Function) -> Function:
    """Declare --preset, --seeds and --search."""
    preset = option(
        "--preset",
        panel="Training",
        metavar="NAME",
        help="squeezebert or mobilebert: as published, where you say nothing else.",
    )
    seeds = option("--seeds", panel=PANEL, metavar="N", type=int, help="The same with N seeds: mean and deviation.")
    search = option("--search", panel=PANEL, metavar="N", type=int, help="Try N settings of rate, batch, epochs, ….")
    return preset(seeds(search(function)))


def as_published(preset: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command, with those of a preset where the user gave none. Raises `ConfigError`."""
    if preset is None:
        return dict(given)
    from pocketbert.errors import ConfigError
    from pocketbert.recipes.presets import PRESETS

    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset} is none of: {', '.join(PRESETS)}")
    context = click.get_current_context()
    typed = {name for name in given if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    return {**given, **{name: value for name, value in PRESETS[preset].items() if name not in typed}}


def carry_out(run: Any, options: Any, space: str, seeds: int | None, search: int | None, json: bool | None) -> None:
    """Run `finetune` or `distill` as often as asked, and show what came out; `space` names what a search tries."""
    from importlib import import_module

    from pocketbert.cli.finetune import report
    from pocketbert.errors import ConfigError

    how: dict[str, Any] = {"console": console.rich_console(stderr=True), "argv": ["pocketbert", *sys.argv[1:]]}
    if seeds is not None and search is not None:
        raise ConfigError("--seeds and --search exclude each other: search first, then repeat the best with seeds")
    if seeds is not None:
        _show_seeds(import_module("pocketbert.recipes.seeds").over_seeds(run, options, seeds, **how), json)
    elif search is not None:
        recipe = import_module("pocketbert.recipes.search")
        _show_search(recipe.search(run, options, getattr(recipe, space), search, **how), json)
    else:
        report(run(options, **how), json)


def _show_seeds(result: SeedsResult, json: bool | None) -> None:
    if console.use_json(json):
        for seed, metrics in result.seeds.items():
            console.print_json({"seed": seed, "metrics": metrics})
        console.print_json({"mean": result.mean, "deviation": result.deviation, "best": result.best})
        return
    names = list(result.mean)
    rows = [(f"{seed}", *(f"{metrics[name]:.4f}" for name in names)) for seed, metrics in result.seeds.items()]
    rows.append(("mean", *(f"{result.mean[name]:.4f}" for name in names)))
    if result.deviation is not None:
        rows.append(("deviation", *(f"{result.deviation[name]:.4f}" for name in names)))
    console.print_table(["Seed", *names], rows, numbers=names)
    console.print_facts([("best", f"{result.folder}")])


def _show_search(result: SearchResult, json: bool | None) -> None:
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
