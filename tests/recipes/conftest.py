import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.labelled import reviews, write_csv
from helpers.runs import CONFIGS
from helpers.seeds import SEED
from pocketbert.recipes.finetune_options import FinetuneOptions


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
