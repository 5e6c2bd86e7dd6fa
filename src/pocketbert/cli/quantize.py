"""Make a model small and fast: quantize."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, argument, command, option

if TYPE_CHECKING:
    from pocketbert.runtime.quantized_folders import Quantized


@command(
    examples=[
        "pocketbert quantize my-model my-model-int8",
        "pocketbert quantize my-model my-model-int8 --eval test.csv",
        "pocketbert quantize sst2 sst2-int8 --eval glue --glue sst-2",
    ]
)
@argument("model", type=click.Path(), help="A model folder, or a hub name.")
@argument("out", type=PATH, help="The folder for the result: new.")
@option("--eval", "data", type=PATH, metavar="DATA", help="Measure the model before and after on this.")
@option("--glue", metavar="TASK", help="DATA holds the files of this GLUE task: sst-2, mrpc, …")
@option("--force", is_flag=True, help="Accept a loss of more than a point.")
@console.json_option
def quantize(model: str, out: Path, data: Path | None, glue: str | None, force: bool, json: bool | None) -> None:
    """Write a model with int8 weights: smaller and faster.

    No data is needed for it.
    """
    from pocketbert.runtime.quantized_folders import quantize_folder

    if glue is not None and data is None:
        raise click.UsageError("--glue says what --eval DATA holds")
    with console.progress("examples, of fp32 and of int8") as advance:
        measure = None if data is None else _measure(model, data, glue, advance)
        done = quantize_folder(model, out, measure=measure, force=force)
    if console.use_json(json):
        console.print_json(
            {"folder": str(done.folder), "int8_weights": done.int8, "fp32_weights": done.fp32,
             "fp32_steps": done.unquantized, "metrics": done.metrics}
        )  # fmt: skip
    else:
        _summarise(done)


def _measure(model: str, data: Path, glue: str | None, advance: Callable[[int, float], None]) -> Any:
    """What maps a folder to its metrics on the engine; the data is read once."""
    from pocketbert.recipes.evaluate import read_evaluation
    from pocketbert.runtime.engine import Engine

    evaluation = read_evaluation(model, data, glue=glue)
    return lambda folder: evaluation(Engine.from_pretrained(folder, evaluation.head), advance)


def _summarise(done: Quantized) -> None:
    if done.metrics:
        before, after = done.metrics["fp32"], done.metrics["int8"]
        rows = [(name, f"{before[name]:.4f}", f"{after[name]:.4f}") for name in before]
        console.print_table(["Metric", "fp32", "int8"], rows, numbers=["fp32", "int8"])
    console.print_facts(
        [
            ("int8", f"{done.int8:,} weights"),
            ("fp32", f"{done.fp32:,} numbers: positions, biases, norms and scales"),
            *(("also fp32", text) for text in _together(done)),
            ("model", f"{done.folder}"),
        ]
    )


def _together(done: Quantized) -> list[str]:
    """The steps in fp32, those of all layers in one line."""
    alike = Counter((re.sub(r"\.\d+\.", ".*.", name), reason) for name, reason in done.unquantized.items())
    return [f"{name}{f' ({count})' if count > 1 else ''}: {reason}" for (name, reason), count in alike.items()]
