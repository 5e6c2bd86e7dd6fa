"""Devices that PyTorch computes on."""

from __future__ import annotations

import torch

from pocketbert.errors import ConfigError


def choose_device(name: str | None) -> torch.device:
    """Return the device of this name [default: a GPU if there is one]. Raises `ConfigError` where it cannot be used."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from None
    return device
