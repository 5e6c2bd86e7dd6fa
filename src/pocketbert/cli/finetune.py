"""Make a model of your own, and measure one: finetune, evaluate."""

from __future__ import annotations

import json as json_module
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, Declaration, Function, argument, command, option
from pocketbert.cli.runs import as_published, carry_out, several_runs

if TYPE_CHECKING:
    from pocketbert.features import Predictor
    from pocketbert.recipes.finetune import FinetuneResult

DATA, START, TRAINING, EVALUATION, RUN = "Data", "What to start from", "Training", "Evaluation", "The run"

_data = argument("data", type=PATH, help="A file in one of the layouts of the task; with --glue a folder.")
_device = option(
    "--device", panel=RUN, metavar="NAME", help="cpu, cuda or cuda:1; a GPU when there is one, if not given."
)


def _about_data(labels: str, lengths: str) -> Declaration:
    """The options that say what the data is."""
    declared = [
        option("--glue", panel=DATA, metavar="TASK", help="DATA holds the files of this GLUE task: sst-2, mrpc, …"),
        option("--text-column", panel=DATA, metavar="NAME", help="The column of the text (of words, its number)."),
        option("--text-pair-column", panel=DATA, metavar="NAME", help="The column of the second text, for pairs."),
        option("--label-column", panel=DATA, metavar="NAME", help="The column of the label (of tags, its number)."),
        option("--labels", panel=DATA, metavar="A,B,C", help=labels),
        option("--max-length", panel=DATA, metavar="N", type=int, help=f"Tokens to read; else {lengths}."),
    ]

    def declare(function: Function) -> Function:
        for one in reversed(declared):
            function = one(function)
        return function

    return declare


# Names and defaults are those of `recipes.finetune_options.FinetuneOptions`, which a test sees to.
@command(
    examples=[
        "pocketbert finetune reviews.csv -m my-squeezebert -o my-model",
        "pocketbert finetune a.tsv --from-scratch small.json --vocab-size 8000 -o new",
        "pocketbert finetune train.json --task question-answering -m my-bert -o qa",
        "pocketbert finetune train.txt --task token-classification -m my-bert -o ner",
        "pocketbert finetune glue --glue sst-2 -m google/mobilebert-uncased -o sst2",
        "pocketbert finetune reviews.csv -m my-squeezebert -o my-model --resume",
    ]
)
@_data
@option(
    "--output",
    "-o",
    panel=RUN,
    type=PATH,
    metavar="FOLDER",
    required=True,
    help="The folder for the model: new, or to --resume.",
)
@option("--resume", panel=RUN, is_flag=True, help="Continue the run in --output.")
@_device
@option("--tensorboard/--no-tensorboard", panel=RUN, default=True, help="Whether to write curves.")
@option(
    "--task",
    panel=DATA,
    metavar="NAME",
    default="text-classification",
    help="Or token-classification, question-answering, multiple-choice.",
)
@_about_data("The labels in the order of their ids; else sorted.", "128, for questions 384")
@option(
    "--model",
    "-m",
    panel=START,
    type=click.Path(),
    metavar="FOLDER|NAME",
    help="A checkpoint: a folder, or a hub name.",
)
@option(
    "--from-scratch",
    panel=START,
    type=click.Path(),
    metavar="PRESET|FILE",
    help="Fresh weights: of squeezebert-uncased, …, or a config.json.",
)
@option(
    "--tokenizer",
    panel=START,
    type=click.Path(),
    metavar="FOLDER|NAME|FILE",
    help="Another tokenizer, or a vocab.txt; else the checkpoint's.",
)
@option("--vocab-size", panel=START, metavar="N", type=int, help="With --from-scratch: learn the vocabulary from DATA.")
@option("--epochs", panel=TRAINING, metavar="N", default=3.0, help="How often to go through the data.")
@option("--batch-size", panel=TRAINING, metavar="N", default=32, help="Examples a step.")
@option(
    "--accumulation", panel=TRAINING, metavar="N", default=1, help="Parts to divide each batch into, to save memory."
)
@option("--learning-rate", panel=TRAINING, metavar="X", type=float, help="The peak; else 5e-5, or 5e-4 from scratch.")
@option("--warmup", panel=TRAINING, metavar="X", default=0.1, help="The part of all steps in which the rate rises.")
@option("--weight-decay", panel=TRAINING, metavar="X", default=0.01, help="For weights other than biases and norms.")
@option("--clip", panel=TRAINING, metavar="X", default=1.0, help="The largest norm of the gradient.")
@option(
    "--seed", panel=TRAINING, metavar="N", default=42, help="Decides fresh weights, order, dropout, what is kept back."
)
@option(
    "--precision", panel=TRAINING, metavar="auto|fp32|bf16", default="auto", help="auto is bf16 on a GPU that has it."
)
@option("--quantization-aware", panel=TRAINING, is_flag=True, help="Round a MobileBERT to 8 bits while it learns.")
@option("--eval-data", panel=EVALUATION, type=PATH, metavar="FILE", help="A file to evaluate on.")
@option(
    "--eval-fraction",
    panel=EVALUATION,
    metavar="X",
    default=0.1,
    help="Without such a file: which part of DATA to keep back.",
)
@option("--eval-every", panel=EVALUATION, metavar="N", type=int, help="Steps in between; else an epoch.")
@option("--metric", panel=EVALUATION, metavar="NAME", help="Which one decides what is best.")
@option("--patience", panel=EVALUATION, metavar="N", type=int, help="Stop after so many without a new best.")
@several_runs
@console.json_option
def finetune(
    json: bool | None, labels: str | None, preset: str | None, seeds: int | None, search: int | None, **given: Any
) -> None:
    """Fine-tune a model for a task on labelled data.

    It starts from a checkpoint, or from scratch. The best model lies in the output folder, ready to use. Ctrl-C keeps
    the state: the same command with --resume goes on where it stopped.
    """
    options = import_recipe("finetune_options").FinetuneOptions(labels=names(labels), **as_published(preset, given))
    carry_out(import_recipe("finetune").finetune, options, "FINETUNING", seeds, search, json)


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
    from pocketbert.exporters.load import exported_file, load_export, model_folder
    from pocketbert.recipes.evaluate import read_evaluation

    if submission is not None and about_data["glue"] is None:
        raise click.UsageError("--submission is for GLUE: say which task with --glue")
    if device is not None:
        require("train")
    file = exported_file(model)
    if file is not None and device is not None:
        raise click.UsageError(f"--device runs PyTorch, which does not read {file}")
    with console.busy("reading model and data"):
        exported = None if file is None else load_export(file)
        folder = model if file is None else str(model_folder(file))
        if exported is not None and exported.max_tokens is not None:
            about_data["max_length"] = min(about_data["max_length"] or exported.max_tokens, exported.max_tokens)
        evaluation = read_evaluation(folder, data, labels=names(labels), **about_data)
        predictor = exported or _predictor(model, evaluation.head, device)
    with console.progress("examples") as advance:
        metrics = evaluation(predictor, advance)
    if output is not None:
        evaluation.write(output)
    if submission is not None:
        from pocketbert.recipes.submission import submit

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
    choose_device = import_recipe("models").choose_device
    from pocketbert.models.auto import load_trained
    from pocketbert.models.predict import TorchPredictor

    return TorchPredictor(load_trained(model, head).to(choose_device(device)))


