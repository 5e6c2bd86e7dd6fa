"""Export to other engines: export."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, click_option, command
from pocketbert.cli.inputs import read_texts
from pocketbert.cli.options import build, options_of
from pocketbert.exporters.options import ExportOptions

if TYPE_CHECKING:
    from pocketbert.exporters.export import ExportResult

MOST = 1000  # texts to compare or calibrate on


@command(
    examples=[
        "pocketbert export my-model my-model-onnx",
        "pocketbert export my-model web --precision int8 --precision fp16",
        "pocketbert export my-model out --precision int8 --eval test.csv",
        "pocketbert export my-model phone --format litert --precision int8",
        "pocketbert export m n --format litert --precision integer --calibrate t.txt",
        "pocketbert export my-model serving --format savedmodel",
        "pocketbert export my-model page --format web",
    ]
)
@options_of(ExportOptions)
@click_option(
    "--calibrate", type=PATH, metavar="FILE", help="File of typical texts, to calibrate --precision integer on."
)
@click_option(
    "--text", type=PATH, metavar="FILE", default_text="built-in sentences",
    help=f"File of texts on which to compare outputs; the first {MOST} are read.",
)  # fmt: skip
@console.json_option
def export(calibrate: Path | None, text: Path | None, json: bool | None, **values: Any) -> None:
    """Export a model to ONNX, LiteRT, SavedModel or the web, and verify it.

    Each file is run and compared with the model before it appears.
    """
    options = build(ExportOptions, {**values, "calibration": _first(calibrate), "texts": _first(text)})
    from pocketbert.exporters.export import export

    with (
        console.progress("examples, of the model and of each file", hidden=options.eval_data is None) as advance,
        console.busy("writing, running and comparing") if options.eval_data is None else nullcontext(),
    ):
        result = export(options, advance=advance)
    if console.use_json(json):
        for file in result.files:
            console.print_json({**asdict(file), "path": str(file.path)})
    else:
        _print(result)


def _first(path: Path | None) -> tuple[str, ...] | None:
    return None if path is None else tuple(islice(read_texts(path), MOST))


def _print(result: ExportResult) -> None:
    columns = ["Weights", "MB", "Output", "Largest difference", "Mean", "Relative", "Same argmax"]
    rows = [
        (file.precision, f"{file.size / 1e6:.1f}", name, f"{it.largest:.2g}", f"{it.mean:.2g}", f"{it.relative:.2g}",
         "" if it.agreement is None else f"{100 * it.agreement:.1f} %")
        for file in result.files for name, it in file.differences.items()
    ]  # fmt: skip
    console.print_table(columns, rows, numbers=columns[1:2] + columns[3:])
    if any(file.metrics for file in result.files):
        exports = {file.precision: file.metrics["export"] for file in result.files}
        console.print_metrics({"model": result.files[0].metrics["model"], **exports})
    console.print_facts([("folder", str(result.folder))])
