"""The shell: one file a command group. A command is imported when it is called, and what it needs when it runs."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from typing import Any

import click

import pocketbert
from pocketbert.cli import commands, show
from pocketbert.errors import PocketBertError, TrainingInterrupted

DEBUG = "POCKETBERT_DEBUG"

# Panel → command → its module, and the first line of its help: `--help` imports none of them.
COMMANDS = {
    "Ask": {
        "classify": ("pocketbert.cli.predict", "Label texts, or pairs of texts, or predict a number for each."),
        "tag": ("pocketbert.cli.predict", "Find the names of people, places and the like in texts."),
        "answer": ("pocketbert.cli.predict", "Find the answers to questions in a passage."),
        "fill-mask": ("pocketbert.cli.predict", "Fill the gaps in texts."),
        "choose": ("pocketbert.cli.predict", "Choose how a text goes on, or which answer fits a question."),
        "embed": ("pocketbert.cli.predict", "Turn texts into vectors."),
    },
    "Learn": {
        "prepare": ("pocketbert.cli.prepare", "Turn raw text into a corpus for pretraining."),
        "pretrain": ("pocketbert.cli.pretrain", "Train a model from nothing on raw text, by a published recipe."),
        "transfer": ("pocketbert.cli.pretrain", "Train a thin MobileBERT from an IB-BERT, layer by layer."),
        "finetune": ("pocketbert.cli.finetune", "Train a model on labelled data: to classify, tag, answer or choose."),
        "distill": ("pocketbert.cli.distill", "Train a small model to say what larger ones say."),
        "evaluate": ("pocketbert.cli.finetune", "Measure a model on labelled data of its task."),
        "quantize": ("pocketbert.cli.quantize", "Write a model with int8 weights: smaller, and faster."),
        "export": ("pocketbert.cli.export", "Write a model for other engines, and prove each file."),
    },
    "Serve": {
        "serve": ("pocketbert.cli.serve", "Answer over HTTP, with a page to try it."),
    },
    "Look": {
        "info": ("pocketbert.cli.info", "Show what a model is, where it comes from, and what it runs on."),
        "bench": ("pocketbert.cli.bench", "Measure models here and in every other engine that is installed."),
    },
}


class _Shell(commands.Commands):
    """The commands; what goes wrong in one ends here, in one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
            raise click.exceptions.Exit(128 + 13) from None  # SIGPIPE, which Windows does not have
        except KeyboardInterrupt:
            show.say("interrupted")
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
        except TrainingInterrupted as stop:  # no error, and nothing lost
            show.say(str(stop))
            raise click.exceptions.Exit(128 + stop.signal) from None
        except (PocketBertError, OSError) as error:
            if os.environ.get(DEBUG, "0") != "0":
                raise
            show.say(_text(error), "error")
            raise click.exceptions.Exit(1) from None


def _text(error: Exception) -> str:
    if isinstance(error, PocketBertError) or not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


@click.group(
    "pocketbert",
    cls=_Shell,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    examples=[
        'pocketbert classify "a gorgeous, witty, seductive movie"',
        "pocketbert finetune reviews.csv --model my-squeezebert --output my-model",
        "pocketbert classify --model my-model --file new.txt > answers.jsonl",
    ],
)
@click.version_option(pocketbert.__version__, message="%(prog)s %(version)s", help="Print the version and exit.")
def app() -> None:
    """Small BERTs, fast on ordinary machines: ask one, or make your own.

    Answers are tables on a terminal and JSON lines in a pipe or a file.
    """


def main() -> None:
    """Run the command line and exit: 0, 1 after an error, 2 for wrong usage, 128 + n after signal n."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is half-written is removed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal may lack the letters of a text
    logging.getLogger("pocketbert").addHandler(show.Notes())
    gc.set_threshold(50_000)  # importing makes many objects and no garbage: looking for some takes a tenth of the time
    try:
        app(prog_name="pocketbert")
    finally:
        gc.freeze()  # nor is it worth looking when the process ends
