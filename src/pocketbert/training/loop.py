"""The training loop: batches, steps, accumulation, precision, processes, evaluation, resuming. Nothing of any task.

Everything random in step *t* is a function of the seed and of *t* (the data's order likewise), and the state on disk is
whole at any moment: a run that was killed and resumed is, in fp32 on a CPU, bit for bit the run that was not.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pocketbert.data.batches import random_words
from pocketbert.errors import TrainingInterrupted
from pocketbert.training.distributed import Ranks, is_sharded
from pocketbert.training.objectives import Batch, Objective
from pocketbert.training.optim import all_finite, clip_gradients
from pocketbert.training.progress import Meter, Progress, Writer, lost
from pocketbert.training.state import Saver, State, latest_state, load_state

ALONE = Ranks()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train, and when to do what."""

    steps: int
    """How many optimiser steps."""
    evaluate_at: Collection[int]
    """After how many steps to evaluate."""
    metric: str
    """Which metric decides what is best; the smallest is if its name ends in "loss", otherwise the largest."""
    patience: int | None = None
    """Stop after so many evaluations in a row without a new best."""
    seed: int = 42
    """Decides dropout."""
    clip: float | None = 1.0
    """The largest norm of the gradient."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe; weights and moments stay in fp32."""
    save_seconds: float = 300.0
    """Save at least so often; every evaluation saves as well."""
    keep: int = 1
    """How many states to keep."""


def train(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Sequence[Batch]],
    plan: Plan,
    *,
    schedule: Callable[[int], float],
    evaluate: Callable[[], Mapping[str, float]],
    record: Callable[[State], None],
    folder: Path,
    progress: Progress,
    writer: Writer | None = None,
    ranks: Ranks = ALONE,
    describe: Callable[[int], str] = "batch {}".format,
) -> State:
    """Train `objective`, from the newest state in `folder` if there is one.

    Args:
        objective: what to train, on the device to train on.
        optimizer: over the objective's parameters; its groups carry `peak_lr`.
        batches: step → micro-batches; with several processes those of this one, as many as the others'.
        plan: how long, and when to do what.
        schedule: step → fraction of the peak rate.
        evaluate: the metrics of the model as it is; called in evaluation mode.
        record: called after every evaluation and before the state is saved. The weights are those of a new best if
            `state.best(plan.metric)` is the last of the history.
        folder: where the states are kept.
        progress: what a person sees.
        writer: where curves go.
        ranks: the processes that train together. All call `evaluate`, which returns the same to all, and `record`.
        describe: what to call the batch of a step in an error.

    Raises:
        TrainingInterrupted: SIGINT or SIGTERM came; the step was finished and its state saved.
        TrainingError: a loss or a weight is not finite, after a step and a batch that it names; the state from before
            is kept.
        CheckpointError: a state cannot be written or read.
    """
    newest = latest_state(folder)
    state = State() if newest is None else load_state(newest, objective, optimizer)
    device = next(objective.parameters()).device
    meter = Meter(progress, writer, describe, steps_between=1 if device.type == "cpu" else 10)
    saved_step, saved_at, sound_step = state.step, time.monotonic(), state.step
    runner = _Runner(objective, optimizer, plan, ranks, device)

    def check() -> None:
        """Raise if a loss or what came of it was not finite: such weights must not replace good ones."""
        nonlocal sound_step
        meter.flush()
        if sound_step != state.step and not all_finite(objective.parameters()):
            raise lost(f"weights are not finite after step {state.step:,}, {describe(state.step - 1)}")
        sound_step = state.step

    def save() -> None:
        nonlocal saved_step, saved_at
        check()
        saver.save(state, objective, optimizer)
        saved_step, saved_at = state.step, time.monotonic()

    with (
        Saver(folder, plan.keep, writes=ranks.first) as saver,
        _Signals(patient=ranks.count > 1) as signals,
        torch.random.fork_rng([device] if device.type == "cuda" else []),
    ):
        objective.train()
        while True:
            if state.step in plan.evaluate_at and not state.evaluated():
                check()
                progress.busy("evaluating")
                objective.eval()
                with signals.at_once() if ranks.count == 1 else nullcontext():  # others may wait for this one in there
                    state.history.append({"step": state.step, **evaluate()})
                objective.train()
                if state.evaluated():
                    _report(state, plan, progress, writer)
                    record(state)
                    save()
            due = time.monotonic() - saved_at >= plan.save_seconds
            agreed = ranks.largest(2 * (signals.caught or 0) + due)  # clocks differ, and all must save the same step
            if caught := agreed // 2:
                save()
                saver.wait()
                raise TrainingInterrupted(
                    f"stopped by {signal.Signals(caught).name} after step {state.step:,} of {plan.steps:,}; the state "
                    f"is in {latest_state(folder)}: run the same command with --resume to go on",
                    caught,
                )
            if state.step >= plan.steps or _impatient(state, plan):
                break
            if agreed % 2:
                save()
            started = time.perf_counter()
            objective.begin(state.step)
            rate = schedule(state.step)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate * objective.rate(group.get("place", 0))
            scalars, examples = runner.step(batches(state.step), state.step)
            state.step += 1
            scalars["learning_rate"] = torch.tensor(max(group["lr"] for group in optimizer.param_groups))
            meter.add(state.step, scalars, examples, started)
        if saved_step != state.step:
            save()
    return state


