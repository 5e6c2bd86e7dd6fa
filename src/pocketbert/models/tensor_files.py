"""PyTorch's tensors to and from safetensors files with checksums."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pocketbert.checkpoints.checksums import checksum, read_checksums, with_checksums
from pocketbert.errors import CheckpointError


def serialise(tensors: Mapping[str, Tensor]) -> tuple[bytes, memoryview]:
    """Return the parts of a safetensors file with these tensors, which lie on the CPU and are contiguous."""
    return with_checksums(save(dict(tensors), {"format": "pt"}))


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file.

    Raises:
        CheckpointError: a tensor does not have its checksum.
        SafetensorError: the file is damaged in another way.
        OSError: it cannot be read.
    """
    with safe_open(path, framework="pt") as file:
        sums = read_checksums(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is not a dict
    for name, tensor in tensors.items():
        if name in sums and sums[name] != checksum(tensor.reshape(-1).view(torch.uint8).numpy()):
            raise CheckpointError(f"{path} is damaged: {name} does not have its checksum")
    return tensors