def import_recipe(recipe: str) -> Any:
    """A module of `recipes`; says so when PyTorch is missing, or while it is loading."""
    from importlib import import_module

    from pocketbert.errors import require

    require("train")
    with console.busy("loading PyTorch"):
        return import_module(f"pocketbert.recipes.{recipe}")


def names(labels: str | None) -> tuple[str, ...] | None:
    """Read names such as a, b."""
    return None if labels is None else tuple(name.strip() for name in labels.split(","))


def report(result: FinetuneResult, json: bool | None) -> None:
    """Show what came out of a run, and add to its card how fast it is here."""
    from datetime import timedelta

    from pocketbert.cli.latency import latency
    from pocketbert.recipes.report import write_card

    with console.busy("timing the model"):
        write_card(result.folder, latency(result.folder))
    if console.use_json(json):
        line = {"folder": str(result.folder), "metrics": result.metrics, "best_step": result.best_step}
        console.print_json({**line, "steps": result.steps, "seconds": round(result.seconds, 1)})
        return

    console.print_table(
        ["Metric", f"After step {result.best_step:,}"],
        [(name, f"{value:.4f}") for name, value in result.metrics.items()],
        numbers=[f"After step {result.best_step:,}"],
    )
    folder = shlex.quote(str(result.folder))
    console.print_facts(
        [
            ("steps", f"{result.steps:,} in {timedelta(seconds=round(result.seconds))}"),
            ("model", f"{result.folder}"),
            ("next", _next(result.folder).format(folder=folder)),
        ]
    )


def _next(folder: Path) -> str:
    """What to type next."""
    run = json_module.loads((folder / "run.json").read_text(encoding="utf-8"))
    commands = {
        "token-classification": 'pocketbert tag --model {folder} "a text of yours"',
        "question-answering": 'pocketbert answer "a question?" --model {folder} --file passage.txt',
        "multiple-choice": 'pocketbert choose --model {folder} "a beginning" "an end" "another"',
        "feature-extraction": "pocketbert finetune reviews.csv --model {folder} --output my-model",
    }
    pairs = (run["data"]["train"].get("columns") or [None, None])[1] is not None
    text = '"one text" --pair "another"' if pairs else '"a text of yours"'
    return commands.get(run["options"]["task"], f"pocketbert classify --model {{folder}} {text}")
