"""Options and arguments that the commands for texts share."""

from __future__ import annotations

from typing import Any

import click

from pocketbert.cli.commands import Declaration, click_argument, click_option

text_arguments = click_argument("text", nargs=-1, help="Texts; - reads lines from standard input.")
file_option = click_option(
    "--file", "-f", type=click.Path(), metavar="FILE",
    help="Text file with one text per line, or CSV, TSV, JSON-lines or Parquet file with a column of texts.",
)  # fmt: skip
text_column_option = click_option(
    "--text-column", metavar="NAME", default_text="detected", help="Column of the text in a table."
)
device_option = click_option(
    "--device",
    metavar="NAME",
    default_text="the engine, without PyTorch",
    help="Device for inference with PyTorch: cuda, cuda:1, …",
)

windows_option = click_option(
    "--windows", is_flag=True,
    help="Read long texts in overlapping windows and average the results, instead of truncating the texts.",
)  # fmt: skip


def model_option(bundled: str | None = None) -> Declaration:
    """The model, which must be named where no bundled one is the default."""
    default: dict[str, Any] = {"required": True} if bundled is None else {"default_text": f"{bundled}, bundled"}
    return click_option(
        "--model", "-m", type=click.Path(), metavar="FOLDER|NAME", help="Model folder or hub name.", **default
    )


def top_k_option(default: int | None, help: str, default_text: str | None = None) -> Declaration:
    """The number of results."""
    return click_option(
        "--top-k", "-k", metavar="N", type=click.IntRange(min=1), default=default, default_text=default_text, help=help
    )
