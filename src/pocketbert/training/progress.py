"""Progress of a run: a bar on a terminal, occasional lines elsewhere; running means of its scalars."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text
from torch import Tensor

from pocketbert.errors import TrainingError

logger = logging.getLogger("pocketbert")

_SECONDS_BETWEEN_LINES = 15.0


class _TimeLeft(ProgressColumn):
    """Remaining time, or the duration when finished."""

    def render(self, task: Task) -> Text:
        seconds = task.elapsed if task.finished else task.time_remaining
        if seconds is None:
            return Text("")
        return Text(f"{timedelta(seconds=round(seconds))}{'' if task.finished else ' left'}", style="cyan")


def print_line(console: Console | None, text: str) -> None:
    """Print a line, or log it without a console."""
    if console is None:
        logger.info("%s", text)
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


class Progress:
    """Finished steps, examples per second, loss and remaining time.

    Args:
        steps: number of steps.
        console: where to draw the bar if it is a terminal, or to print lines; without a console lines go to the log.
        title: title of the bar.
        unit: name of a step, in lines.
    """

    def __init__(self, steps: int, console: Console | None = None, title: str = "training", unit: str = "step") -> None:
        self.steps, self.console, self.unit = steps, console, unit
        self._recent: deque[tuple[int, float]] = deque(maxlen=100)  # examples and seconds of the latest steps
        self._last_line = time.monotonic()
        self._bar: Bar | None = None
        if console is not None and console.is_terminal:
            self._bar = Bar(
                TextColumn(title),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("[dim]{task.fields[facts]}"),
                _TimeLeft(),
                console=console,
            )
            self._task = self._bar.add_task("", total=steps, facts="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            if self._recent:
                self.busy(f"{self.examples_per_second:,.0f} examples/s")
            self._bar.stop()

    @property
    def examples_per_second(self) -> float:
        """Throughput of the latest steps, without evaluations."""
        return sum(n for n, _ in self._recent) / max(1e-9, sum(s for _, s in self._recent))

    def advance(self, step: int, examples: int, seconds: float, loss: float | None = None) -> None:
        """Show that `step` steps are finished, and that the latest `examples` took `seconds`."""
        self._recent.append((examples, seconds))
        facts = f"{self.examples_per_second:,.0f} examples/s" + ("" if loss is None else f" · loss {loss:.4f}")
        if self._bar is not None:
            self._bar.update(self._task, completed=step, facts=facts)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self.line(f"{self.unit} {step:,} of {self.steps:,} · {facts}")

    def busy(self, activity: str) -> None:
        """Show an activity other than a step on the bar."""
        if self._bar is not None:
            self._bar.update(self._task, facts=activity)

    def line(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._last_line = time.monotonic()
        print_line(self.console, text)


class Writer(Protocol):
    """Receives learning curves, as `torch.utils.tensorboard.SummaryWriter` does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Record one value."""


def diverged(reason: str) -> TrainingError:
    """Return the error of a run whose loss or weights are no longer finite."""
    return TrainingError(
        f"{reason}; the last training state is kept. A smaller learning rate, a longer warm-up or fp32 may help"
    )


class RunningMeans:
    """Collects the scalars of steps on their device and reads them rarely: reading makes a GPU wait."""

    def __init__(
        self, progress: Progress, writer: Writer | None, describe: Callable[[int], str], steps_between: int
    ) -> None:
        self.progress, self.writer, self.describe, self.steps_between = progress, writer, describe, steps_between
        self.waiting: list[tuple[int, dict[str, Tensor]]] = []
        self.examples, self.started = 0, 0.0

    def add(self, step: int, scalars: dict[str, Tensor], examples: int, started: float) -> None:
        """Add the scalars of a step that began at `started`."""
        if not self.waiting:
            self.examples, self.started = 0, started
        self.waiting.append((step, scalars))
        self.examples += examples
        if len(self.waiting) >= self.steps_between:
            self.flush()

    def flush(self) -> None:
        """Show and record the means; raise `TrainingError` where a loss or the norm of its gradient is not finite."""
        if not self.waiting:
            return
        means: dict[str, float] = {}
        for name in self.waiting[0][1]:
            values = torch.stack([scalars[name] for _, scalars in self.waiting]).tolist()
            for (step, _), value in zip(self.waiting, values, strict=True):
                if not math.isfinite(value):
                    raise diverged(f"{name} is {value} at step {step:,}, {self.describe(step - 1)}")
            means[name] = sum(values) / len(values)
        step, _ = self.waiting[-1]
        self.progress.advance(step, self.examples, time.perf_counter() - self.started, means["loss"])
        if self.writer is not None:
            for name, value in {**means, "examples_per_second": self.progress.examples_per_second}.items():
                self.writer.add_scalar(f"train/{name}", value, step)
        self.waiting.clear()
