"""The training loop, for all objectives: steps, micro-batches, precision, processes, evaluation, resuming.

Everything random in step *t* is a function of the seed and of *t*, as is the order of the data, and the training state
on disk is complete at any moment: a run that was killed and resumed is, in fp32 on a CPU, bit for bit the run that was
not.
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
from pocketbert.training.callbacks import Callback
from pocketbert.training.distributed import SINGLE_PROCESS, ProcessGroup, is_sharded
from pocketbert.training.objectives import Batch, Objective
from pocketbert.training.optim import all_finite, clip_and_step
from pocketbert.training.progress import Progress, RunningMeans, Writer, diverged
from pocketbert.training.state import Saver, State, latest_state, load_state


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """Length of the training, and the steps at which it evaluates and saves."""

    steps: int
    """Number of optimizer steps."""
    evaluate_at: Collection[int]
    """Steps after which to evaluate."""
    metric: str
    """Metric that selects the best model: the smallest value if its name ends in "loss", otherwise the largest."""
    patience: int | None = None
    """Stop after this many evaluations in a row without a new best."""
    seed: int = 42
    """Seed of dropout."""
    clip: float | None = 1.0
    """Maximum norm of the gradient."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe; weights and moments stay in fp32."""
    save_seconds: float = 300.0
    """Maximum seconds between saved states; every evaluation saves as well."""
    keep: int = 1
    """Number of states to keep."""


def train(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Sequence[Batch]],
    schedule: TrainingSchedule,
    *,
    rate: Callable[[int], float],
    evaluate: Callable[[], Mapping[str, float]],
    on_evaluation: Callable[[State], None],
    folder: Path,
    progress: Progress,
    writer: Writer | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
    describe: Callable[[int], str] = "batch {}".format,
    callback: Callback | None = None,
) -> State:
    """Train `objective`, from the newest training state in `folder` if there is one.

    Args:
        objective: the objective, on the device to train on.
        optimizer: an optimizer of the objective's parameters; its groups carry `peak_lr`.
        batches: step → micro-batches; with several processes those of this one, the same number for each.
        schedule: length of the training, and the steps at which it evaluates and saves.
        rate: step → fraction of the peak rate.
        evaluate: returns the metrics of the current model; called in evaluation mode.
        on_evaluation: called after every evaluation and before the state is saved. The weights are those of a new best
            if `state.best(schedule.metric)` is the last entry of the history.
        folder: the folder of the training states.
        progress: the progress bar.
        writer: receives the learning curves.
        processes: the processes that train together. All call `evaluate`, which returns the same in all, and
            `on_evaluation`.
        describe: names the batch of a step in error messages.
        callback: receives steps and evaluations, and may end the training.

    Raises:
        TrainingInterrupted: SIGINT or SIGTERM arrived; the step was finished and its state saved.
        TrainingError: a loss or a weight is not finite; the message names step and batch, and the state before it is
            kept.
        CheckpointError: a training state cannot be written or read.
    """
    newest = latest_state(folder)
    state = State() if newest is None else load_state(newest, objective, optimizer)
    device = next(objective.parameters()).device
    means = RunningMeans(progress, writer, describe, steps_between=1 if device.type == "cpu" else 10)
    saved_step, saved_at, finite_step = state.step, time.monotonic(), state.step
    stopped = False
    runner = _Runner(objective, optimizer, schedule, processes, device)

    def check() -> None:
        """Raise if a loss or a weight is not finite: such weights must not replace good ones."""
        nonlocal finite_step
        means.flush()
        if finite_step != state.step and not all_finite(objective.parameters()):
            raise diverged(f"weights are not finite after step {state.step:,}, {describe(state.step - 1)}")
        finite_step = state.step

    def save() -> None:
        nonlocal saved_step, saved_at
        check()
        saver.save(state, objective, optimizer)
        saved_step, saved_at = state.step, time.monotonic()

    with (
        Saver(folder, schedule.keep, writes=processes.first) as saver,
        _Signals(patient=processes.count > 1) as signals,
        torch.random.fork_rng([device] if device.type == "cuda" else []),
    ):
        objective.train()
        while True:
            if (stopped or state.step in schedule.evaluate_at) and not state.evaluated():
                check()
                progress.busy("evaluating")
                objective.eval()
                # With several processes, others may wait for this one inside of the evaluation.
                with signals.at_once() if processes.count == 1 else nullcontext():
                    state.history.append({"step": state.step, **evaluate()})
                objective.train()
                if state.evaluated():
                    _report(state, schedule, progress, writer)
                    on_evaluation(state)
                    save()
                    stopped = _wants_to_stop(callback, state) or stopped
            due = time.monotonic() - saved_at >= schedule.save_seconds
            # Clocks differ, and all processes must save the same step.
            agreed = processes.largest(2 * (signals.caught or 0) + due)
            if caught := agreed // 2:
                save()
                saver.wait()
                raise TrainingInterrupted(
                    f"stopped by {signal.Signals(caught).name} after step {state.step:,} of {schedule.steps:,}; the "
                    f"training state is in {latest_state(folder)}: run the same command with --resume to continue",
                    caught,
                )
            if stopped or state.step >= schedule.steps or _out_of_patience(state, schedule):
                break
            if agreed % 2:
                save()
            started = time.perf_counter()
            objective.begin(state.step)
            fraction = rate(state.step)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * fraction * objective.layer_rate(group.get("layer", 0))
            scalars, examples = runner.step(batches(state.step), state.step)
            state.step += 1
            scalars["learning_rate"] = torch.tensor(max(group["lr"] for group in optimizer.param_groups))
            means.add(state.step, scalars, examples, started)
            if callback is not None:
                values = {name: float(value) for name, value in scalars.items()}
                stopped = callback.on_step(state.step, values) is True
        if saved_step != state.step:
            save()
    return state


