"""Evaluation of a model folder in one call."""

from pathlib import Path
from typing import Any

from pocketbert.tasks.evaluate import evaluate
from pocketbert.tasks.evaluate_options import EvaluateOptions


def metrics_of(model: str | Path, data: str | Path, *, device: str | None = "cpu", **options: Any) -> dict[str, float]:
    """The metrics of a model, by default in PyTorch on the CPU."""
    return evaluate(EvaluateOptions(model=model, data=data, device=device, **options)).metrics
