"""Tiny sentence encoders: written by sentence-transformers itself, or file by file."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from helpers.tokenizers import spelling, tokenizer_of

WORDS = ("the", "film", "is", "great", "dull", "query", "passage", ":", ".", "-")
WIDTH = 32
LONGEST = 48
TEXTS = [
    "the film is great.",
    "Dull",
    "",
    "a very long text about a film that " * 5,
    "ÉTÉ İstanbul ΣΑΣ café - 東京",
    "the film: is it [MASK] dull?",
]


def transformers_encoder(folder: Path, *, seed: int = 0, labels: int | None = None) -> Path:
    """A random BERT of transformers with its tokenizer; with `labels` a classifier."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    tokenizer = tokenizer_of(spelling(*WORDS), model_max_length=LONGEST)
    tokenizer.save_pretrained(folder)
    options: dict[str, Any] = {} if labels is None else {"num_labels": labels}
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_attention_heads=4, num_hidden_layers=2,
        intermediate_size=64, max_position_embeddings=LONGEST, initializer_range=0.3, **options,
    )  # fmt: skip
    torch.manual_seed(seed)
    made: Any = BertModel if labels is None else BertForSequenceClassification
    made(config).save_pretrained(folder)
    return folder


def declare(folder: Path, files: Mapping[str, Any]) -> Path:
    """Write declarations: JSON values, or arrays as a file of safetensors."""
    from safetensors.numpy import save_file

    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file({key: np.asarray(array, np.float32) for key, array in value.items()}, path)
        else:
            path.write_text(json.dumps(value), encoding="utf-8")
    return folder


def modules(*kinds: str, prefix: str = "sentence_transformers.models.") -> list[dict[str, Any]]:
    """A `modules.json` with an encoder at the top and a numbered folder for each of `kinds`."""
    paths = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds, start=1))]
    return [
        {"idx": i, "name": str(i), "path": path, "type": prefix + kind}
        for i, (kind, path) in enumerate(zip(("Transformer", *kinds), paths, strict=True))
    ]


def copy(source: Path, target: Path) -> Path:
    """A copy of a model's folder, to be changed."""
    shutil.copytree(source, target)
    return target
