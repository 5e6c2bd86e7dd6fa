"""Make a model of your own, and measure one: finetune, evaluate."""

from __future__ import annotations

import json as json_module
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketbert.cli import show

if TYPE_CHECKING:
    from pocketbert.recipes.finetune import FinetuneResult

app = typer.Typer()
PANEL = "Learn"

DATA, START, TRAINING, EVALUATION, RUN = "Data", "What to start from", "Training", "Evaluation", "The run"


def _option(panel: str, help: str, metavar: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel)


Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="A CSV, TSV, JSON-lines or Parquet file; with --glue a folder.")
]
Glue = Annotated[str | None, _option(DATA, "DATA holds the files of this GLUE task: sst-2, mrpc, …", "TASK")]
TextColumn = Annotated[str | None, _option(DATA, "The column of the text; recognised when not given.", "NAME")]
TextPairColumn = Annotated[str | None, _option(DATA, "The column of the second text, for pairs.", "NAME")]
LabelColumn = Annotated[str | None, _option(DATA, "The column of the label; recognised when not given.", "NAME")]
MaxLength = Annotated[int, _option(DATA, "How many tokens of a text to read.", "N")]
Device = Annotated[str | None, _option(RUN, "cpu, cuda or cuda:1; a GPU when there is one, if not given.", "NAME")]


# Names and defaults are those of `recipes.options.FinetuneOptions`, which a test sees to.
@app.command(
    rich_help_panel=PANEL,
    epilog=show.examples(
        "pocketbert finetune reviews.csv -m my-squeezebert -o my-model",
        "pocketbert finetune data.tsv --from-scratch small.json --vocab-size 8000 -o new",
        "pocketbert finetune glue --glue sst-2 -m google/mobilebert-uncased -o sst2",
        "pocketbert finetune reviews.csv -m my-squeezebert -o my-model --resume",
    ),
)
def finetune(
    data: Data,
    output: Annotated[Path, _option(RUN, "The folder for the model: new, or to --resume.", "FOLDER", "--output", "-o")],
    task: Annotated[str, _option(DATA, "What to learn.", "NAME")] = "text-classification",
    glue: Glue = None,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    label_column: LabelColumn = None,
    labels: Annotated[str | None, _option(DATA, "The labels in the order of their ids; else sorted.", "A,B,C")] = None,
    max_length: MaxLength = 128,
    model: Annotated[
        str | None, _option(START, "A checkpoint: a folder, or a hub name.", "FOLDER|NAME", "--model", "-m")
    ] = None,
    from_scratch: Annotated[
        str | None, _option(START, "Fresh weights: of squeezebert-uncased, …, or a config.json.", "PRESET|FILE")
    ] = None,
    tokenizer: Annotated[
        str | None, _option(START, "Another tokenizer, or a vocab.txt; else the checkpoint's.", "FOLDER|NAME|FILE")
    ] = None,
    vocab_size: Annotated[
        int | None, _option(START, "With --from-scratch: learn the vocabulary from DATA.", "N")
    ] = None,
    epochs: Annotated[float, _option(TRAINING, "How often to go through the data.", "N")] = 3.0,
    batch_size: Annotated[int, _option(TRAINING, "Examples a step.", "N")] = 32,
    accumulation: Annotated[int, _option(TRAINING, "Parts to divide each batch into, to save memory.", "N")] = 1,
    learning_rate: Annotated[float | None, _option(TRAINING, "The peak; else 5e-5, or 5e-4 from scratch.", "X")] = None,
    warmup: Annotated[float, _option(TRAINING, "The part of all steps in which the rate rises.", "X")] = 0.1,
    weight_decay: Annotated[float, _option(TRAINING, "For weights other than biases and norms.", "X")] = 0.01,
    clip: Annotated[float, _option(TRAINING, "The largest norm of the gradient.", "X")] = 1.0,
    seed: Annotated[int, _option(TRAINING, "Decides fresh weights, order, dropout, what is kept back.", "N")] = 42,
    precision: Annotated[str, _option(TRAINING, "auto is bf16 on a GPU that has it.", "auto|fp32|bf16")] = "auto",
    eval_data: Annotated[Path | None, _option(EVALUATION, "A file to evaluate on.", "FILE")] = None,
    eval_fraction: Annotated[
        float, _option(EVALUATION, "Without such a file: which part of DATA to keep back.", "X")
    ] = 0.1,
    eval_every: Annotated[int | None, _option(EVALUATION, "Steps in between; else an epoch.", "N")] = None,
    metric: Annotated[str | None, _option(EVALUATION, "Which one decides what is best.", "NAME")] = None,
    patience: Annotated[int | None, _option(EVALUATION, "Stop after so many without a new best.", "N")] = None,
    device: Device = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output.", rich_help_panel=RUN)
    ] = False,
    tensorboard: Annotated[bool, typer.Option(help="Whether to write curves.", rich_help_panel=RUN)] = True,
    json: show.AsJson = None,
) -> None:
    """Train a text classifier on labelled data, from a checkpoint or from scratch.

    The best model lies in the output folder, ready to use. Ctrl-C keeps the state: the same command with --resume
    goes on where it stopped.
    """
    given: dict[str, Any] = {**locals()}
    del given["json"]
    given["labels"] = _names(labels)
    options = _import("options").FinetuneOptions(**given)
    result = _import("finetune").finetune(
        options, console=show.console(stderr=True), argv=["pocketbert", *sys.argv[1:]]
    )
    if show.as_lines(json):
        line = {"folder": str(result.folder), "metrics": result.metrics, "best_step": result.best_step}
        show.line({**line, "steps": result.steps, "seconds": round(result.seconds, 1)})
    else:
        _summarise(result)


