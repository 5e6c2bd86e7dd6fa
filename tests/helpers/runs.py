"""Configurations of runs of a second, and what a run wrote."""

import json
from pathlib import Path
from typing import Any

from helpers.labelled import reviews, write_csv
from helpers.seeds import SEED
from pocketbert.recipes.finetune_options import FinetuneOptions

CONFIGS: dict[str, dict[str, Any]] = {
    "squeezebert": {
        "model_type": "squeezebert", "vocab_size": 120, "hidden_size": 32, "embedding_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.2,
    },
    "mobilebert": {
        "model_type": "mobilebert", "vocab_size": 120, "hidden_size": 32, "embedding_size": 16,
        "intra_bottleneck_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "num_feedforward_networks": 1,
    },
}  # fmt: skip
TEACHER: dict[str, Any] = {
    "model_type": "bert", "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 32, "initializer_range": 0.2,
}  # fmt: skip


def config_in(folder: Path, family: str = "squeezebert", **changes: Any) -> str:
    """The path of a configuration of `CONFIGS`, with changes."""
    path = folder / f"{family}.json"
    path.write_text(json.dumps({**CONFIGS[family], **changes}))
    return str(path)


def options_in(folder: Path, **changes: Any) -> FinetuneOptions:
    """Options of a run of a second from scratch on 80 reviews, all of it below `folder`, with changes."""
    data = folder / "reviews.csv"
    if not data.exists():
        write_csv(data, reviews(80))
    defaults: dict[str, Any] = {
        "data": data, "output": folder / "out", "epochs": 2, "batch_size": 8, "device": "cpu",
        "tensorboard": False, "seed": SEED,
    }  # fmt: skip
    if "model" not in changes and "from_scratch" not in changes:
        defaults["from_scratch"] = config_in(folder)
    if "model" not in changes and "tokenizer" not in changes:
        defaults["vocab_size"] = 120
    return FinetuneOptions(**{**defaults, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a run except for those that hold times, or its name."""
    told = ("run.json", "README.md", "report.html")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in told)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if "tensorboard" not in path.parts}
