"""What a person sees of a run: a bar on a terminal, a line now and then elsewhere."""

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
    """How long it will still take; afterwards how long it took."""

    def render(self, task: Task) -> Text:
        seconds = task.elapsed if task.finished else task.time_remaining
        if seconds is None:
            return Text("")
        return Text(f"{timedelta(seconds=round(seconds))}{'' if task.finished else ' left'}", style="cyan")


def say(console: Console | None, text: str) -> None:
    """Print a line, or log it where there is no console."""
    if console is None:
        logger.info("%s", text)
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


class Progress:
    """Steps done, examples a second, loss and time left.

    Args:
        steps: how many there are.
        console: where to draw the bar if it is a terminal, or to print the lines; the log gets them when None.
        what: what is going on.
        unit: what a step is, in lines.
    """

    def __init__(self, steps: int, console: Console | None = None, what: str = "training", unit: str = "step") -> None:
        self.steps, self.console, self.unit = steps, console, unit
        self._recent: deque[tuple[int, float]] = deque(maxlen=100)  # examples and seconds of the latest steps
        self._last_line = time.monotonic()
        self._bar: Bar | None = None
        if console is not None and console.is_terminal:
            self._bar = Bar(
                TextColumn(what),
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
                self.busy(f"{self.examples_a_second:,.0f} examples/s")
            self._bar.stop()

    @property
    def examples_a_second(self) -> float:
        """Over the latest steps, evaluations left out."""
        return sum(n for n, _ in self._recent) / max(1e-9, sum(s for _, s in self._recent))

    def advance(self, step: int, examples: int, seconds: float, loss: float | None = None) -> None:
        """Show that `step` steps are done, the latest `examples` of them having taken `seconds`."""
        self._recent.append((examples, seconds))
        facts = f"{self.examples_a_second:,.0f} examples/s" + ("" if loss is None else f" · loss {loss:.4f}")
        if self._bar is not None:
            self._bar.update(self._task, completed=step, facts=facts)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self.line(f"{self.unit} {step:,} of {self.steps:,} · {facts}")

    def busy(self, what: str) -> None:
        """Show on the bar that something other than a step is going on."""
        if self._bar is not None:
            self._bar.update(self._task, facts=what)

    def line(self, text: str) -> None:
        """Print a line (above the bar, where there is one)."""
        self._last_line = time.monotonic()
        say(self.console, text)


class Writer(Protocol):
    """Where curves go: `torch.utils.tensorboard.SummaryWriter` is one."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Record one value."""


def lost(what: str) -> TrainingError:
    """The error of a run that cannot go on."""
    return TrainingError(
        f"{what}; the state from before is kept. A smaller learning rate, a longer warm-up or fp32 may help"
    )


class Meter:
    """Collects the scalars of steps on their device and looks at them rarely: looking makes a GPU wait."""

    def __init__(
        self, progress: Progress, writer: Writer | None, describe: Callable[[int], str], steps_between: int
    ) -> None:
        self.progress, self.writer, self.describe, self.steps_between = progress, writer, describe, steps_between
        self.waiting: list[tuple[int, dict[str, Tensor]]] = []
        self.examples, self.started = 0, 0.0

    def add(self, step: int, scalars: dict[str, Tensor], examples: int, started: float) -> None:
        """Take the scalars of a step that began at `started`."""
        if not self.waiting:
            self.examples, self.started = 0, started
        self.waiting.append((step, scalars))
        self.examples += examples
        if len(self.waiting) >= self.steps_between:
            self.flush()

    def flush(self) -> None:
        """Show and record what was collected; raise `TrainingError` where a loss or its gradient was not finite."""
        if not self.waiting:
            return
        means: dict[str, float] = {}
        for name in self.waiting[0][1]:
            values = torch.stack([scalars[name] for _, scalars in self.waiting]).tolist()
            for (step, _), value in zip(self.waiting, values, strict=True):
                if not math.isfinite(value):
                    raise lost(f"{name} is {value} at step {step:,}, {self.describe(step - 1)}")
            means[name] = sum(values) / len(values)
        step, _ = self.waiting[-1]
        self.progress.advance(step, self.examples, time.perf_counter() - self.started, means["loss"])
        if self.writer is not None:
            for name, value in {**means, "examples_a_second": self.progress.examples_a_second}.items():
                self.writer.add_scalar(f"train/{name}", value, step)
        self.waiting.clear()