class _Runner:
    """Makes steps: gradients of all micro-batches, on all processes, then the optimiser's.

    Both ways to share weights, copied (DDP) and sharded (FSDP2), average gradients over the processes after the last
    micro-batch, so losses are multiplied by their number.
    """

    def __init__(
        self, objective: Objective, optimizer: torch.optim.Optimizer, plan: Plan, ranks: Ranks, device: torch.device
    ) -> None:
        self.objective, self.optimizer = objective, optimizer
        self.plan, self.ranks, self.device = plan, ranks, device
        self.together: DistributedDataParallel | None = None
        if ranks.count > 1 and not is_sharded(objective):
            # Told that parameters may be unused, DDP never regroups gradients after a first step. Of more than two
            # processes the order of sums depends on the groups, and a resumed run has a first step of its own.
            warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
            self.together = DistributedDataParallel(objective, find_unused_parameters=True)

    def step(self, batch: Sequence[Batch], step: int) -> tuple[dict[str, Tensor], int]:
        """One optimiser step; returns the objective's scalars for the whole batch and its number of examples."""
        counts: dict[str, int] = {}
        for part in batch:
            for unit, count in self.objective.units(part).items():
                counts[unit] = counts.get(unit, 0) + count
        totals = self.ranks.sum_counts(counts)
        self.optimizer.zero_grad(set_to_none=True)
        scalars: dict[str, Tensor] = {}
        # Share p of process r is share p · count + r of all: the same dropout, however many processes there are.
        seeds = random_words(self.plan.seed, "dropout", step, len(batch) * self.ranks.count)
        for number, part in enumerate(batch):
            torch.manual_seed(int(seeds[number * self.ranks.count + self.ranks.rank]))
            shares = self._gradient(part, totals, last=number == len(batch) - 1)
            for name, share in shares.items():
                scalars[name] = scalars[name] + share.detach() if name in scalars else share.detach()
        if self.ranks.count > 1:
            sums = self.ranks.sum(torch.stack([value.float() for value in scalars.values()]))
            scalars = dict(zip(scalars, sums.unbind(), strict=True))
        scalars["gradient_norm"] = clip_gradients(self.objective.parameters(), self.plan.clip)
        self.optimizer.step()
        return scalars, totals["examples"]

    def _gradient(self, part: Batch, totals: Mapping[str, int], *, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one micro-batch; after the last one, the sum over all processes is there."""
        tensors = {name: torch.from_numpy(array).to(self.device, non_blocking=True) for name, array in part.items()}
        if is_sharded(self.objective):
            self.objective.set_requires_gradient_sync(last)  # type: ignore[operator]
        waits = nullcontext() if self.together is None or last else self.together.no_sync()
        with waits:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.bf16):
                shares: dict[str, Tensor] = (self.together or self.objective)(tensors, totals)
            (shares["loss"] * self.ranks.count).backward()
        return shares


def _impatient(state: State, plan: Plan) -> bool:
    return plan.patience is not None and state.stale(plan.metric) >= plan.patience


def _report(state: State, plan: Plan, progress: Progress, writer: Writer | None) -> None:
    latest = state.history[-1]
    metrics = {name: value for name, value in latest.items() if name != "step"}
    best = " · best so far" if state.best(plan.metric) is latest else ""
    values = " · ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    progress.line(f"step {state.step:,} of {plan.steps:,}: {values}{best}")
    for name, value in metrics.items():
        if writer is not None:
            writer.add_scalar(f"eval/{name}", value, state.step)


class _Signals:
    """SIGINT and SIGTERM wait until a step is finished; a second one does not wait.

    Unless `patient`: `torchrun` passes on signals that its processes may have had already, and kills those that hang.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.caught: int | None = None
        self.patient = patient
        self._waits = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only there can Python handle signals
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that changes nothing of the state, and that the first signal ends already."""
        self._waits = False
        try:
            yield
        except KeyboardInterrupt:
            if self.caught is None:
                raise
        finally:
            self._waits = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        second, self.caught = self.caught is not None, number
        if (second and not self.patient) or not self._waits:
            raise KeyboardInterrupt
