"""Tables and plots of what the runs in miniature found.

    python runs/pretraining_report.py MODELS GAINS ABLATIONS

MODELS holds squeezebert, ib-bert and mobilebert, as runs/pretrain_squeezebert.sh and runs/pretrain_mobilebert.sh made
them with --mini; GAINS is the output folder of runs/pretraining_gains.sh, ABLATIONS that of
runs/pretraining_ablations.sh, each as far as it has come.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import results_path, write_results

Run = dict[str, Any]
MODELS = {"squeezebert": "SqueezeBERT", "ib-bert": "IB-BERT, the teacher", "mobilebert": "MobileBERT, from its teacher"}
TASKS = {"sst-2": "SST-2", "mrpc": "MRPC", "rte": "RTE"}
ABLATIONS = {
    "transfer": {
        "bare": "MobileBERT alone",
        "pd": "+ distillation (PD)",
        "features": "+ feature maps, progressive",
        "progressive": "+ attention: progressive",
        "joint": "the same, joint",
        "auxiliary": "the same, auxiliary",
        "teacher": "the teacher, 1,000 steps",
    },
    "optimiser": {
        "lamb-8e-3": "LAMB, 8e-3",
        "lamb-24e-3": "LAMB, 2.4e-2",
        "adamw-1e-3": "AdamW, 1e-3",
        "adamw-3e-3": "AdamW, 3e-3",
    },
    "pairs": {"pairs-sop": "sentence order", "pairs-none": "masked words alone"},
}


def read(folder: Path) -> Run | None:
    """The record of a run that is finished."""
    file = folder / "run.json"
    run: Run = json.loads(file.read_text()) if file.exists() else {}
    return run if run.get("finished") else None


def finished(folder: Path, names: dict[str, str]) -> dict[str, Run]:
    """Those of `names` that are, by name."""
    return {name: run for name in names if (run := read(folder / name))}


def held_out(run: Run) -> dict[str, Any]:
    """What a pretraining run could do after its last step."""
    last = run["history"][-1]
    names = ("masked_loss", "masked_accuracy", "pair_accuracy")
    return {"steps": last["step"], **{name: round(last[name], 4) if name in last else "" for name in names}}


def draw_course(axes: Any, run: Run, name: str, label: str) -> None:
    """One run's held-out `name`, where it was measured."""
    points = [(one["step"], one[name]) for one in run["history"] if name in one]
    axes.plot(*zip(*points, strict=True), label=label, marker=".", markersize=4)


def report_models(folder: Path) -> None:
    """Held-out losses and accuracies of the miniatures, over their steps."""
    runs = {name: json.loads((folder / name / "run.json").read_text()) for name in MODELS}  # as far as they came
    rows = []
    for name, run in runs.items():
        for one in run["history"]:
            measured = {key: round(one[key], 4) for key in ("masked_loss", "masked_accuracy", "pair_accuracy")}
            rows.append({"model": MODELS[name], "step": one["step"], **measured})
    write_results("pretraining-miniatures", rows)
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    titles = {
        "masked_loss": "loss at masked words", "masked_accuracy": "masked words found",
        "pair_accuracy": "pairs judged rightly",
    }  # fmt: skip
    for axes, (key, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for name, run in runs.items():
            draw_course(axes, run, key, MODELS[name])
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(results_path("pretraining-miniatures", ".png"), dpi=150)


def report_gains(folder: Path) -> None:
    """Accuracy after the last step of fine-tuning, pretrained and from nothing."""
    rows, groups = [], []
    for model in ("squeezebert", "mobilebert"):
        for task, title in TASKS.items():
            found = {
                start: [
                    100 * run["history"][-1]["accuracy"]
                    for one in sorted((folder / model / task / start).glob("seed-*"))
                    if (run := read(one))
                ]
                for start in ("scratch", "pretrained")
            }
            if not all(found.values()):
                continue
            groups.append((f"{MODELS[model].split(',')[0]}\n{title}", found))
            for start, values in found.items():
                rows.append(
                    {
                        "model": MODELS[model].split(",")[0],
                        "task": title,
                        "start": start,
                        "seeds": len(values),
                        "accuracy": round(statistics.mean(values), 2),
                        "deviation": round(statistics.stdev(values), 2) if len(values) > 1 else "",
                        "of each": " ".join(f"{value:.2f}" for value in values),
                    }
                )
    if not rows:
        return
    write_results("pretraining-gains", rows)
    figure = Figure(figsize=(1.5 * len(groups) + 1, 4), layout="constrained")
    axes = figure.subplots()
    for place, (_, found) in enumerate(groups):
        for offset, (start, label) in enumerate((("scratch", "from nothing"), ("pretrained", "pretrained"))):
            values, x = found[start], place + 0.36 * (offset - 0.5)
            shown = label if place == 0 else None
            axes.bar(x, statistics.mean(values), 0.34, color=f"C{offset}", alpha=0.6, label=shown)
            axes.plot([x] * len(values), values, "k.", markersize=5)
    axes.set_xticks(range(len(groups)), [label for label, _ in groups], fontsize=8)
    axes.set(ylabel="accuracy on dev after the last step, %", ylim=(45, None))
    axes.legend()
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(results_path("pretraining-gains", ".png"), dpi=150)


def report_ablations(folder: Path) -> None:
    """Held-out losses and accuracies after the last step, and on the way there."""
    tables = {table: finished(folder, names) for table, names in ABLATIONS.items()}
    tables = {table: runs for table, runs in tables.items() if runs}
    if not tables:
        return
    write_results(
        "pretraining-ablations",
        [
            {"table": table, "what": ABLATIONS[table][name], **held_out(run)}
            for table, runs in tables.items()
            for name, run in runs.items()
        ],
    )
    figure = Figure(figsize=(5 * len(tables), 4.2), layout="constrained")
    for axes, (table, runs) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        for name, run in runs.items():
            if name != "teacher":
                draw_course(axes, run, "masked_loss", ABLATIONS[table][name])
        axes.set(title=table, xlabel="step", ylabel="held-out loss at masked words")
        lowest = min(one["masked_loss"] for run in runs.values() for one in run["history"])
        axes.set_ylim(lowest - 0.1, lowest + 2.5)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(results_path("pretraining-ablations", ".png"), dpi=150)


models, gains, ablations = map(Path, sys.argv[1:])
report_models(models)
report_gains(gains)
report_ablations(ablations)
