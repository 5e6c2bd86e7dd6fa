"""The command line: one file per group of commands. Commands and their dependencies are imported when they are run."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

import pocketbert
from pocketbert.cli import commands, console
from pocketbert.errors import PocketBertError, TrainingInterrupted

DEBUG = "POCKETBERT_DEBUG"
NOTES = console.LogHandler()

# Panel → command → its module, and the first line of its help: `--help` imports none of them.
COMMANDS = {
    "Inference": {
        "classify": ("pocketbert.cli.predict", "Classify texts or text pairs, or predict a number for each."),
        "tag": ("pocketbert.cli.predict", "Find named entities, such as people and places, in texts of any length."),
        "answer": ("pocketbert.cli.predict", "Find the answers to questions in a passage."),
        "fill-mask": ("pocketbert.cli.predict", "Predict the masked words of texts."),
        "choose": ("pocketbert.cli.predict", "Choose the best continuation of a text, or answer to a question."),
        "embed": ("pocketbert.cli.sentences", "Compute the embeddings of texts."),
        "rank": ("pocketbert.cli.sentences", "Rank passages by how well they answer a query."),
    },
    "Training": {
        "prepare": ("pocketbert.cli.prepare", "Prepare a pretraining corpus from raw text."),
        "pretrain": (
            "pocketbert.cli.pretrain",
            "Pretrain a model with a published recipe, or continue pretraining a checkpoint.",
        ),
        "transfer": ("pocketbert.cli.pretrain", "Train a MobileBERT by knowledge transfer from an IB-BERT."),
        "finetune": ("pocketbert.cli.finetune", "Fine-tune a model for a task on labelled data."),
        "distill": ("pocketbert.cli.finetune", "Distil one or more teachers into a smaller model."),
        "check": (
            "pocketbert.cli.check",
            "Check labelled texts for probable label errors, duplicates, leakage and outliers.",
        ),
        "evaluate": ("pocketbert.cli.evaluate", "Evaluate a model on labelled data of its task."),
        "compare": (
            "pocketbert.cli.compare",
            "Compare two models on the same examples, and test whether one is better.",
        ),
        "quantize": ("pocketbert.cli.quantize", "Write a model with int8 weights: smaller and faster."),
        "export": ("pocketbert.cli.export", "Export a model to ONNX, LiteRT, SavedModel or the web, and verify it."),
    },
    "Serving": {
        "serve": ("pocketbert.cli.serve", "Serve models over HTTP, with a web page to try them."),
    },
    "Inspection": {
        "info": ("pocketbert.cli.info", "Show a model's architecture, labels, training run and files."),
        "bench": ("pocketbert.cli.bench", "Benchmark models on this machine, in comparison with other engines."),
    },
}


class _Shell(commands.Commands):
    """The commands; every error of a command ends here, as one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
            raise click.exceptions.Exit(128 + 13) from None  # SIGPIPE, which Windows does not have
        except KeyboardInterrupt:
            console.print_line("interrupted")
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
        except TrainingInterrupted as stop:  # not an error: the state is saved
            console.print_line(str(stop))
            raise click.exceptions.Exit(128 + stop.signal) from None
        except (PocketBertError, OSError) as error:
            if os.environ.get(DEBUG, "0") != "0":
                raise
            console.print_line(_text(error), "error")
            raise click.exceptions.Exit(1) from None


def _text(error: Exception) -> str:
    if isinstance(error, PocketBertError) or not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


@click.group(
    "pocketbert",
    cls=_Shell,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=[
        'pocketbert classify "a gorgeous, witty, seductive movie"',
        "pocketbert finetune reviews.csv --model my-squeezebert --output my-model",
        "pocketbert classify --model my-model --file new.txt > answers.jsonl",
    ],
)
@click.version_option(pocketbert.__version__, message="%(prog)s %(version)s", help="Print the version and exit.")
def app() -> None:
    """Small BERTs, fast on ordinary machines: run them, or train your own.

    Results are tables on a terminal and JSON lines in a pipe or a file.
    """


def _open_closed_streams() -> None:
    """Give standard streams that the caller closed, as some daemons do, a device that holds nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 # until the process ends


def main() -> None:
    """Run the command line and exit: 0, 1 after an error, 2 for wrong usage, 128 + n after signal n."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that partly written files are removed
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal may lack some characters
    logging.getLogger("pocketbert").addHandler(NOTES)  # once, however often this is called
    gc.set_threshold(50_000)  # imports create many objects and no garbage: collections would take a tenth of the time
    try:
        app(prog_name="pocketbert")
    finally:
        gc.freeze()  # nor is a collection worth its time when the process ends
