"""Repetition of a run with several seeds: mean and standard deviation of its metrics.

Each run has a folder of its own in the output, `seed-42` and so on, beside the results in `seeds.json`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from pocketbert.checkpoints import write_text
from pocketbert.errors import ConfigError
from pocketbert.metrics import smaller_is_better
from pocketbert.recipes.epoch_run import FinetuneResult
from pocketbert.recipes.finetune_options import FinetuneOptions, refuse_push
from pocketbert.training.callbacks import Callback
from pocketbert.training.progress import print_line

Options = TypeVar("Options", bound=FinetuneOptions)


@dataclass(frozen=True)
class SeedsResult:
    """Result of several runs."""

    folder: Path
    """The model of the best run, see `FinetuneResult.folder`."""
    seeds: dict[int, dict[str, float]]
    """Seed → metrics."""
    mean: dict[str, float]
    """Mean of each metric."""
    deviation: dict[str, float] | None
    """Sample standard deviation (n - 1) of each metric; None for a single run."""
    best: int
    """The seed of the best run."""
    result: FinetuneResult
    """The best run."""


def over_seeds(
    run: Callable[..., FinetuneResult],
    options: Options,
    seeds: int,
    *,
    console: Console | None = None,
    argv: Sequence[str] = (),
    callback: Callback | None = None,
) -> SeedsResult:
    """Repeat a run with the seeds `options.seed`, `options.seed` + 1, …; with `resume`, each is resumed.

    Args:
        run: `finetune` or `distill`.
        options: the options of every run, but for seed and output.
        seeds: number of seeds.
        console: where to show progress.
        argv: the command, for every `run.json`.
        callback: receives the steps and evaluations of all runs.

    Raises:
        ConfigError: `seeds` is less than 1.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} must be at least 1")
    refuse_push(options)
    results: dict[int, FinetuneResult] = {}
    for number, seed in enumerate(range(options.seed, options.seed + seeds), start=1):
        print_line(console, f"── seed {seed}, {number} of {seeds}")
        output = None if options.output is None else Path(options.output) / f"seed-{seed}"
        results[seed] = run(replace(options, seed=seed, output=output), console=console, argv=argv, callback=callback)
    metrics_of = {seed: result.metrics for seed, result in results.items()}
    columns = {name: [metrics[name] for metrics in metrics_of.values()] for name in next(iter(metrics_of.values()))}
    metric = options.metric_name if options.metric_name in columns else next(iter(columns))
    sign = -1.0 if smaller_is_better(metric) else 1.0
    best = max(metrics_of, key=lambda seed: sign * metrics_of[seed][metric])
    result = SeedsResult(
        folder=results[best].folder,
        seeds=metrics_of,
        mean={name: statistics.mean(values) for name, values in columns.items()},
        deviation={name: statistics.stdev(values) for name, values in columns.items()} if seeds > 1 else None,
        best=best,
        result=results[best],
    )
    if options.output is None:
        return result
    content: dict[str, Any] = {
        "metric": metric,
        "seeds": result.seeds,
        "mean": result.mean,
        "deviation": result.deviation,
        "best": best,
    }
    write_text(Path(options.output) / "seeds.json", json.dumps(content, indent=1) + "\n")
    return result
