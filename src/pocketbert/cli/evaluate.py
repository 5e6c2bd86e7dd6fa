"""Evaluation: evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pocketbert.cli import console
from pocketbert.cli.commands import command
from pocketbert.cli.options import build, options_of
from pocketbert.tasks.evaluate_options import EvaluateOptions


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
@options_of(EvaluateOptions)
@console.json_option
def evaluate(json: bool | None, **values: Any) -> None:
    """Evaluate a model on labelled data of its task.

    A model folder runs on the engine, or with --device in PyTorch; an exported file runs in the library of its format.
    """
    options = build(EvaluateOptions, values)
    from pocketbert.tasks.evaluate import evaluate

    with console.progress("examples") as advance:
        result = evaluate(options, advance=advance, argv=["pocketbert", *sys.argv[1:]])
    if options.submission is not None:
        state = f"still lacks {', '.join(result.missing)}" if result.missing else "is complete"
        console.print_line(f"{options.submission}: the submission {state}", "note")
    for note in result.notes:
        console.print_line(note, "note")
    if options.output is not None:
        console.print_line(f"report: {Path(options.output) / 'report.html'}", "note")
    if console.use_json(json):
        console.print_json(result.metrics)
    else:
        console.print_metrics({"Value": result.metrics})
