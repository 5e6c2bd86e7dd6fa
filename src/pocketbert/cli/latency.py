"""Latency of a new model on this machine, for its card."""

from __future__ import annotations

import time
from pathlib import Path

_TOKENS, _ROUNDS = 128, 15


def latency(folder: Path) -> dict[str, float]:
    """The time for one input on the engine in milliseconds, in fp32 and in int8: the shortest of several rounds."""
    import numpy as np

    from pocketbert.checkpoints import read_tensors
    from pocketbert.configs import AutoConfig
    from pocketbert.features import Features
    from pocketbert.runtime.engine import Engine
    from pocketbert.runtime.load import load_plan
    from pocketbert.runtime.quantize import quantize

    config = AutoConfig.from_pretrained(folder)
    plan = load_plan(config, read_tensors(folder), config.tuned_for or "Model")
    length = min(_TOKENS, config.max_tokens)
    ids = np.arange(length, dtype=np.int32) % config.vocab_size
    inputs = [Features(ids, np.zeros_like(ids))]
    milliseconds = {}
    for precision, precise_plan in (("fp32", plan), ("int8", quantize(plan))):
        engine, times = Engine(precise_plan), []
        for _ in range(_ROUNDS + 1):
            started = time.perf_counter()
            engine(inputs)
            times.append(time.perf_counter() - started)
        milliseconds[f"one input of {length} tokens, {precision}"] = 1000 * min(times[1:])
    return milliseconds