@app.command(
    rich_help_panel=PANEL,
    epilog=show.examples(
        "pocketbert evaluate my-model test.csv",
        "pocketbert evaluate sst2 glue/SST-2 --glue sst-2",
    ),
)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, or a hub name.")],
    data: Data,
    glue: Glue = None,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    label_column: LabelColumn = None,
    labels: Annotated[
        str | None, _option(DATA, "What the model's labels mean, in its order, where it does not say.", "A,B,C")
    ] = None,
    max_length: MaxLength = 512,
    device: Device = None,
    json: show.AsJson = None,
) -> None:
    """Measure a text classifier on labelled data."""
    from importlib.util import find_spec

    from pocketbert.configs import AutoConfig

    options: dict[str, Any] = {
        "glue": glue, "text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column,
        "labels": _names(labels), "max_length": max_length,
    }  # fmt: skip
    if device is None and (AutoConfig.from_pretrained(model).quantized or find_spec("torch") is None):
        from pocketbert.recipes.evaluate import read_evaluation
        from pocketbert.runtime.engine import Engine

        with show.busy("evaluating"):
            metrics = read_evaluation(model, data, **options)(
                Engine.from_pretrained(model, "ForSequenceClassification")
            )
    else:
        recipe = _import("evaluate")
        with show.busy("evaluating"):
            metrics = recipe.evaluate(model, data, device=device, **options)
    if show.as_lines(json):
        show.line(metrics)
    else:
        show.table(["Metric", "Value"], [(name, f"{value:.4f}") for name, value in metrics.items()], numbers=["Value"])


def _import(recipe: str) -> Any:
    from importlib import import_module

    from pocketbert.errors import require

    require("train")
    with show.busy("loading PyTorch"):
        return import_module(f"pocketbert.recipes.{recipe}")


def _names(labels: str | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(name.strip() for name in labels.split(","))


def _summarise(result: FinetuneResult) -> None:
    from datetime import timedelta

    show.table(
        ["Metric", f"After step {result.best_step:,}"],
        [(name, f"{value:.4f}") for name, value in result.metrics.items()],
        numbers=[f"After step {result.best_step:,}"],
    )
    run = json_module.loads((result.folder / "run.json").read_text(encoding="utf-8"))
    pairs = run["data"]["train"]["columns"][1] is not None
    text = '"one text" --pair "another"' if pairs else '"a text of yours"'
    show.facts(
        [
            ("steps", f"{result.steps:,} in {timedelta(seconds=round(result.seconds))}"),
            ("model", f"{result.folder}"),
            ("next", f"pocketbert classify --model {shlex.quote(str(result.folder))} {text}"),
        ]
    )
