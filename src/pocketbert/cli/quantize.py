"""Quantization: quantize."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from pocketbert.cli import console
from pocketbert.cli.commands import command
from pocketbert.cli.options import build, options_of
from pocketbert.runtime.quantize_options import QuantizeOptions

if TYPE_CHECKING:
    from pocketbert.runtime.quantized_folders import QuantizeResult


@command(
    examples=[
        "pocketbert quantize my-model my-model-int8",
        "pocketbert quantize my-model my-model-int8 --eval test.csv",
        "pocketbert quantize sst2 sst2-int8 --eval glue --glue sst-2",
    ]
)
@options_of(QuantizeOptions)
@console.json_option
def quantize(json: bool | None, **values: Any) -> None:
    """Write a model with int8 weights: smaller and faster.

    No data is needed, except to evaluate the result with --eval.
    """
    options = build(QuantizeOptions, values)
    from pocketbert.runtime.quantized_folders import quantize

    with console.progress("examples, in fp32 and in int8") as advance:
        result = quantize(options, advance=advance)
    if console.use_json(json):
        console.print_json(
            {"folder": str(result.folder), "int8_weights": result.int8, "fp32_weights": result.fp32,
             "fp32_steps": result.unquantized, "metrics": result.metrics}
        )  # fmt: skip
    else:
        _print(result)


def _print(result: QuantizeResult) -> None:
    if result.metrics:
        console.print_metrics(result.metrics)
    console.print_facts(
        [
            ("int8", f"{result.int8:,} weights"),
            ("fp32", f"{result.fp32:,} numbers: positions, biases, norms and scales"),
            *(("also fp32", text) for text in _unquantized(result)),
            ("model", f"{result.folder}"),
        ]
    )


def _unquantized(result: QuantizeResult) -> list[str]:
    """The weights that stay in fp32 and why, with one line for the same weight of all layers."""
    counts = Counter((re.sub(r"\.\d+\.", ".*.", name), reason) for name, reason in result.unquantized.items())
    return [f"{name}{f' ({count})' if count > 1 else ''}: {reason}" for (name, reason), count in counts.items()]
