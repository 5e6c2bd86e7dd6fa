"""Process groups: several processes that train one model.

`torchrun` starts them and describes them in the environment. Each computes the gradient of its share of every batch,
and PyTorch's `DistributedDataParallel` sums the gradients; weights and moments are the same in all, and the first
process writes.

With `shard` (PyTorch's `fully_shard`, FSDP2) each process holds only its part of every weight, gradient and moment, and
the weights of a layer are gathered while it is computed. Results and files stay the same.
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
class ProcessGroup:
    """The processes that train together; this one is process `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and logs."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values` over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def sum_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the sums of counts over all processes, exactly."""
        if self.count == 1:
            return dict(counts)
        names = sorted(counts)
        totals = self.sum(torch.tensor([counts[name] for name in names], dtype=torch.int64))
        return dict(zip(names, totals.tolist(), strict=True))

    def largest(self, value: int) -> int:
        """Return the largest value of all processes."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            self.largest(0)


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, during the block; without `torchrun` there is one process."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ProcessGroup()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


# ── sharded weights ──


def shard(module: nn.Module, blocks: Iterable[nn.Module], device: torch.device, methods: Iterable[str] = ()) -> None:
    """Shard the parameters of `module`, before its optimizer is made.

    Args:
        module: on its device, the same in all processes.
        blocks: submodules whose weights are gathered one after the other; all others are gathered together.
        device: the device of the module.
        methods: names of its methods, beside `forward`, that compute with its weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    # Resharded after a pass: between passes a module's parameters are the parts that the optimizer holds.
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for name in methods:
        register_fsdp_forward_method(module, name)


def is_sharded(value: Tensor | nn.Module) -> bool:
    """Return whether a tensor, or the parameters of a module, are sharded."""
    tensor = next(value.parameters()) if isinstance(value, nn.Module) else value
    return hasattr(tensor, "device_mesh")  # a DTensor, whose module takes half a second to import


def whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor; all processes call this with their parts."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def copies(named: Iterable[tuple[str, Tensor]], *, kept: bool) -> dict[str, Tensor]:
    """Return whole copies of tensors in main memory; a process that does not need them only provides its parts."""
    result = {}
    for name, tensor in named:
        entire = whole(tensor.detach())
        if kept:
            result[name] = entire.to("cpu", copy=True).contiguous()
    return result


def part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, in the same memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sharded_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a copy of `tensor`, which all processes hold, sharded as `other` is."""
    if not is_sharded(other) or tensor.shape != other.shape:
        return tensor.clone()
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None).clone()


def norms_of(tensors: list[Tensor], like: Tensor) -> Tensor:
    """Return [tensors] their norms; where `like` is sharded, they are parts, and the norms are those of the whole."""
    norms = torch.stack(list(torch._foreach_norm(tensors)))
    if not is_sharded(like):
        return norms
    squares = norms.square()
    dist.all_reduce(squares, group=like.device_mesh.get_group())  # type: ignore[attr-defined]
    return squares.sqrt()


# ── devices ──


def local_device() -> str | None:
    """Return the name of this process's GPU under `torchrun`; None without a GPU or without `torchrun`."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or not torch.cuda.is_available():
        return None
    return f"cuda:{int(local) % torch.cuda.device_count()}"
