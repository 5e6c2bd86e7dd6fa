"""Table and plot of what `runs/distillation_glue.sh` found.

    python runs/distillation_glue.py OUT

OUT is the output folder of the first, as far as it has come. A score is the task's on GLUE, the mean of its metrics, on
dev after the last step.
"""

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib.figure

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import results_path, write_results

TASKS = {"mrpc": "MRPC", "sts-b": "STS-B", "cola": "CoLA", "rte": "RTE"}


def last_score(folder: Path) -> float | None:
    """100 times the score of a run that is finished."""
    file = folder / "run.json"
    run: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return 100 * float(run["history"][-1]["score"]) if run.get("finished") else None


def by_seed(folder: Path) -> dict[str, float]:
    return {one.name: score for one in sorted(folder.glob("seed-*")) if (score := last_score(one)) is not None}


out = Path(sys.argv[1])
rows, drawn = [], []
for task, name in TASKS.items():
    plain, distilled = by_seed(out / task / "plain"), by_seed(out / task / "distilled")
    teacher = last_score(out / task / "teacher")
    gains = [distilled[seed] - plain[seed] for seed in plain if seed in distilled]
    if teacher is None or not gains:
        continue
    drawn.append((name, list(plain.values()), list(distilled.values()), teacher))
    rows.append(
        {
            "task": name,
            "teacher": round(teacher, 1),
            "plain": round(statistics.mean(plain.values()), 1),
            "distilled": round(statistics.mean(distilled.values()), 1),
            "gain": round(statistics.mean(gains), 1),
            "standard error": round(statistics.stdev(gains) / math.sqrt(len(gains)), 1) if len(gains) > 1 else "",
            "seeds": len(gains),
            "plain, each": " ".join(f"{value:.1f}" for value in plain.values()),
            "distilled, each": " ".join(f"{value:.1f}" for value in distilled.values()),
        }
    )
write_results("distillation-glue", rows)

figure = matplotlib.figure.Figure(figsize=(8, 0.9 * len(drawn) + 1.2), layout="constrained")
axes = figure.subplots()
for place, (_, *pair, teacher) in enumerate(drawn):
    for shift, values, color in zip((-0.15, 0.15), pair, ("C0", "C1"), strict=True):
        axes.plot(values, [place + shift] * len(values), "o", color=color, alpha=0.6)
        axes.plot(statistics.mean(values), place + shift, "|", color=color, markersize=18, markeredgewidth=2)
    axes.plot(teacher, place, "*", color="C2", markersize=11)
for label, marker, color in (("labels alone", "o", "C0"), ("distilled", "o", "C1"), ("teacher", "*", "C2")):
    axes.plot([], [], marker, color=color, label=label)
axes.set_yticks(range(len(drawn)), [name for name, *_ in drawn])
axes.margins(y=0.12)
axes.invert_yaxis()
axes.set_xlabel("score on dev after the last step; a bar is the mean over seeds")
axes.grid(axis="x", alpha=0.3)
axes.legend()
figure.savefig(results_path("distillation-glue", ".png"), dpi=150)
