"""Write a model for another engine: export."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketbert.cli import show
from pocketbert.cli.commands import PATH, argument, command, option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pocketbert.export.onnx_folder import Measure, OnnxExport, Precision

MOST = 1000  # texts to compare on


@command(
    examples=[
        "pocketbert export my-model my-model-onnx",
        "pocketbert export my-model web --precision int8 --precision fp16",
        "pocketbert export my-model out --precision int8 --eval test.csv",
    ]
)
@argument("model", type=click.Path(), help="A model folder, or a hub name.")
@argument("out", type=PATH, help="The folder for the result: new.")
@option("--format", "format_", type=click.Choice(["onnx"]), default="onnx", help="What to write.")
@option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "fp16", "int8"]),
    multiple=True,
    default=("fp32",),
    help="Of the weights; give several for a file each.",
)
@option("--text", metavar="FILE", type=PATH, help="Compare on the first texts of this file, not on built-in ones.")
@option("--eval", "data", type=PATH, metavar="DATA", help="Measure the model and each file on this.")
@option("--glue", metavar="TASK", help="DATA holds the files of this GLUE task: sst-2, mrpc, …")
@option("--force", is_flag=True, help="Accept a loss of more than a point.")
@show.as_json
def export(
    model: str,
    out: Path,
    format_: str,  # there is one so far
    precisions: Sequence[Precision],
    text: Path | None,
    data: Path | None,
    glue: str | None,
    force: bool,
    json: bool | None,
) -> None:
    """Write a model for other engines, and prove each file.

    It is run and compared with the model before it appears.
    """
    from pocketbert.errors import require
    from pocketbert.export.onnx_folder import export_onnx
    from pocketbert.export.proof import SENTENCES

    require("export")
    if glue is not None and data is None:
        raise click.UsageError("--glue says what --eval DATA holds")
    texts = SENTENCES if text is None else tuple(islice(_lines(text), MOST))
    with show.progress("examples, of the model and of each file", hidden=data is None) as advance:
        measure = None if data is None else _measure(model, data, glue, advance)
        with show.busy("writing, running and comparing") if data is None else nullcontext():
            done = export_onnx(model, out, precisions=precisions, texts=texts, measure=measure, force=force)
    if show.as_lines(json):
        for one in done:
            show.line({**asdict(one), "path": str(one.path)})
    else:
        _summarise(done)


def _lines(path: Path) -> Iterator[str]:
    from pocketbert.cli.texts import source

    return (item.text for item in source((), str(path)).items() if item is not None)


def _measure(model: str, data: Path, glue: str | None, advance: Callable[[int, float], None]) -> Measure:
    from pocketbert.recipes.evaluate import read_evaluation

    evaluation = read_evaluation(model, data, glue=glue)
    return lambda predictor: evaluation(predictor, advance)


def _summarise(done: Sequence[OnnxExport]) -> None:
    columns = ["Weights", "MB", "Output", "Largest difference", "Mean", "Relative", "Same choice"]
    rows = [
        (one.precision, f"{one.size / 1e6:.1f}", name, f"{it.largest:.2g}", f"{it.mean:.2g}", f"{it.relative:.2g}",
         "" if it.agreement is None else f"{100 * it.agreement:.1f} %")
        for one in done for name, it in one.differences.items()
    ]  # fmt: skip
    show.table(columns, rows, numbers=columns[1:2] + columns[3:])
    if any(one.metrics for one in done):
        named = done[0].metrics["model"]
        table = [(name, f"{value:.4f}", *(f"{one.metrics['export'][name]:.4f}" for one in done))
                 for name, value in named.items()]  # fmt: skip
        heads = ["model", *(one.precision for one in done)]
        show.table(["Metric", *heads], table, numbers=heads)
    show.facts([("folder", str(done[0].path.parent.parent))])
