"""The seed of runs that have to learn something: they do so with any, as `scripts/full` shows with ten."""

import os

import torch

SEED = int(os.environ.get("POCKETBERT_TEST_SEED", "42"))


def seed_torch(number: int = 0) -> None:
    """Seed PyTorch for the test's own use of it; `number` tells several such uses apart."""
    torch.manual_seed(1000 * SEED + number)
