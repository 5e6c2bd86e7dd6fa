"""From a configuration and tensors to a plan: one module per family, one for the heads.

Exact folds are made here, in float64: the scale of attention into the query's weights, and norms that
are affine into the layers around them. Matrices that are in int8 in the checkpoint stay so where a fold only scales or
stacks their rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pocketbert.checkpoints.quantized import SMOOTHING
from pocketbert.families import family_of
from pocketbert.families.config import PreTrainedConfig
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.lowering.heads import lower_head
from pocketbert.runtime.plan import Plan


def lower(config: PreTrainedConfig, tensors: Mapping[str, np.ndarray], head: str) -> Plan:
    """The plan of a model.

    Args:
        config: of the model.
        tensors: by their official names, with or without the encoder's prefix. Smoothing factors are ignored.
        head: a key of `families.family.HEADS`: "Model", "ForSequenceClassification", …

    Raises:
        CheckpointError: a tensor is missing, or does not have the shape that the configuration requires. The message
            continues the name of the file.
    """
    family = family_of(config)
    names = {family.short(name): name for name in tensors if not name.endswith(SMOOTHING)}
    return lower_with(Builder(family, names, tensors, head), config)


def lower_with(build: Builder, config: PreTrainedConfig) -> Plan:
    """The plan of a model whose tensors come from a builder; see `lower`."""
    family = build.family
    hidden = family.load(f"{family.lowering}.lower_encoder")(build, config)
    outputs = dict(lower_head(build, config, hidden))
    return build.plan(outputs, config.max_tokens)
