"""Loading a plan: from a checkpoint's configuration and tensors to the plan that an engine runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pocketbert.checkpoints.quantized import SMOOTHING
from pocketbert.families import family_of
from pocketbert.families.config import PreTrainedConfig
from pocketbert.runtime.lowering import lower
from pocketbert.runtime.plan import Plan
from pocketbert.runtime.quantize import quantize
from pocketbert.runtime.smoothing import apply_factors


def load_plan(config: PreTrainedConfig, tensors: Mapping[str, np.ndarray], head: str) -> Plan:
    """The plan of a checkpoint: lowered, smoothed by the factors in the file, in int8 if the file is.

    Raises:
        CheckpointError: the tensors do not fit, as for `lower` and `apply_factors`. The message continues the name of
            the file.
    """
    plan = lower(config, tensors, head)
    family, smoothed = family_of(config), [name for name in tensors if name.endswith(SMOOTHING)]
    factors = {f"{family.short(name).removesuffix(SMOOTHING)}.weight": tensors[name] for name in smoothed}
    plan = apply_factors(plan, factors)
    if config.quantized:  # a folder of an older version has the table of words in fp32
        plan = quantize(plan)
    return plan
