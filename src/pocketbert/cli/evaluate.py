"""Evaluation: evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, Declaration, Function, argument, command, option

if TYPE_CHECKING:
    from pocketbert.features import Predictor

DATA, RUN = "Data", "Run"

_data = argument("data", type=PATH, help="A file in one of the layouts of the task; with --glue a folder.")
_device = option("--device", panel=RUN, metavar="NAME", help="Device.")


def _about_data(labels: str, lengths: str) -> Declaration:
    """The options that say what the data is."""
    declared = [
        option("--glue", panel=DATA, metavar="TASK", help="DATA holds the files of this GLUE task: sst-2, mrpc, …"),
        option("--text-column", panel=DATA, metavar="NAME", help="The column of the text (of words, its number)."),
        option("--text-pair-column", panel=DATA, metavar="NAME", help="The column of the second text, for pairs."),
        option("--label-column", panel=DATA, metavar="NAME", help="The column of the label (of tags, its number)."),
        option("--labels", panel=DATA, metavar="A,B,C", help=labels),
        option(
            "--max-length",
            panel=DATA,
            metavar="N",
            type=int,
            default_text=lengths,
            help="Maximum number of tokens per input.",
        ),
    ]

    def declare(function: Function) -> Function:
        for one in reversed(declared):
            function = one(function)
        return function

    return declare


@command(
    examples=[
        "pocketbert evaluate my-model test.csv",
        "pocketbert evaluate sst2 glue/SST-2 --glue sst-2",
        "pocketbert evaluate mnli glue --glue mnli --submission glue.zip",
        "pocketbert evaluate reader dev-v1.1.json --output predictions",
        "pocketbert evaluate exported/onnx/model_quantized.onnx test.csv",
        "pocketbert evaluate phone/model_int8.tflite test.csv",
    ]
)
@argument("model", type=click.Path(), help="A model folder, a hub name, or an exported file.")
@_data
@_about_data("What the model's labels mean, in its order, where it does not say.", "512, for questions 384")
@option("--output", "-o", panel=RUN, type=PATH, metavar="FOLDER", help="Write the predictions there.")
@option(
    "--submission", panel=RUN, type=PATH, metavar="ZIP", help="With --glue: predict the test set for the benchmark."
)
@option("--device", panel=RUN, metavar="NAME", help="Run in PyTorch, on cpu, cuda or cuda:1.")
@console.json_option
def evaluate(
    model: str,
    data: Path,
    output: Path | None,
    submission: Path | None,
    device: str | None,
    json: bool | None,
    labels: str | None,
    **about_data: Any,
) -> None:
    """Evaluate a model on labelled data of its task."""
    from pocketbert.errors import require
    from pocketbert.exporters.load import find_export, load_export, model_folder
    from pocketbert.tasks.evaluate import read_evaluation

    if submission is not None and about_data["glue"] is None:
        raise click.UsageError("--submission is for GLUE: say which task with --glue")
    if device is not None:
        require("train")
    file = find_export(model)
    if file is not None and device is not None:
        raise click.UsageError(f"--device runs PyTorch, which does not read {file}")
    with console.busy("reading model and data"):
        exported = None if file is None else load_export(file)
        folder = model if file is None else str(model_folder(file))
        if exported is not None and exported.max_tokens is not None:
            about_data["max_length"] = min(about_data["max_length"] or exported.max_tokens, exported.max_tokens)
        evaluation = read_evaluation(
            folder,
            data,
            labels=None if labels is None else tuple(name.strip() for name in labels.split(",")),
            **about_data,
        )
        predictor = exported or _predictor(model, evaluation.head, device)
    with console.progress("examples") as advance:
        metrics = evaluation(predictor, advance)
    if output is not None:
        evaluation.write(output)
    if submission is not None:
        from pocketbert.tasks.submission import submit

        with console.progress("examples of the test set") as advance:
            missing = submit(evaluation, predictor, data, submission, advance)
        lacks = f"it still lacks {', '.join(missing)}" if missing else "it is complete"
        console.print_line(f"{submission}: {lacks}", "note")
    if console.use_json(json):
        console.print_json(metrics)
    else:
        console.print_table(
            ["Metric", "Value"], [(name, f"{value:.4f}") for name, value in metrics.items()], numbers=["Value"]
        )


def _predictor(model: str, head: str, device: str | None) -> Predictor:
    """The engine; or with a device, PyTorch on it."""
    if device is None:
        from pocketbert.runtime.engine import Engine

        return Engine.from_pretrained(model, head)
    from pocketbert.models.auto import load_trained
    from pocketbert.models.device import choose_device
    from pocketbert.models.predict import TorchPredictor

    return TorchPredictor(load_trained(model, head).to(choose_device(device)))
