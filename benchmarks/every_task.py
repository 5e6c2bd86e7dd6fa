"""A tiny model of every task with random weights, to test the requests of a service rather than its predictions.

    pocketbert serve $(python benchmarks/every_task.py FOLDER)

Writes them to FOLDER and prints them as `pocketbert serve` takes them; the tests have theirs from here, too. Needs the
extra train.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pocketbert import AutoTokenizer, BertTokenizer, SqueezeBertConfig
from pocketbert.bundles import BUNDLED, SENTIMENT
from pocketbert.models import auto

LABELS = {
    "classify": ["negative", "positive"],
    "nli": ["contradiction", "entailment", "neutral"],
    "tag": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "rank": ["LABEL_0"],
}
HEADS = {
    "classify": "ForSequenceClassification",
    "nli": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "rank": "ForSequenceClassification",
    "answer": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
    "choose": "ForMultipleChoice",
    "embed": "Model",
}


def every_task(folder: Path, tokenizer: BertTokenizer, *, width: int, longest: int = 512) -> dict[str, Path]:
    """A folder for each, below `folder`: two layers of `width` that read up to `longest` tokens."""
    torch.manual_seed(0)
    for name, head in HEADS.items():
        config = SqueezeBertConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=width, embedding_size=width, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=2 * width, max_position_embeddings=longest,
            id2label=dict(enumerate(LABELS.get(name, ["LABEL_0", "LABEL_1"]))),
        )  # fmt: skip
        model = auto.model_class(config, head)(config)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.dim() > 1:  # larger than a new model's, so that its answers differ
                    parameter.normal_(0.0, 2.0 if "word_embeddings" in key else 0.2)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in HEADS}


def as_served(folder: Path) -> list[str]:
    """NAME=FOLDER of each, with the vocabulary of the bundled model."""
    made = every_task(folder, AutoTokenizer.from_pretrained(BUNDLED / SENTIMENT), width=64)
    return [f"{name}={path}" for name, path in made.items()]


if __name__ == "__main__":
    print(*as_served(Path(sys.argv[1])))
