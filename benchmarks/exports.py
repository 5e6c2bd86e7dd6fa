"""Our ONNX files beside stock exports of the same weights, in ONNX Runtime.

    python benchmarks/exports.py FOLDER                # a table; exports_….csv and .png in benchmarks/results
    python benchmarks/exports.py FOLDER --seconds 3    # a quick look

SqueezeBERT and MobileBERT in their published sizes with random weights, 1×32, 1×128 and 8×128, 2 threads. FOLDER keeps
the files for later runs. Stock files are made by `torch.onnx.export` from transformers' models, in int8 by ONNX
Runtime's own dynamic quantization; there, SqueezeBERT's convolutions stay in fp32, because ONNX Runtime cannot load
them in int8. MobileBERT in int8 is measured in both forms of an export: with its residual stream rounded, as in the
stock file, and with that stream in fp32, which weights with outliers need.

A file runs several times in a row before the other has its turn, and the first run of each turn is discarded: so each
has its weights in the cache, as it would alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from common import results_path, write_results
from matplotlib.figure import Figure

from pocketbert.bench.measure import random_batch
from pocketbert.bench.peers import OnnxRuntime
from pocketbert.bench.subjects import Subject, published
from pocketbert.exporters.onnx.graph import onnx_graph
from pocketbert.exporters.onnx.passes import fold_residual_scales, quantize_for_onnx
from pocketbert.exporters.onnx.predictor import OnnxPredictor
from pocketbert.runtime.quantize import quantize
from pocketbert.runtime.smoothing import smooth

FP32, INT8, STREAM = "fp32", "int8", "int8, stream in fp32"
TARGETS = {
    ("SqueezeBERT", FP32): 2.0,
    ("SqueezeBERT", INT8): 6.0,
    ("MobileBERT", FP32): 1.3,
    ("MobileBERT", INT8): 1.3,
    ("MobileBERT", STREAM): 1.3,
}
SHAPES = ((1, 32), (1, 128), (8, 128))
IN_A_ROW = 4
Times = dict[str, list[float]]


def stock_file(subject: Subject, precision: str, folder: Path) -> Path:
    peer = OnnxRuntime("fp32" if precision == FP32 else "int8")
    peer.prepare(subject, folder)
    return peer.file(subject, folder)


def our_file(subject: Subject, precision: str, folder: Path) -> Path:
    path = folder / f"{subject.name}-{subject.digest}-{precision.replace(', ', '-').replace(' ', '-')}.onnx"
    if precision == FP32:
        plan = fold_residual_scales(subject.plan)
    elif precision == INT8:
        plan = quantize_for_onnx(subject.plan, random_batch(subject, (2, 64)))
    else:
        plan = quantize(smooth(fold_residual_scales(subject.plan)))
    path.write_bytes(onnx_graph(plan).SerializeToString())
    return path


def in_rows(calls: Mapping[str, Callable[[], object]], seconds: float) -> Times:
    times: Times = {name: [] for name in calls}
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times["ours"]) < 3 * (IN_A_ROW - 1):
        for name, call in calls.items():
            time.sleep(0.02)  # until the other's threads have stopped spinning
            for i in range(IN_A_ROW):
                start = time.perf_counter()
                call()
                if i:
                    times[name].append(time.perf_counter() - start)
    return times


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    names = [
        f"{row['model']} {row['precision']}, {row['batch']}×{row['length']}: "
        f"{row['stock_ms']:.1f} → {row['ours_ms']:.1f} ms"
        for row in rows
    ]
    figure = Figure(figsize=(9, 0.3 * len(rows) + 1), dpi=150, layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    bars = axes.barh(places, [row["times"] for row in rows], color="#0f766e", height=0.7)
    axes.bar_label(bars, [f"{row['times']:.2f}" for row in rows], label_type="center", color="white")
    axes.scatter([row["target"] for row in rows], places, marker="|", s=160, color="#b45309", label="target", zorder=3)
    axes.axvline(1, color="#6b7280", linewidth=0.8)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(TARGETS.values()))
    axes.set_xlabel("times as fast as the stock export, in ONNX Runtime, 2 threads")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the files")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds per model, precision and shape")
    parser.add_argument("--models", nargs="+", default=["SqueezeBERT", "MobileBERT"])
    parser.add_argument("--only-files", action="store_true", help="make the files without measuring them")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for (name, precision), target in TARGETS.items():
        if name not in given.models:
            continue
        subject = published(name)
        paths = {
            "stock": stock_file(subject, precision, given.folder),
            "ours": our_file(subject, precision, given.folder),
        }
        if given.only_files:
            continue
        loaded = {which: OnnxPredictor(path) for which, path in paths.items()}
        for batch, length in SHAPES:
            inputs = random_batch(subject, (batch, length))
            calls = {which: partial(one.run, inputs) for which, one in loaded.items()}
            times = in_rows(calls, given.seconds)
            ms = {which: 1e3 * statistics.median(taken) for which, taken in times.items()}
            rows.append(
                {"model": name, "precision": precision, "batch": batch, "length": length,
                 "stock_ms": round(ms["stock"], 2), "ours_ms": round(ms["ours"], 2),
                 "times": round(ms["stock"] / ms["ours"], 2), "target": target, "runs": len(times["ours"])}
            )  # fmt: skip
            print(f"{name} {precision} {batch}×{length}: {ms['stock']:.2f} → {ms['ours']:.2f} ms", flush=True)
    if rows:
        draw(rows, results_path("exports", ".png"))
        write_results("exports", rows)


if __name__ == "__main__":
    main()