class _Runner:
    """Carries out steps: the gradients of all micro-batches, in all processes, then the step of the optimizer.

    Both ways to share weights, replicated (DDP) and sharded (FSDP2), average gradients over the processes after the
    last micro-batch, so losses are multiplied by the number of processes.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: TrainingSchedule,
        processes: ProcessGroup,
        device: torch.device,
    ) -> None:
        self.objective, self.optimizer = objective, optimizer
        self.schedule, self.processes, self.device = schedule, processes, device
        self.replicated: DistributedDataParallel | None = None
        if processes.count > 1 and not is_sharded(objective):
            # With find_unused_parameters, DDP never regroups gradients after a first step. With more than two processes
            # the order of sums depends on the groups, and a resumed run has a first step of its own.
            warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
            self.replicated = DistributedDataParallel(objective, find_unused_parameters=True)

    def step(self, batch: Sequence[Batch], step: int) -> tuple[dict[str, Tensor], int]:
        """Carry out one step; return the objective's scalars for the whole batch, and its number of examples."""
        counts: dict[str, int] = {}
        for part in batch:
            for unit, count in self.objective.units(part).items():
                counts[unit] = counts.get(unit, 0) + count
        totals = self.processes.sum_counts(counts)
        self.optimizer.zero_grad(set_to_none=True)
        scalars: dict[str, Tensor] = {}
        # Share p of process r is share p · count + r of all: the same dropout for any number of processes.
        seeds = random_words(self.schedule.seed, "dropout", step, len(batch) * self.processes.count)
        for number, part in enumerate(batch):
            self._seed(int(seeds[number * self.processes.count + self.processes.rank]))
            shares = self._gradient(part, totals, last=number == len(batch) - 1)
            for name, share in shares.items():
                scalars[name] = scalars[name] + share.detach() if name in scalars else share.detach()
        if self.processes.count > 1:
            sums = self.processes.sum(torch.stack([value.float() for value in scalars.values()]))
            scalars = dict(zip(scalars, sums.unbind(), strict=True))
        scalars["gradient_norm"] = clip_and_step(
            self.optimizer, self.objective.parameters(), self.schedule.clip, narrow=self.schedule.bf16
        )
        return scalars, totals["examples"]

    def _seed(self, seed: int) -> None:
        """Seed dropout; `torch.manual_seed` would note a traceback for each kind of device that is not in use."""
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _gradient(self, part: Batch, totals: Mapping[str, int], *, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one micro-batch; after the last one, gradients are summed over all processes."""
        tensors = {name: torch.from_numpy(array).to(self.device, non_blocking=True) for name, array in part.items()}
        if is_sharded(self.objective):
            self.objective.set_requires_gradient_sync(last)  # type: ignore[operator]
        unsynchronised = nullcontext() if self.replicated is None or last else self.replicated.no_sync()
        with unsynchronised:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.schedule.bf16):
                shares: dict[str, Tensor] = (self.replicated or self.objective)(tensors, totals)
            (shares["loss"] * self.processes.count).backward()
        return shares


def _wants_to_stop(callback: Callback | None, state: State) -> bool:
    metrics = {name: value for name, value in state.history[-1].items() if name != "step"}
    return callback is not None and callback.on_evaluation(state.step, metrics) is True


def _out_of_patience(state: State, schedule: TrainingSchedule) -> bool:
    return schedule.patience is not None and state.evaluations_since_best(schedule.metric) >= schedule.patience


def _report(state: State, schedule: TrainingSchedule, progress: Progress, writer: Writer | None) -> None:
    latest = state.history[-1]
    metrics = {name: value for name, value in latest.items() if name != "step"}
    best = " · best so far" if state.best(schedule.metric) is latest else ""
    values = " · ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    progress.line(f"step {state.step:,} of {schedule.steps:,}: {values}{best}")
    for name, value in metrics.items():
        if writer is not None:
            writer.add_scalar(f"eval/{name}", value, state.step)


class _Signals:
    """Delays SIGINT and SIGTERM until a step is finished; a second signal is not delayed.

    Unless `patient`: `torchrun` passes on signals that its processes may have received already, and kills processes
    that hang.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.caught: int | None = None
        self.patient = patient
        self._waits = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python handles signals only here
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the first signal end a block, which does not change the state."""
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
