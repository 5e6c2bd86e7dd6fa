"""The engine in fp32 and int8 against transformers in PyTorch, one run: published sizes, random weights.

    python benchmarks/engine.py [--rounds 30]

Milliseconds a pass over batch × length, all available threads, medians; all engines take turns.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from common import in_turn, ratio, write_results
from rich.console import Console
from rich.table import Table

from pocketbert.configs import PRESETS
from pocketbert.features import Features
from pocketbert.runtime.engine import Engine, usable_threads
from pocketbert.runtime.lower import lower
from pocketbert.runtime.quantize import quantize

MODELS = {"squeezebert-uncased": "SqueezeBert", "mobilebert-uncased": "MobileBert", "bert-base-uncased": "Bert"}
SHAPES = ((1, 32), (1, 128), (1, 384), (8, 128))
COLUMNS = {
    "model": "model",
    "shape": "shape",
    "transformers fp32 ms": "transformers",
    "engine fp32 ms": "engine fp32",
    "engine int8 ms": "engine int8",
    "int8 over transformers": "ratio",
}


def theirs(model: Any, ids: torch.Tensor) -> None:
    with torch.inference_mode():
        model(ids)


def measure(name: str, family: str, rounds: int) -> list[dict[str, Any]]:
    config = PRESETS[name]
    torch.manual_seed(0)
    peer = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config").from_dict(config.to_dict()))
    peer.eval()
    plan = lower(config, {key: value.numpy() for key, value in peer.state_dict().items()}, "Model")
    fp32, int8 = Engine(plan), Engine(quantize(plan))
    rows = []
    for batch, length in SHAPES:
        ids = np.random.default_rng(0).integers(1000, 30000, (batch, length)).astype(np.int32)
        inputs = [Features(row, np.zeros(length, np.int32)) for row in ids]
        times = in_turn(
            {
                "transformers fp32": partial(theirs, peer, torch.from_numpy(ids.astype(np.int64))),
                "engine fp32": partial(fp32, inputs),
                "engine int8": partial(int8, inputs),
            },
            rounds,
        )
        rows.append(
            {
                "model": name,
                "shape": f"{batch}x{length}",
                **{f"{what} ms": round(1e3 * statistics.median(t), 2) for what, t in times.items()},
                "int8 over transformers": round(ratio(times["transformers fp32"], times["engine int8"]), 1),
                "threads": usable_threads(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    rows = [row for name, family in MODELS.items() for row in measure(name, family, rounds)]
    table = Table(*COLUMNS.values(), title="milliseconds a pass; ratio: transformers over engine int8")
    for row in rows:
        table.add_row(*(str(row[column]) for column in COLUMNS))
    Console().print(table)
    write_results("engine", rows)


if __name__ == "__main__":
    main()
