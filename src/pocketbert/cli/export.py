"""Write a model for another engine: export."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, argument, command, option
from pocketbert.cli.inputs import read_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pocketbert.exporters.verify import Export, Measure

MOST = 1000  # texts to compare on
PRECISIONS = {"onnx": ("fp32", "fp16", "int8"), "litert": ("fp32", "fp16", "int8", "integer"), "savedmodel": ("fp32",)}


@command(
    examples=[
        "pocketbert export my-model my-model-onnx",
        "pocketbert export my-model web --precision int8 --precision fp16",
        "pocketbert export my-model out --precision int8 --eval test.csv",
        "pocketbert export my-model phone --format litert --precision int8",
        "pocketbert export m n --format litert --precision integer --calibrate t.txt",
        "pocketbert export my-model serving --format savedmodel",
    ]
)
@argument("model", type=click.Path(), help="A model folder, or a hub name.")
@argument("out", type=PATH, help="The folder for the result: new.")
@option("--format", "format_", type=click.Choice(list(PRECISIONS)), default="onnx", help="What to write.")
@option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS["litert"]),
    multiple=True,
    default=("fp32",),
    help="Of the weights, or with integer, for litert, of everything; give several for a file each.",
)
@option("--opset", type=int, metavar="N", default_text="17", help="Version of the ONNX operator set.")
@option(
    "--max-length",
    type=click.IntRange(4, 512),
    metavar="N",
    default_text="128",
    help="Tokens per input of a litert file.",
)
@option("--calibrate", metavar="FILE", type=PATH, help="Texts like those to come, for --precision integer.")
@option("--text", metavar="FILE", type=PATH, help="Compare on the first texts of this file, not on built-in ones.")
@option("--eval", "data", type=PATH, metavar="DATA", help="Measure the model and each file on this.")
@option("--glue", metavar="TASK", help="DATA holds the files of this GLUE task: sst-2, mrpc, …")
@option("--force", is_flag=True, help="Accept whatever 8 bits cost, and any loss of the metric.")
@console.json_option
def export(
    model: str,
    out: Path,
    format_: str,
    precisions: Sequence[str],
    opset: int | None,
    max_length: int | None,
    calibrate: Path | None,
    text: Path | None,
    data: Path | None,
    glue: str | None,
    force: bool,
    json: bool | None,
) -> None:
    """Export a model to ONNX, LiteRT or SavedModel, and verify it.

    Each file is run and compared with the model before it appears.
    """
    from pocketbert.exporters.verify import SENTENCES

    if glue is not None and data is None:
        raise click.UsageError("--glue says what --eval DATA holds")
    if wrong := set(precisions) - set(PRECISIONS[format_]):
        raise click.UsageError(f"--precision {wrong.pop()} is not for --format {format_}")
    if format_ != "litert" and (max_length is not None or calibrate is not None):
        raise click.UsageError("--max-length and --calibrate are for --format litert")
    if format_ != "onnx" and opset is not None:
        raise click.UsageError("--opset is for --format onnx")
    write, options = _format(format_, precisions)
    if opset is not None:
        options["opset"] = opset
    if format_ == "litert":
        calibration = None if calibrate is None else tuple(islice(read_texts(calibrate), MOST))
        options |= {"max_tokens": max_length, "calibration": calibration}
    options["texts"] = SENTENCES if text is None else tuple(islice(read_texts(text), MOST))
    with console.progress("examples, of the model and of each file", hidden=data is None) as advance:
        if data is not None:
            longest = _max_tokens(model, max_length) if format_ == "litert" else None
            options["measure"] = _measure(model, data, glue, longest, advance)
        with console.busy("writing, running and comparing") if data is None else nullcontext():
            done = write(model, out, force=force, **options)
    if console.use_json(json):
        for one in done:
            console.print_json({**asdict(one), "path": str(one.path)})
    else:
        _summarise(done, out)


def _format(name: str, precisions: Sequence[str]) -> tuple[Callable[..., list[Export]], dict[str, Any]]:
    """What writes a format, and what it takes; its extras are known to be there."""
    from pocketbert.errors import require

    if name == "onnx":
        require("export")
        from pocketbert.exporters.onnx.writer import export_onnx

        return export_onnx, {"precisions": precisions}
    require("tf")
    if name == "savedmodel":
        from pocketbert.exporters.saved_model.writer import export_saved_model

        return export_saved_model, {}
    require("litert")
    from pocketbert.exporters.litert.writer import export_litert

    return export_litert, {"precisions": precisions}


def _max_tokens(model: str, wanted: int | None) -> int:
    """What the files of a model read."""
    from pocketbert.configs import AutoConfig
    from pocketbert.exporters.litert.writer import usual_tokens

    return wanted or usual_tokens(AutoConfig.from_pretrained(model))


def _measure(
    model: str, data: Path, glue: str | None, max_length: int | None, advance: Callable[[int, float], None]
) -> Measure:
    from pocketbert.recipes.evaluate import read_evaluation

    evaluation = read_evaluation(model, data, glue=glue, max_length=max_length)
    return lambda predictor: evaluation(predictor, advance)


def _summarise(done: Sequence[Export], out: Path) -> None:
    columns = ["Weights", "MB", "Output", "Largest difference", "Mean", "Relative", "Same choice"]
    rows = [
        (one.precision, f"{one.size / 1e6:.1f}", name, f"{it.largest:.2g}", f"{it.mean:.2g}", f"{it.relative:.2g}",
         "" if it.agreement is None else f"{100 * it.agreement:.1f} %")
        for one in done for name, it in one.differences.items()
    ]  # fmt: skip
    console.print_table(columns, rows, numbers=columns[1:2] + columns[3:])
    if any(one.metrics for one in done):
        named = done[0].metrics["model"]
        table = [(name, f"{value:.4f}", *(f"{one.metrics['export'][name]:.4f}" for one in done))
                 for name, value in named.items()]  # fmt: skip
        heads = ["model", *(one.precision for one in done)]
        console.print_table(["Metric", *heads], table, numbers=heads)
    console.print_facts([("folder", str(out))])
