"""Table and plot of what `runs/mobilebert_recipe.sh` found.

    python runs/mobilebert_recipe.py OUT

OUT is its output folder, as far as it has come. Dev scores are those after the last step.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.figure

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import results_path, write_results

SST2 = {
    "sst-2-1e-5": "SST-2, rate 1e-5",
    "sst-2-1e-4": "SST-2, rate 1e-4",
    "sst-2-1e-3": "SST-2, rate 1e-3",
    "sst-2-3e-3": "SST-2, rate 3e-3",
    "sst-2-pooled": "SST-2, rate 1e-3, BERT's pooler",
}
MRPC = {
    "mrpc-as-bert": "MRPC, as for BERT: rate 2e-5, 3 epochs",
    "mrpc-preset": "MRPC, --preset mobilebert: rate 1e-4, 10 epochs",
}


def finished(name: str) -> dict[str, Any] | None:
    file = Path(sys.argv[1]) / name / "run.json"
    run: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return run if run.get("finished") else None


runs = {label: run for name, label in (SST2 | MRPC).items() if (run := finished(name))}
write_results(
    "mobilebert-recipe",
    [
        {"what": label, "steps": run["steps"]}
        | {
            key: round(run["history"][-1][key], 4) if key in run["history"][-1] else ""
            for key in ("accuracy", "f1", "loss")
        }
        for label, run in runs.items()
    ],
)

figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
for axes, task in zip(figure.subplots(1, 2), ("SST-2", "MRPC"), strict=True):
    for label, run in runs.items():
        if label.startswith(task):
            history = run["history"]
            axes.plot(
                [one["step"] for one in history],
                [100 * one["accuracy"] for one in history],
                ".-",
                label=label[len(task) + 2 :],
            )
    axes.set(title=task, xlabel="steps of 32 examples", ylabel="accuracy on dev, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
figure.savefig(results_path("mobilebert-recipe", ".png"), dpi=150)
