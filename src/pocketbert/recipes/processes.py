"""Runs of several processes, which `torchrun` started: how they join, and share the batches of labelled data."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from pocketbert.data.batches import Batches
from pocketbert.errors import TrainingError
from pocketbert.training.distributed import ProcessGroup, process_group
from pocketbert.training.objectives import Batch


@contextlib.contextmanager
def distributed() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started. Raises `TrainingError` where one of them is lost."""
    with process_group() as processes:
        try:
            yield processes
        except RuntimeError as error:
            if processes.count > 1 and re.search("gloo|nccl|connection", str(error), re.IGNORECASE):
                raise TrainingError(
                    f"process {processes.rank} of {processes.count} lost the connection to another process, whose "
                    f"error message has the reason; the last training state is kept: run the same command with "
                    f"--resume to "
                    "continue"
                ) from error
            raise


class SharedBatches:
    """The micro-batches of one process: step → every so many of all.

    A last batch that cannot be divided evenly is computed whole by every process. Losses are divided by the units of
    all processes together, so its gradient is the same.

    Args:
        batches: of the run; a multiple of the processes in micro-batches, but for smaller batches.
        processes: those that share them.
    """

    def __init__(self, batches: Batches, processes: ProcessGroup) -> None:
        self.batches, self.processes, self.batches_before = batches, processes, batches.batches_before

    def __call__(self, step: int) -> list[Batch]:
        """Return this process's micro-batches of batch `step`, as many as every other has."""
        parts, processes = self.batches(step), self.processes
        return parts if len(parts) % processes.count else parts[processes.rank :: processes.count]
