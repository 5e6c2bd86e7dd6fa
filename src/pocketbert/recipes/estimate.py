"""Estimate of the memory and the time that a pretraining or transfer run needs, from a short probe."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pocketbert.recipes.pretrain import PretrainRun
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.transfer import TransferRun
from pocketbert.recipes.transfer_options import TransferOptions
from pocketbert.training.objectives import Batch
from pocketbert.training.pretraining import Pretraining


@dataclass(frozen=True)
class Estimate:
    """Memory and time of a run."""

    parameters: int
    """Trained parameters."""
    tokens_per_step: tuple[int, ...]
    """Tokens per step of each phase, at most."""
    steps: tuple[int, ...]
    """Steps of each phase."""
    fixed_bytes: int
    """Memory for weights, gradients and moments."""
    peak_bytes: int | None
    """Peak memory at the largest micro-batch, where the device reports it."""
    tokens_per_second: tuple[float, ...]
    """Throughput in each phase, as measured."""
    seconds: float
    """Duration of the run at that throughput."""


def estimate(options: PretrainOptions) -> Estimate:
    """Estimate what a run needs, from a few micro-batches of each phase; writes nothing.

    Args:
        options: options of `pretrain`, or of `transfer`.

    Raises:
        DataError: the corpus is damaged, or too small for the batch.
        ConfigError: options contradict each other or the model.
    """
    run = TransferRun(options) if isinstance(options, TransferOptions) else PretrainRun(options)
    run.read()
    objective = run.prepared_objective()
    optimizer, batches = run.optimizer(objective), run.batches()
    speeds, first, seconds = [], 0, 0.0
    objective.train()
    for phase in run.phases:
        objective.begin(first)
        duration, tokens = _probe(objective, batches(first), run)
        speeds.append(tokens / duration)
        seconds += phase.steps * phase.batch * phase.length * duration / tokens
        first += phase.steps
    started = time.perf_counter()
    optimizer.step()
    _synchronise(run.device)
    seconds += run.steps * (time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in objective.parameters())
    on_gpu = run.device.type == "cuda"
    return Estimate(
        parameters=parameters,
        tokens_per_step=tuple(phase.batch * phase.length for phase in run.phases),
        steps=tuple(phase.steps for phase in run.phases),
        fixed_bytes=16 * parameters,
        peak_bytes=torch.cuda.max_memory_allocated(run.device) if on_gpu else _resident_bytes(),
        tokens_per_second=tuple(speeds),
        seconds=seconds,
    )


def _probe(objective: Pretraining, batch: Sequence[Batch], run: PretrainRun) -> tuple[float, int]:
    """Return duration and tokens of a micro-batch, the fastest of three."""
    best, tokens = math.inf, 1
    for _ in range(3):
        part = batch[0]
        units = objective.units(part)
        tensors = {name: torch.from_numpy(array).to(run.device) for name, array in part.items()}
        _synchronise(run.device)
        started = time.perf_counter()
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bf16):
            loss = objective(tensors, units)["loss"]
        loss.backward()
        _synchronise(run.device)
        best, tokens = min(best, time.perf_counter() - started), units["tokens"]
    return best, tokens


def _resident_bytes() -> int | None:
    """Return the peak memory of this process, where the system reports it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
