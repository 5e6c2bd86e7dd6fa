"""Reports of a run: the model card in the format of the hub, metrics, and curves."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.checkpoints import write_text
from pocketbert.checkpoints.files import atomic_write, read_json
from pocketbert.metrics import smaller_is_better
from pocketbert.recipes.calibrated import calibration_section, plot_reliability

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData


def write_reports(folder: Path, log: Callable[[str], None], latency: Mapping[str, float] | None = None) -> None:
    """Write the card, metrics, curves and the reliability diagram from the `run.json` of a finished run.

    Args:
        folder: the output folder of the run.
        log: prints a line.
        latency: condition → milliseconds per input, as measured on this machine.
    """
    run = read_json(folder / "run.json")
    write_text(folder / "evaluation" / "metrics.json", json.dumps(_metrics(run), indent=1) + "\n")
    if find_spec("matplotlib") is None:
        log("skipping curves.png, which needs matplotlib (pip install matplotlib)")
    else:
        if "calibration" in run:
            plot_reliability(folder / "reliability.png", run["calibration"])
        _plot(folder / "curves.png", run["history"], run["best"]["step"])
    write_card(folder, latency)


def _metrics(run: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in run["best"].items() if name != "step"}


# ── the card ──


def write_card(folder: Path, latency: Mapping[str, float] | None = None) -> None:
    """Write the `README.md` of a model, from the `run.json` of its run; arguments as of `write_reports`."""
    from huggingface_hub import ModelCard

    name, run, config = folder.resolve().name, read_json(folder / "run.json"), read_json(folder / "config.json")
    parts = [_summary(name, run, config), _results(run), _sizes(folder, run, latency or {})]
    if "calibration" in run:
        parts.append(calibration_section(run["calibration"], (folder / "reliability.png").exists()))
    parts.append(_reproduction(run))
    body = "\n\n".join(part for part in parts if part)
    card = ModelCard(f"---\n{_metadata(name, run).to_yaml()}\n---\n\n{body}\n")
    write_text(folder / "README.md", str(card))


def _metadata(name: str, run: Mapping[str, Any]) -> ModelCardData:
    """Return the metadata for the hub, with the metrics as results on a data set."""
    from huggingface_hub import EvalResult, ModelCardData

    options, data = run["options"], _data_set(run)
    base = options["model"] if options["model"] is not None and not Path(options["model"]).exists() else None
    results = [
        EvalResult(
            task_type=options["task"],
            dataset_name=data["name"],
            dataset_type=data["type"],
            dataset_config=data.get("config"),
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for metric, value in _metrics(run).items()
        if math.isfinite(value)
    ]
    return ModelCardData(
        library_name="pocketbert",
        pipeline_tag=options["task"],
        tags=["pocketbert"],
        base_model=base,
        model_name=name,
        eval_results=results,
    )


def _data_set(run: Mapping[str, Any]) -> dict[str, str]:
    if run["options"]["glue"] is not None:
        task = run["options"]["glue"].lower().replace("-", "").replace("_", "")
        return {"name": f"GLUE {run['options']['glue'].upper()}", "type": "nyu-mll/glue", "config": task}
    files = {part["file"]: None for name, part in run["data"].items() if name != "train"}
    return {"name": ", ".join(files), "type": Path(next(iter(files))).stem}


def _summary(name: str, run: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    options = run["options"]
    start = options["model"] or f"random weights ({Path(options['from_scratch']).name})"
    teachers = f", distilled from {', '.join(options['teacher'])}" if options.get("teacher") else ""
    architecture = (config.get("architectures") or ["model"])[0]
    labels = list(run["labels"].values())
    shown = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
    lines = [
        f"# {name}",
        "",
        f"A `{architecture}` for {options['task'].replace('-', ' ')}, trained with PocketBERT from {start}{teachers}.",
    ]
    if options["task"] in ("text-classification", "token-classification"):
        lines += ["", f"Labels: {shown}."]
    return "\n".join(lines)


def _results(run: Mapping[str, Any]) -> str:
    rows = ["| set | file | examples | SHA-256 |", "|---|---|---|---|"]
    for name, part in run["data"].items():
        rows.append(f"| {name} | {part['file']} | {part['examples']:,} | `{part['sha256'][:16]}…` |")
    step = run["best"]["step"]
    table = ["| metric | value |", "|---|---|"]
    table += [f"| {name} | {value:.4f} |" for name, value in _metrics(run).items()]
    note = (
        f"Metrics on the evaluation data after step {step:,} of {run['steps']:,}, the best of {len(run['history'])} "
        f"evaluations by {run['metric']}. The model was selected on the same data, so the metrics are slightly "
        "optimistic."
    )
    return "\n".join(["## Data", "", *rows, "", "## Results", "", *table, "", note])


def _sizes(folder: Path, run: Mapping[str, Any], latency: Mapping[str, float]) -> str:
    weights = folder / "model.safetensors"
    rows = ["## Size and speed", "", "| | |", "|---|---|", f"| parameters | {run['parameters']:,} |"]
    rows.append(f"| model.safetensors | {weights.stat().st_size / 1e6:.1f} MB |")
    rows += [f"| {condition} | {milliseconds:.2f} ms |" for condition, milliseconds in latency.items()]
    if latency:
        rows += [
            "",
            f"Timed on {run['machine']['processor']}, {run['machine']['cores']} cores, the fastest of several runs.",
        ]
    return "\n".join(rows)


def _reproduction(run: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in run["options"].items() if value is not None)
    lines = ["## Reproduction", ""]
    if run["argv"]:
        lines += ["```console", f"$ {shlex.join(['pocketbert', *run['argv'][1:]])}", "```", ""]
    own = f"PocketBERT {run['pocketbert']}" + (f" at {run['git']}" if run["git"] else "")
    return "\n".join([*lines, f"{own}; {versions}; {run['precision']}.", "", "```text", options, "```"])


# ── curves ──


def _plot(path: Path, history: Sequence[Mapping[str, float]], best: float) -> None:
    """Plot all evaluations: scores to the left, losses and calibration errors to the right; the best step is marked."""
    import matplotlib.figure

    names = [name for name in history[0] if name != "step" and "threshold" not in name]
    panels = [[name for name in names if smaller_is_better(name) is loss] for loss in (False, True)]
    panels = [panel for panel in panels if panel]
    figure = matplotlib.figure.Figure(figsize=(5 * len(panels), 3.5), layout="constrained")
    steps = [entry["step"] for entry in history]
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in panel:
            axes.plot(steps, [entry[name] for entry in history], marker="o", markersize=3, label=name)
        axes.axvline(best, color="0.6", linestyle=":", zorder=0)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, dpi=120, format="png")
