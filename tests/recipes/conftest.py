import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.seeds import SEED
from pocketbert.recipes.finetune_options import FinetuneOptions

GOOD, BAD = ("fine", "great", "lovely", "moving"), ("dull", "awful", "boring", "weak")

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


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of words that decide the label, and words that do not."""
    chance = random.Random(seed)
    rows = []
    for i in range(count):
        words = [chance.choice(GOOD if i % 2 else BAD)]
        words += [chance.choice(("the", "a", "film", "story", "very", "this")) for _ in range(chance.randint(2, 10))]
        chance.shuffle(words)
        rows.append((" ".join(words), ("bad", "good")[i % 2]))
    return rows


def write_csv(path: Path, rows: Iterable[Sequence[str]], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    def make(family: str = "squeezebert", **changes: Any) -> str:
        path = tmp_path / f"{family}.json"
        path.write_text(json.dumps({**CONFIGS[family], **changes}))
        return str(path)

    return make


@pytest.fixture
def options(tmp_path: Path, config: Callable[..., str]) -> Callable[..., FinetuneOptions]:
    """Options of a run of a second, with changes."""

    def make(**changes: Any) -> FinetuneOptions:
        data = tmp_path / "reviews.csv"
        if not data.exists():
            write_csv(data, reviews(80))
        defaults: dict[str, Any] = {
            "data": data, "output": tmp_path / "out", "epochs": 2, "batch_size": 8, "device": "cpu",
            "tensorboard": False, "seed": SEED,
        }  # fmt: skip
        if "model" not in changes and "from_scratch" not in changes:
            defaults["from_scratch"] = config()
        if "model" not in changes and "tokenizer" not in changes:
            defaults["vocab_size"] = 120
        return FinetuneOptions(**{**defaults, **changes})

    return make
