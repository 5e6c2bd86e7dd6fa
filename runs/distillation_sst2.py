"""Table and plot of what `runs/distillation_sst2.sh` and `runs/bundled_sst2.sh` found.

    python runs/distillation_sst2.py LADDER BUNDLED

LADDER is the output folder of the first, as far as it has come, BUNDLED that of the second.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib.figure

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import results_path, write_results

LADDER = {
    "labels": "MiniLM's layers, labels alone",
    "soft": "… and the teacher's classes",
    "hidden": "… and its hidden states",
    "inherited": "… and begins as the fine-tuned teacher",
    "everything": "everything",
}


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a run that is finished."""
    file = folder / "run.json"
    run: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return run if run.get("finished") else None


ladder, bundled = map(Path, sys.argv[1:])
runs = {
    label: {int(one.name[5:]): run for one in sorted((ladder / row).glob("seed-*")) if (run := read(one))}
    for row, label in LADDER.items()
}
for folder, label in (
    ("student", "bundled: everything, four times the steps"),
    ("teacher", "the teacher, 6 layers"),
):
    if run := read(bundled / folder):
        runs[label] = {run["options"]["seed"]: run}

rows = []
for label, seeds in runs.items():
    best = [run["best"]["accuracy"] for run in seeds.values()]
    last = [run["history"][-1]["accuracy"] for run in seeds.values()]
    if best:
        rows.append(
            {
                "what": label,
                "steps": next(iter(seeds.values()))["steps"],
                "seeds": len(seeds),
                "last": round(statistics.mean(last), 4),
                "deviation": round(statistics.stdev(last), 4) if len(last) > 1 else "",
                "best": round(max(best), 4),
                "last of each": " ".join(f"{value:.4f}" for value in last),
            }
        )
write_results("distillation-sst2", rows)

figure = matplotlib.figure.Figure(figsize=(8, 0.55 * len(rows) + 1.2), layout="constrained")
axes = figure.subplots()
for place, seeds in enumerate(seeds for seeds in runs.values() if seeds):
    values = [100 * run["history"][-1]["accuracy"] for run in seeds.values()]
    axes.plot(values, [place] * len(values), "o", color="C0", alpha=0.6)
    axes.plot(statistics.mean(values), place, "|", color="C1", markersize=22, markeredgewidth=2)
axes.set_yticks(range(len(rows)), [label for label, seeds in runs.items() if seeds])
axes.margins(y=0.15)
axes.invert_yaxis()
axes.set_xlabel("accuracy on SST-2 dev after the last step, %")
axes.grid(axis="x", alpha=0.3)
figure.savefig(results_path("distillation-sst2", ".png"), dpi=150)
