"""The picture of a report: how long a pass takes beside the best of the others and the roofline; throughput."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.bench.report import Report
from pocketbert.checkpoints.files import atomic_write

if TYPE_CHECKING:
    from pocketbert.bench.peers import Shape

OURS, PEERS, LIMIT, INK, FAINT = "#0f766e", "#c3c7ce", "#b45309", "#1f2937", "#6b7280"
PRECISIONS = (("int8", ("fp32", "bf16", "int8")), ("fp32", ("fp32",)))  # ours, and the peers' that it is compared with


def draw(report: Report, path: Path) -> None:
    """Write the picture as PNG (or whatever `path` ends in): latency at batch 1 to the left, throughput to the right.

    The length is 128 where that was measured, else the longest.
    """
    from matplotlib.figure import Figure

    lengths = sorted({row.length for row in report.shapes})
    length = 128 if 128 in lengths else lengths[-1]
    batches = sorted({row.batch for row in report.shapes if row.length == length})
    models = list(dict.fromkeys(row.model for row in report.shapes if row.length == length))
    figure = Figure(figsize=(11, 4.9), dpi=160, facecolor="white")
    figure.set_layout_engine("constrained", rect=(0, 0.055, 1, 0.945))
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _latency(left, report, models, (batches[0], length))
    _throughput(right, report, models, length, batches)
    figure.legend(
        *left.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.005, -0.01), ncols=3, frameon=False,
        fontsize=9, labelcolor=INK,
    )  # fmt: skip
    name = f"{report.machine}, {report.threads} threads, {report.date[:10]}; medians, engines in turns"
    figure.text(0.995, 0.005, name, ha="right", va="bottom", fontsize=7.5, color=FAINT)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.lstrip(".") or "png")


def _latency(axes: Any, report: Report, models: list[str], shape: Shape) -> None:
    """Of each model a pair of bars for int8 and one for fp32, with a stroke where the limit lies."""
    position, ticks, longest = 0.0, [], 0.0
    bars: list[tuple[float, float, str, str, bool]] = []
    for model in models:
        first = position
        for precision, beside in PRECISIONS:
            for is_ours, allowed in ((False, beside), (True, (precision,))):
                row = report.best(model, shape, ours=is_ours, precisions=allowed)
                if row is None:
                    continue
                bars.append((position, row.median_ms, row.engine, row.precision, is_ours))
                longest = max(longest, row.median_ms)
                limit = report.limit_ms(model, shape, precision)
                if is_ours and limit is not None:
                    axes.plot([limit, limit], [position - 0.46, position + 0.46], color=LIMIT, lw=2.2, zorder=4)
                position += 1
            position += 0.25
        ticks.append((model, (first + position - 1.25) / 2))
        position += 0.9
    for at, ms, engine, _, is_ours in bars:
        axes.barh(at, ms, height=0.86, color=OURS if is_ours else PEERS, zorder=2)
        axes.text(
            ms + longest * 0.012, at, f"{ms:.1f} ms  {engine}", va="center", fontsize=8,
            color=OURS if is_ours else INK, fontweight="bold" if is_ours else "normal", zorder=5,
        )  # fmt: skip
    axes.set_yticks([at for _, at in ticks], [name for name, _ in ticks], fontsize=10.5, fontweight="bold", color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.5)
    axes.set_xlabel("milliseconds: shorter is better", color=FAINT, fontsize=8.5)
    axes.plot([], [], color=LIMIT, lw=2.2, label="roofline")
    axes.barh([0], [0], color=OURS, label="PocketBERT")
    axes.barh([0], [0], color=PEERS, label="fastest other engine")
    _plain(axes, f"One pass over {shape[0]} × {shape[1]} tokens", grid="x")


def _throughput(axes: Any, report: Report, models: list[str], length: int, batches: list[int]) -> None:
    """Of each model two lines over the batch size, each with its name at the end."""
    shades = ("-", "--", ":")
    highest = 0.0
    for model, dash in zip(models, shades * len(models), strict=False):  # the styles repeat
        for is_ours in (False, True):
            rows = [report.best(model, (batch, length), ours=is_ours) for batch in batches]
            points = [(row.batch, 1e3 * row.batch / row.median_ms) for row in rows if row is not None]
            if not points:
                continue
            highest = max(highest, *(y for _, y in points))
            colour = OURS if is_ours else "#8b919c"
            axes.plot(
                *zip(*points, strict=True), dash, color=colour, marker="o", ms=4, lw=2,
                label=f"{model}, {'PocketBERT' if is_ours else 'best other'}",
            )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set_ylim(0, highest * 1.4)
    axes.set_xlabel("texts in a batch", color=FAINT, fontsize=8.5)
    axes.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=INK, ncols=2, handlelength=2.6)
    _plain(axes, f"Texts per second, {length} tokens each", grid="y")


def _plain(axes: Any, title: str, grid: str) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=10)
    axes.grid(axis=grid, color="#e5e7eb", lw=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=FAINT, labelsize=8.5)
    for label in axes.get_yticklabels() if grid == "x" else ():
        label.set(color=INK, fontsize=10.5)
    for side in ("top", "right", "left" if grid == "x" else "top"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color("#d1d5db")
