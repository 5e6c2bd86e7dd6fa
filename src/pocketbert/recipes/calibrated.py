"""Calibration of a run's best model: temperatures in its last layer, the record of them, and the reliability diagram.

The temperatures are folded into the last layer when the model is saved. So whatever reads the folder obeys them: the
engine, exports, the service, quantization, PyTorch, transformers, and a run that goes on from it. `config.json` states
them, for readers: nothing applies them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pocketbert.calibration import Calibration, described
from pocketbert.checkpoints import write_text
from pocketbert.checkpoints.files import atomic_write, read_json
from pocketbert.models.heads import Head
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.tasks.evaluation import Scores

#: In the folder of a run.
RECORD = Path("evaluation") / "calibration.json"


def save_calibrated(
    model: PreTrainedModel,
    folder: Path,
    calibration: Calibration,
    metrics: Scores,
    levels: Mapping[str, Any],
    thresholds: Mapping[str, float | None] | None = None,
) -> None:
    """Save a classifier with its temperatures in the last layer; the model in memory stays as it is.

    Args:
        model: the classifier.
        folder: of the run.
        calibration: fitted to the logits of the model.
        metrics: of the saved model.
        levels: thresholds of `decisions.LEVELS`, for `config.json`.
        thresholds: of each label, where they were asked for.
    """
    config, names = model.config, list(model.config.id2label.values())
    facts = described(calibration, names)
    stated: dict[str, Any] = {name: facts[name] for name in ("temperature", "examples")} | dict(levels)
    decisions = {"calibration": stated} | ({} if thresholds is None else {"thresholds": dict(thresholds)})
    model.config = config.replace(extra={**config.extra, **decisions})
    try:
        model.save_pretrained(folder, state_dict=_divided(model, calibration) if calibration.changes else None)
    finally:
        model.config = config
    record = {**facts, "thresholds": thresholds, "metrics": metrics}
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _divided(model: PreTrainedModel, calibration: Calibration) -> dict[str, Tensor]:
    """Return the parameters with logits divided by the temperatures."""
    assert isinstance(model, Head)
    last = model.family.heads[model.kind.name][-1].name
    tensors = dict(model.state_dict())
    divisors = torch.tensor(calibration.temperatures, dtype=torch.float64)
    for name, shape in ((f"{last}.weight", (-1, 1)), (f"{last}.bias", (-1,))):
        tensor = tensors[name]
        tensors[name] = (tensor.cpu().double() / divisors.reshape(shape)).to(tensor.dtype)
    return tensors


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of the best model of a run, if it is a classifier."""
    path = folder / RECORD
    return read_json(path) if path.exists() else None


def calibration_section(record: Mapping[str, Any], picture: bool) -> str:
    """Return the section of the model card."""
    before, after = record["before"], record["after"]
    lines = ["## Calibration", ""]
    if before == after:
        lines += [f"The probabilities are as trained: {'; '.join(record['kept'][:3])}.", ""]
    else:
        shown = record["temperature"]
        if isinstance(shown, dict):
            shown = ", ".join(f"{name} {value:.3g}" for name, value in list(shown.items())[:20])
        else:
            shown = f"{shown:.3g}"
        lines += [
            f"Logits are divided by a temperature, which is part of the saved weights: {shown}. It was fitted on "
            f"{record['examples']:,} dev examples; below, each example is judged by a temperature that was fitted "
            "without it.",
            "",
        ]
    lines += ["| | before | after |", "|---|---|---|"]
    titles = {"calibration_error": "expected calibration error", "brier_loss": "Brier score", "log_loss": "log loss"}
    lines += [f"| {title} | {before[name]:.4f} | {after[name]:.4f} |" for name, title in titles.items()]
    if record["thresholds"] is not None:
        shown = ", ".join(f"{name} {_shown(value)}" for name, value in list(record["thresholds"].items())[:20])
        lines += ["", f"A text has each label whose probability exceeds its threshold: {shown}."]
    lines += [
        "",
        f"Perfect probabilities have a calibration error up to {record['chance']:.4f} on that number of examples.",
    ]
    return "\n".join([*lines, *(["", "![Reliability diagram](reliability.png)"] if picture else [])])


def _shown(threshold: float | None) -> str:
    return "never" if threshold is None else f"{threshold:.3f}"


def plot_reliability(path: Path, record: Mapping[str, Any]) -> None:
    """Plot how often predictions were right over their confidence, in bins of equal mass, before and after."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", zorder=0)
    for name, colour in (("before", "C7"), ("after", "C0")):
        confidence, right, _ = zip(*record[name]["bins"], strict=True)
        axes.plot(confidence, right, marker="o", markersize=4, color=colour, label=name)
    axes.set(xlabel="confidence", ylabel="fraction that is right", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, dpi=120, format="png")
