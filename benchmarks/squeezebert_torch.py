"""SqueezeBERT in PyTorch: ours against transformers', forward and forward + backward, in one run.

    python benchmarks/squeezebert_torch.py [--rounds 15]

Published size (51 M parameters), the same random weights in both, dropout off, all available threads.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import torch
import transformers
from common import ratio, write_results
from rich.console import Console
from rich.table import Table

from pocketbert import SqueezeBertConfig, SqueezeBertModel
from pocketbert.bench.measure import in_turn

SHAPES = ((1, 128), (8, 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds

    config = SqueezeBertConfig(vocab_size=30528, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    theirs = transformers.SqueezeBertModel(transformers.SqueezeBertConfig.from_dict(config.to_dict()))
    ours = SqueezeBertModel(config)
    ours.load_state_dict(theirs.state_dict())

    rows = []
    for batch, length in SHAPES:
        ids = torch.randint(1000, 30000, (batch, length))
        mask = torch.ones_like(ids)

        def forward(model: Any, ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> None:
            with torch.inference_mode():
                model(ids, attention_mask=mask)

        def step(model: Any, ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> None:
            model.zero_grad()
            model(ids, attention_mask=mask).last_hidden_state.square().mean().backward()

        for what, work in (("forward", forward), ("forward + backward", step)):
            models = {"transformers": theirs, "pocketbert": ours}
            for model in models.values():
                model.train(work is step)
            times = in_turn({name: partial(work, model) for name, model in models.items()}, rounds)
            rows.append(
                {
                    "shape": f"{batch}x{length}",
                    "what": what,
                    **{f"{name} ms": round(1e3 * statistics.median(t), 1) for name, t in times.items()},
                    "ratio": round(ratio(times["transformers"], times["pocketbert"]), 2),
                    "threads": torch.get_num_threads(),
                }
            )

    table = Table("shape", "what", "transformers ms", "pocketbert ms", "ratio", title="SqueezeBERT in PyTorch, medians")
    for row in rows:
        table.add_row(*(str(row[column]) for column in ("shape", "what", "transformers ms", "pocketbert ms", "ratio")))
    Console().print(table)
    write_results("squeezebert-torch", rows)


if __name__ == "__main__":
    main()
