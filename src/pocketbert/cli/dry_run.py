"""What finetune and distill understood of their data, as tables or JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from pocketbert.cli import console
from pocketbert.cli.commands import click_option
from pocketbert.cli.options import build
from pocketbert.cli.runs import apply_preset, import_recipe
from pocketbert.recipes.finetune_options import FinetuneOptions

_LABELS = 30  # shown in a table
_CELL = 120  # characters of a text

dry_run_option = click_option(
    "--dry-run",
    panel="Run",
    is_flag=True,
    help="Show how the data is read: columns, labels, lengths, five rows, truncation. Nothing is trained or written.",
)


def print_dry_run(
    options_class: Callable[..., FinetuneOptions], values: Mapping[str, Any], json: bool | None, preset: str | None
) -> None:
    """Read the data of a training command, and print what it holds."""
    options = build(options_class, values if preset is None else apply_preset(preset, values))
    understood = import_recipe("dry_run").dry_run(options)
    if console.use_json(json):
        console.print_json(understood)
        return
    facts = [("data", understood["description"])]
    if "tokens" in understood:
        facts += _facts(understood)
        _print_labels(understood["files"])
        rows = [tuple(_cell(value) for value in row.values() if value is not None) for row in understood["rows"]]
        names = [name for name, value in understood["rows"][0].items() if value is not None]
        console.print_table([name.replace("_", " ").capitalize() for name in names], rows)
    console.print_facts(facts)


def _facts(understood: Mapping[str, Any]) -> list[tuple[str, str]]:
    tokens = understood["tokens"]
    few = f" (of {tokens['examples']:,} examples)" * (tokens["examples"] < understood["files"]["train"]["examples"])
    lengths = (
        f"{tokens['shortest']:,} to {tokens['longest']:,} tokens, median {tokens['median']:,}, "
        f"95 % up to {tokens['percentile_95']:,}{few}"
    )
    windows = f", {tokens['in_windows']:,} are read in windows" * bool(tokens["in_windows"])
    facts = [
        ("lengths", lengths),
        ("read", f"{tokens['read']:,} tokens: {tokens['cut']:,} examples are truncated{windows}"),
    ]
    return [*facts, *(("bad rows", line) for line in understood["bad"])]


def _print_labels(files: Mapping[str, Any]) -> None:
    counts = {name: facts.get("labels") for name, facts in files.items()}
    if not counts["train"]:
        return
    labels = sorted({label for count in counts.values() for label in count or ()})
    rows = [(label, *(f"{(count or {}).get(label, 0):,}" for count in counts.values())) for label in labels[:_LABELS]]
    if len(labels) > _LABELS:
        rows.append((f"… {len(labels) - _LABELS:,} more", *("" for _ in counts)))
    console.print_table(["Label", *counts], rows, numbers=list(counts))


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return console.plain(text, _CELL)


def refuse_several_runs(seeds: int | None, search: int | None) -> None:
    """Raise `click.UsageError` for options of several runs beside --dry-run."""
    if seeds is not None or search is not None:
        raise click.UsageError("--dry-run shows data, which is the same for all seeds and trials: leave out the others")
