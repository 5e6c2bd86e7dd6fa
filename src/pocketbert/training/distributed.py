"""Several processes that train one model: who this one is, and the few things that they agree on.

`torchrun` starts them and says so in the environment. Each computes the gradient of its share of every batch, and
PyTorch's `DistributedDataParallel` adds them up; weights and moments are the same everywhere, and the first writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of everyone's `values`, in their place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def sum_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The sum of everyone's counts, exact."""
        if self.count == 1:
            return dict(counts)
        names = sorted(counts)
        totals = self.sum(torch.tensor([counts[name] for name in names], dtype=torch.int64))
        return dict(zip(names, totals.tolist(), strict=True))

    def largest(self, value: int) -> int:
        """The largest of everyone's values."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            self.largest(0)


@contextmanager
def joined() -> Iterator[Ranks]:
    """A block in which the processes that `torchrun` started know each other; elsewhere there is one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


def local_device() -> str | None:
    """The GPU of this process under `torchrun`, as a name; None where there is no GPU, or no `torchrun`."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or not torch.cuda.is_available():
        return None
    return f"cuda:{int(local) % torch.cuda.device_count()}"
