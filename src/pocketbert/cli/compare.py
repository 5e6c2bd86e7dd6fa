"""Comparison of two models: compare."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pocketbert.cli import console
from pocketbert.cli.commands import command
from pocketbert.cli.options import build, options_of
from pocketbert.reports.options import CompareOptions


@command(
    examples=[
        "pocketbert compare my-model my-smaller-model",
        "pocketbert compare old/report.html new/report.html -o compared.html",
    ]
)
@options_of(CompareOptions)
@console.json_option
def compare(json: bool | None, **values: Any) -> None:
    """Compare two models on the same examples, and test whether one is better.

    The answers of both are in the folders that finetune, distill and evaluate --output write. Differences have
    bootstrap intervals; McNemar's test counts the examples that only one of them has right.
    """
    options = build(CompareOptions, values)
    from pocketbert.reports.compare import compare, limits, verdict

    result, names = compare(options), (str(options.first), str(options.second))
    if console.use_json(json):
        for name, one in result.sets.items():
            console.print_json({"set": name, **asdict(one), "better": one.better})
        return
    for one in result.sets.values():
        rows = [
            (metric, f"{each.first:.4f}", f"{each.second:.4f}", f"{each.second - each.first:+.4f}", limits(each))
            for metric, each in one.metrics.items()
        ]
        header = ["Metric", "A", "B", "Difference", "95 % interval"]
        console.print_table(header, rows, numbers=header[1:])
        console.print_line(verdict(names, one), "note")
