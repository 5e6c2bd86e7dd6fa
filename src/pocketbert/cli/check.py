"""Checks of labelled data: check."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pocketbert.checks.options import CheckOptions
from pocketbert.cli import console
from pocketbert.cli.commands import command
from pocketbert.cli.options import build, options_of
from pocketbert.cli.predictions import spare_numpy_threads

_SHOWN = 5  # findings of a kind in the table


@command(
    examples=[
        "pocketbert check tickets.csv",
        "pocketbert check train.csv --eval-data test.csv --output issues.csv",
        "pocketbert check posts.jsonl --json | jq -r .reason",
    ]
)
@options_of(CheckOptions)
@console.json_option
def check(json: bool | None, **values: Any) -> None:
    """Check labelled texts for probable label errors, duplicates, leakage and outliers. No file is changed."""
    options = build(CheckOptions, values)
    spare_numpy_threads()
    from pocketbert.checks.check import KINDS, check

    with console.progress("texts") as advance:
        result = check(options, advance=advance)
    for note in result.notes:
        console.print_line(note, "note")
    if console.use_json(json):
        for finding in result.findings:
            console.print_json(asdict(finding))
        return
    counts = result.counts()
    console.print_table(
        ["Found", "Rows"], [(KINDS[kind], f"{count:,}") for kind, count in counts.items()] or [("nothing", "")],
        numbers=["Rows"],
    )  # fmt: skip
    for kind in counts:
        some = [one for one in result.findings if one.kind == kind][:_SHOWN]
        rows = [(str(one.line or ""), one.label, one.reason, one.text) for one in some]
        console.print_table(["Line", "Label", KINDS[kind].capitalize(), "Text"], rows, numbers=["Line"])
    classes = ", ".join(f"{name} {count:,}" for name, count in list(result.classes.items())[:20])
    facts = [("rows", f"{result.rows:,}"), ("classes", classes)]
    if options.output is not None:
        facts.append(("all", str(options.output)))
    console.print_facts([(name, value) for name, value in facts if value])
