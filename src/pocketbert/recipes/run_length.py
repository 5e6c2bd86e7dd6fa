"""How long a run over epochs lasts, and its learning rate: also where it is continued, or continues another run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

from pocketbert.configs import AutoConfig
from pocketbert.data.batches import Batches
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tokenization import AutoTokenizer
from pocketbert.training.optim import constant_schedule, linear_schedule
from pocketbert.training.state import State, fork_state, latest_state, read_progress

#: With --schedule constant, options that a resumed run may change, as long as no finished step had another rate.
ADJUSTABLE = ("epochs", "max_steps", "decay_last")


EPOCHS = 3.0
LEAST_STEPS = 60
"""The length of a run without options for it: so many epochs, but not fewer steps, whose number decides."""
_MOST_EVALUATIONS = 10  # of a run of LEAST_STEPS


@dataclass(frozen=True)
class RunLength:
    """The steps of a run."""

    steps: int
    """Number of steps, those of a continued run included."""
    decay_begins: int
    """The first step from which the rate depends on the number of steps."""
    rate: Callable[[int], float]
    """Step → fraction of the peak rate."""

    @classmethod
    def of(cls, options: FinetuneOptions, batches: Batches, start: int) -> Self:
        """Return the length of a run that starts at step `start`."""
        steps = _steps(options, batches, start)
        if options.schedule == "linear":
            warmup = options.warmup if options.warmup_steps is None else options.warmup_steps / steps
            return cls(steps, 0, partial(linear_schedule, steps=steps, warmup=warmup))
        begins = steps - round(options.decay_last * steps) if options.decay_now is None else start
        assert options.warmup_steps is not None
        rate = partial(constant_schedule, warmup=options.warmup_steps, decay_begins=begins, steps=steps)
        # Without a decay even the last step has the full rate.
        return cls(steps, begins, rate if begins < steps else partial(rate, steps=steps + 1))

    def check_resumed(self, finished: int, previous: Mapping[str, Any]) -> None:
        """Check that finished steps had the rates of this length.

        Args:
            finished: number of finished steps.
            previous: the manifest of the run that is resumed.

        Raises:
            ConfigError: the run has more steps than it should, or its rate began to decay elsewhere.
        """
        if self.steps < finished:
            raise ConfigError(
                f"{finished:,} steps are finished, and the run is to have {self.steps:,}: increase --max-steps"
            )
        before = previous.get("decay_begins", self.decay_begins), previous.get("steps", self.steps)
        now = self.decay_begins, self.steps
        if before != now and finished > min(before[0], now[0]):
            raise ConfigError(
                f"cannot resume: {finished:,} steps are finished, and the learning rate was to decay from step "
                f"{before[0]:,} to {before[1]:,}, and now from {now[0]:,} to {now[1]:,}: finish the run with its first "
                "options, or continue from an earlier state"
            )

    def evaluations(self, options: FinetuneOptions, batches: Batches) -> set[int]:
        """Return the steps after which to evaluate: the ends of epochs or every so many steps, and the last one."""
        steps = set(range(0, self.steps, options.eval_every)) if options.eval_every else set[int]()
        if not steps:
            for epoch in count(1):
                if (end := batches.batches_before(epoch)) >= self.steps:
                    break
                steps.add(end)
        if options.eval_every is None and options.epochs is None and len(steps) > _MOST_EVALUATIONS:
            steps = set(range(0, self.steps, max(1, self.steps // _MOST_EVALUATIONS)))
        return {*steps, self.steps} - {0}


def _steps(options: FinetuneOptions, batches: Batches, start: int) -> int:
    if options.decay_now is not None:
        return start + options.decay_now
    if options.max_steps is not None:
        return options.max_steps
    epochs = EPOCHS if options.epochs is None else options.epochs
    whole = math.floor(epochs)
    before, after = batches.batches_before(whole), batches.batches_before(whole + 1)
    steps = max(1, before + math.ceil((epochs - whole) * (after - before)))
    return max(steps, LEAST_STEPS) if options.epochs is None else steps


def continue_run(source: Path, folder: Path) -> State:
    """Let the new run in `folder` continue the run in `source`: copy its newest state, configuration and tokenizer.

    Returns:
        The progress of the new run.

    Raises:
        CheckpointError: there is no state, or it cannot be copied.
    """
    newest = latest_state(source / "checkpoints")
    if newest is None:
        raise CheckpointError(f"{source}: has no training state to continue (--resume-from)")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    AutoConfig.from_pretrained(source).save_pretrained(folder)
    return fork_state(newest, folder / "checkpoints")


def progress_in(folder: Path) -> State:
    """Return the progress of the run in `folder`."""
    newest = latest_state(folder / "checkpoints")
    return State() if newest is None else read_progress(newest)
