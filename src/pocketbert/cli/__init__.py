"""The shell: one file a command group. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import pocketbert
from pocketbert.cli import finetune, info, predict, quantize, show
from pocketbert.errors import PocketBertError, TrainingInterrupted

DEBUG = "POCKETBERT_DEBUG"


class _Commands(TyperGroup):
    """The commands; what goes wrong in one ends here, in one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
            raise typer.Exit(128 + 13) from None  # SIGPIPE, which Windows does not have
        except KeyboardInterrupt:
            show.say("interrupted")
            raise typer.Exit(128 + signal.SIGINT) from None
        except TrainingInterrupted as stop:  # no error, and nothing lost
            show.say(str(stop))
            raise typer.Exit(128 + stop.signal) from None
        except (PocketBertError, OSError) as error:
            if os.environ.get(DEBUG, "0") != "0":
                raise
            show.say(_text(error), "error")
            raise typer.Exit(1) from None


def _text(error: Exception) -> str:
    if isinstance(error, PocketBertError) or not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


app = typer.Typer(
    name="pocketbert",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",  # older versions of typer would show the marks
    pretty_exceptions_enable=False,  # whatever reaches the user with a traceback is a bug, and shows all of it
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=show.examples(
        'pocketbert classify "a gorgeous, witty, seductive movie"',
        "pocketbert finetune reviews.csv --model my-squeezebert --output my-model",
        "pocketbert classify --model my-model --file new.txt > answers.jsonl",
    ),
)
for group in (predict, finetune, quantize, info):
    app.add_typer(group.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pocketbert {pocketbert.__version__}")  # noqa: T201 - this is the answer
        raise typer.Exit


@app.callback()
def _pocketbert(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Small BERTs, fast on ordinary machines: ask one, or make your own.

    Answers are tables on a terminal and JSON lines in a pipe or a file.
    """


def main() -> None:
    """Run the command line and exit: 0, 1 after an error, 2 for wrong usage, 128 + n after signal n."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is half-written is removed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal may lack the letters of a text
    logging.getLogger("pocketbert").addHandler(show.Notes())
    app(prog_name="pocketbert")
