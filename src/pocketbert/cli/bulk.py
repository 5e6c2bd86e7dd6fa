"""Results in files: what the commands for texts do with --output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from typing import Any

import click

from pocketbert.bulk.options import BulkOptions
from pocketbert.cli import console
from pocketbert.cli.options import build, options_of
from pocketbert.options import flag, option_fields

bulk_options = options_of(BulkOptions)
#: For a command that has an --output of its own.
other_bulk_options = options_of(BulkOptions, except_for=["output"])


def written(
    bulk: Mapping[str, Any],
    *,
    texts: Sequence[str],
    file: str | None,
    device: str | None,
    json: bool | None,
    task: str,
    **given: Any,
) -> bool:
    """Write the results of a file to a folder, if --output asks for that; return whether it did.

    Args:
        bulk: the values of `bulk_options`.
        texts: arguments of the command, which go with no folder.
        file: the input.
        device: of PyTorch, which goes with no folder.
        json: whether to describe what was written as a line of JSON.
        task: of the pipeline.
        **given: further fields of `BulkOptions`; those that are None are left out.

    Raises:
        click.UsageError: an option is missing or cannot be meant.
    """
    if bulk["output"] is None:
        _refuse_alone(bulk, file)
        return False
    if texts or file in (None, "-"):
        raise click.UsageError("--output writes the results of a --file: a run that is interrupted reads it again")
    if device is not None:
        raise click.UsageError("--output runs the model on the engine: leave out --device")
    values = {name: value for name, value in given.items() if value is not None}
    options = build(BulkOptions, {**bulk, "file": file, "task": task, **values})
    from pocketbert.bulk.run import answer_files

    with console.progress("rows") as advance:
        result = answer_files(options, advance=advance)
    if result.cut:
        console.print_line(
            f"{result.cut:,} texts were longer than the model's limit: their ends were ignored (the first at "
            f"{result.first_cut})",
            "note",
        )
    if console.use_json(json):
        counts = {name: getattr(result, name) for name in ("rows", "shards", "skipped")}
        console.print_json({"folder": result.folder, **counts})
    else:
        skipped = f", {result.skipped:,} without text skipped" if result.skipped else ""
        console.print_facts(
            [("rows", f"{result.rows:,}{skipped}"), ("shards", f"{result.shards:,}"), ("folder", result.folder)]
        )
    return True


def _refuse_alone(bulk: Mapping[str, Any], file: str | None) -> None:
    """Raise a usage error for options of --output without it, and for files that only --output reads."""
    for field, info in option_fields(BulkOptions):
        if field.default is not MISSING and bulk.get(field.name) != field.default:
            raise click.UsageError(f"{flag(field.name, info)} is for results in files: it needs --output FOLDER")
    if file is not None and any(sign in file for sign in ("*", "?", "[", "://")):
        from pocketbert.bulk.storage import is_pattern

        if is_pattern(file):
            raise click.UsageError(f"--file {file} stands for files whose results need --output FOLDER")
