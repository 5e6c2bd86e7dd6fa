"""Configurations of runs of a second, and what a run wrote."""

from pathlib import Path
from typing import Any

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


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a run except for those that hold times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "README.md"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
