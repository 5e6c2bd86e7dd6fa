"""A tiny model of every task with random weights, for what is asked of a service rather than of its answers.

    pocketbert serve $(python benchmarks/every_task.py FOLDER)

Writes them to FOLDER, unless they are there, and prints them as `pocketbert serve` takes them. Needs the extra train.
"""

from __future__ import annotations

import sys
from pathlib import Path

LABELS = {
    "classify": ["negative", "positive"],
    "nli": ["contradiction", "entailment", "neutral"],
    "tag": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
}
HEADS = {
    "classify": "ForSequenceClassification",
    "nli": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "answer": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
    "choose": "ForMultipleChoice",
    "embed": "Model",
}


def every_task(folder: Path) -> list[str]:
    """NAME=FOLDER of each."""
    import torch

    from pocketbert import AutoTokenizer, SqueezeBertConfig
    from pocketbert.models import auto
    from pocketbert.pipelines import BUNDLED

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "sst2")
    for name, head in HEADS.items():
        if (folder / name).exists():
            continue
        labels = LABELS.get(name, ["LABEL_0", "LABEL_1"])
        config = SqueezeBertConfig(
            vocab_size=13000, hidden_size=64, embedding_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, id2label=dict(enumerate(labels)),
        )  # fmt: skip
        auto.model_class(config, head)(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return [f"{name}={folder / name}" for name in HEADS]


if __name__ == "__main__":
    print(*every_task(Path(sys.argv[1])))
