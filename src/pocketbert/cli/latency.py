"""How fast a model that was just made answers here: for its card."""

from __future__ import annotations

import time
from pathlib import Path

_TOKENS, _ROUNDS = 128, 15


def latency(folder: Path) -> dict[str, float]:
    """Milliseconds for one input, in fp32 and in int8, on the engine: of some rounds the one least disturbed."""
    import numpy as np

    from pocketbert.checkpoints import read_tensors
    from pocketbert.configs import AutoConfig
    from pocketbert.features import Features
    from pocketbert.runtime.engine import Engine
    from pocketbert.runtime.load import load_plan
    from pocketbert.runtime.quantize import quantize

    config = AutoConfig.from_pretrained(folder)
    plan = load_plan(config, read_tensors(folder), config.tuned_for or "Model")
    length = min(_TOKENS, config.max_position_embeddings)
    ids = np.arange(length, dtype=np.int32) % config.vocab_size
    one = [Features(ids, np.zeros_like(ids))]
    found = {}
    for name, ready in (("fp32", plan), ("int8", quantize(plan))):
        engine, times = Engine(ready), []
        for _ in range(_ROUNDS + 1):
            begun = time.perf_counter()
            engine(one)
            times.append(time.perf_counter() - begun)
        found[f"one input of {length} tokens, {name}"] = 1000 * min(times[1:])
    return found
