"""The same run with several seeds: what is luck, and what is not.

Each run has a folder of its own in the output, `seed-42` and so on; `seeds.json` beside them says how they went.
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
from pocketbert.recipes.finetune import FinetuneResult
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.training.progress import say

Options = TypeVar("Options", bound=FinetuneOptions)


@dataclass(frozen=True)
class SeedsResult:
    """What came out of the runs."""

    folder: Path
    """The best run's model."""
    seeds: dict[int, dict[str, float]]
    """Seed → metrics."""
    mean: dict[str, float]
    """Of each metric."""
    deviation: dict[str, float] | None
    """Of each metric, as of a sample (n - 1); None of a single run."""
    best: int
    """The seed whose run was best."""


def over_seeds(
    run: Callable[..., FinetuneResult],
    options: Options,
    seeds: int,
    *,
    console: Console | None = None,
    argv: Sequence[str] = (),
) -> SeedsResult:
    """Repeat a run with the seeds `options.seed`, `options.seed` + 1, …; each goes on where it stopped.

    Args:
        run: `finetune` or `distill`.
        options: of every run, but for the seed and the output.
        seeds: how many.
        console: where to show progress.
        argv: the command to note in every `run.json`.

    Raises:
        ConfigError: less than one seed.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} must be at least 1")
    results: dict[int, FinetuneResult] = {}
    for number, seed in enumerate(range(options.seed, options.seed + seeds), start=1):
        say(console, f"── seed {seed}, {number} of {seeds}")
        one = replace(options, seed=seed, output=Path(options.output) / f"seed-{seed}")
        results[seed] = run(one, console=console, argv=argv)
    found = {seed: result.metrics for seed, result in results.items()}
    columns = {name: [metrics[name] for metrics in found.values()] for name in next(iter(found.values()))}
    metric = options.metric or next(iter(columns))
    sign = -1.0 if metric.endswith("loss") else 1.0
    best = max(found, key=lambda seed: sign * found[seed][metric])
    result = SeedsResult(
        folder=results[best].folder,
        seeds=found,
        mean={name: statistics.mean(values) for name, values in columns.items()},
        deviation={name: statistics.stdev(values) for name, values in columns.items()} if seeds > 1 else None,
        best=best,
    )
    content: dict[str, Any] = {
        "metric": metric,
        "seeds": result.seeds,
        "mean": result.mean,
        "deviation": result.deviation,
        "best": best,
    }
    write_text(Path(options.output) / "seeds.json", json.dumps(content, indent=1) + "\n")
    return result
