"""Several processes that train one model: who this one is, and the few things that they agree on.

`torchrun` starts them and says so in the environment. Each computes the gradient of its share of every batch, and
PyTorch's `DistributedDataParallel` adds them up; weights and moments are the same everywhere, and the first writes.

With `shard` (PyTorch's `fully_shard`, FSDP2) each process holds only its part of every weight, gradient and moment, and
the weights of a layer come together while it is computed. What is computed and what is saved stay the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


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


# ── sharded weights ──


def shard(module: nn.Module, blocks: Iterable[nn.Module], device: torch.device, methods: Iterable[str] = ()) -> None:
    """Divide the parameters of `module` among all processes, which must hold the same; before its optimiser is made.

    Args:
        module: on its device, the same everywhere.
        blocks: parts of it whose weights come together one after the other; the rest of it does as one.
        device: where it computes.
        methods: names of its methods, beside `forward`, that compute with its weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    # Not left together after a pass: between passes a module's parameters are the parts, which the optimiser knows.
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for name in methods:
        register_fsdp_forward_method(module, name)


def is_sharded(of: Tensor | nn.Module) -> bool:
    """Whether a tensor, or the parameters of a module, are divided among the processes."""
    tensor = next(of.parameters()) if isinstance(of, nn.Module) else of
    return hasattr(tensor, "device_mesh")  # a DTensor, whose module takes half a second to import


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, to which all processes bring their parts."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def copies(named: Iterable[tuple[str, Tensor]], *, kept: bool) -> dict[str, Tensor]:
    """Whole copies of tensors in main memory; where they are not `kept`, this process only brings its parts of them."""
    found = {}
    for name, tensor in named:
        entire = whole(tensor.detach())
        if kept:
            found[name] = entire.to("cpu", copy=True).contiguous()
    return found


def part(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, in the same memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def divided_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A copy of `tensor`, which all processes hold, divided as `other` is if that is divided."""
    if not is_sharded(other) or tensor.shape != other.shape:
        return tensor.clone()
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None).clone()


def norms_of(tensors: list[Tensor], like: Tensor) -> Tensor:
    """[tensors] the norms of tensors; where `like` is divided they are parts, and the norms are those of the whole."""
    norms = torch.stack(list(torch._foreach_norm(tensors)))
    if not is_sharded(like):
        return norms
    squares = norms.square()
    dist.all_reduce(squares, group=like.device_mesh.get_group())  # type: ignore[attr-defined]
    return squares.sqrt()


# ── devices ──


def local_device() -> str | None:
    """The GPU of this process under `torchrun`, as a name; None where there is no GPU, or no `torchrun`."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or not torch.cuda.is_available():
        return None
    return f"cuda:{int(local) % torch.cuda.device_count()}"
