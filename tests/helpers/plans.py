"""Plans of small models, random inputs, and what the interpreter computes from both."""

from __future__ import annotations

import numpy as np
import torch

from pocketbert.features import Features
from pocketbert.runtime import reference
from pocketbert.runtime.plan import Plan


def tensors(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights of a model, as a checkpoint holds them."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def draw(lengths: list[int], seed: int = 0) -> list[Features]:
    """Random tokens of a vocabulary of 99, one example per length."""
    random = np.random.default_rng(seed)
    return [
        Features(random.integers(0, 99, n).astype(np.int32), random.integers(0, 2, n).astype(np.int32)) for n in lengths
    ]


def run(plan: Plan, inputs: list[Features]) -> dict[str, np.ndarray]:
    """The outputs of the interpreter for these examples in one batch."""
    starts = np.cumsum([0, *(len(x.input_ids) for x in inputs)])
    ids, segments = (np.concatenate([getattr(x, name) for x in inputs]) for name in ("input_ids", "token_type_ids"))
    return reference.run(plan, ids, segments, starts)
