"""Where a pass spends its time: shares of products, attention, rounding and norms, in int8, on one thread.

    python benchmarks/time_shares.py    # 1 × 128 and 8 × 128, the kernels worth using here
    python benchmarks/time_shares.py --picture docs/time-shares.png

Every kernel measures itself; products include their bias, activation and residual. What remains of a pass is lookups
in fp32, packing and the loops around the kernels. The round of several that took least. Beside it what the products
would take at the peak of multiply-adds in int8.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, write_results
from processors import NAMES

from pocketbert.bench.roofline import operations, peaks
from pocketbert.bench.subjects import PUBLISHED, published
from pocketbert.checkpoints.files import atomic_write
from pocketbert.runtime.core import take_kernel_times, timed_program
from pocketbert.runtime.engine import NativeRunner, usable_threads
from pocketbert.runtime.plan import Plan, Rows

ROUNDS = 7
SLOW = 0.2  # of the highest peak, below which kernels are left out: nobody uses them on this processor
#: Part of a pass → the functions of the kernels that it consists of, and its colour in the picture.
PARTS = {
    "products": (("linear_s8",), "#0f766e"),
    "attention": (("bf16_attention", "linear_f32", "softmax"), "#b45309"),
    "rounding": (("quantize", "outliers"), "#e0a458"),
    "norms": (("layer_norm",), "#6b7280"),
}
REST = "the rest", "#c3c7ce"


def shares(plan: Plan, kernels: str, batch: int, length: int) -> dict[str, float]:
    """Seconds of each part of a pass over `batch` texts of `length` tokens, with the rest; in all as `pass`."""
    run = NativeRunner(replace(plan), timed_program(kernels))
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 20_000, batch * length)
    starts = np.arange(0, batch * length + 1, length)
    take_kernel_times()
    rounds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run(ids, np.zeros_like(ids), starts)
        total = time.perf_counter() - begin
        times = dict(take_kernel_times())
        parts = {part: sum(times[name] for name in names) for part, (names, _) in PARTS.items()}
        rounds.append({**parts, REST[0]: total - sum(parts.values()), "pass": total})
    return min(rounds, key=lambda one: one["pass"])


def products(plan: Plan, rows: int) -> int:
    """Multiplications and additions of the linear steps alone, for so many rows."""
    linear = replace(plan, stages=tuple(stage for stage in plan.stages if isinstance(stage, Rows)))
    return operations(linear, [rows])


def measure(shapes: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """The rows of the table: kernels × models × shapes."""
    limits = {name: of["int8"] for name, of in peaks(all_kernels=True).items()}
    for kernels, limit in limits.items():
        if limit < SLOW * max(limits.values()):
            continue
        for title in PUBLISHED:
            plan = published(title).int8_plan
            for batch, length in shapes:
                least = products(plan, batch * length) * usable_threads() / limit
                seconds = shares(plan, kernels, batch, length)
                whole = seconds.pop("pass")
                yield {
                    "kernels": kernels, "model": title, "batch": batch, "length": length,
                    "milliseconds": round(1e3 * whole, 2),
                    **{part: round(each / whole, 3) for part, each in seconds.items()},
                    "products at the limit": round(least / whole, 3),
                }  # fmt: skip


def draw(tables: dict[str, list[dict[str, str]]], path: Path) -> None:
    """Draw one panel per processor and kernels: a bar per model, at 1 × 128."""
    from matplotlib.figure import Figure

    panels = [
        (f"{NAMES.get(machine, machine)}, {kernels}", [row for row in rows if row["kernels"] == kernels])
        for machine, rows in tables.items()
        for kernels in dict.fromkeys(row["kernels"] for row in rows)
    ]
    figure = Figure(figsize=(9, 0.8 + 1.1 * len(panels)), dpi=160, facecolor="white", layout="constrained")
    colours = {part: colour for part, (_, colour) in PARTS.items()} | dict([REST])
    for axes, (title, rows) in zip(np.atleast_1d(figure.subplots(len(panels), 1, sharex=True)), panels, strict=True):
        shown = [row for row in rows if (row["batch"], row["length"]) == ("1", "128")]
        names = [f"{row['model']}, {float(row['milliseconds']):.1f} ms" for row in shown]
        left = np.zeros(len(shown))
        for part, colour in colours.items():
            widths = np.array([100 * float(row[part]) for row in shown])
            bars = axes.barh(names, widths, left=left, color=colour, label=part, height=0.72)
            axes.bar_label(
                bars, [f"{w:.0f}" if w >= 3 else "" for w in widths], label_type="center", fontsize=7.5, color="white"
            )
            left += widths
        limits = [float(row["products at the limit"]) for row in shown]
        axes.vlines(
            100 * np.array(limits),
            np.arange(len(shown)) - 0.36,
            np.arange(len(shown)) + 0.36,
            color="white",
            lw=1.5,
            ls=":",
        )
        axes.set_title(title, fontsize=9, loc="left")
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    what = "% of the time of a pass over 1 × 128 tokens in int8, one thread; dotted: products at the peak"
    axes.set_xlabel(what, fontsize=8)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.lstrip("."))


def kept() -> dict[str, list[dict[str, str]]]:
    """The tables in results by processor, of each processor the latest."""
    tables = {}
    for path in sorted(RESULTS.glob("time-shares_*.csv"), key=lambda path: path.stem.rsplit("_", 1)[1]):
        with path.open(newline="", encoding="utf-8") as file:
            tables[path.stem.split("_")[1]] = list(csv.DictReader(file))
    return tables


def main() -> None:
    """Measure, write results, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, help="where to draw the tables of all processors in results")
    parser.add_argument("--draw-only", action="store_true", help="draw what was measured before")
    options = parser.parse_args()
    if not options.draw_only:
        write_results("time-shares", list(measure([(1, 128), (8, 128)])))
    if options.picture:
        draw(kept(), options.picture)


if __name__ == "__main__":
    main()
