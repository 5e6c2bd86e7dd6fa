"""Explanations: deletion curves beside integrated gradients of captum, and seconds per text.

    python benchmarks/explanations.py FOLDER glue/SST-2/dev.tsv [--count 200]

The words of a text are left out one after the other, those that contribute most to the label first. The area under the
curve of the label's probability, over the share of words that is left out, tells how well the order was chosen: the
smaller the better. FOLDER is a classifier in fp32; integrated gradients are of the same one in PyTorch, 50 steps from
embeddings of [PAD]. The seconds are those of the bundled classifier. Needs the extras train and dev.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients

from pocketbert.models.auto import load_trained
from pocketbert.pipelines import pipeline

METHODS = ("shapley", "occlusion", "integrated gradients", "random")


class Gradients:
    """Integrated gradients of a classifier, summed over the tokens of each word."""

    def __init__(self, folder: Path) -> None:
        self.pipe = pipeline("text-classification", folder)
        self.model = load_trained(folder, "ForSequenceClassification").eval()
        table = self.model.get_input_embeddings().weight.detach()
        self.table, self.pad = table, int(self.pipe.tokenizer.pad_token_id)
        self.attribute = IntegratedGradients(self._probability).attribute

    def _probability(self, embeddings: torch.Tensor, label: int) -> torch.Tensor:
        logits: torch.Tensor = self.model(inputs_embeds=embeddings).logits
        return logits.softmax(-1)[:, label]

    def __call__(self, text: str, words: Sequence[Any], label: str) -> np.ndarray:
        """[words] attributions to the probability of a label."""
        encoding = self.pipe.tokenizer(text)[0]
        ids = torch.tensor(encoding.ids)
        inputs, baseline = self.table[ids][None], self.table[torch.full_like(ids, self.pad)][None].clone()
        special = [i for i, place in enumerate(encoding.sequence_ids) if place is None]
        baseline[0, special] = inputs[0, special]
        index = self.pipe.config.label2id[label]
        given = self.attribute(inputs, baseline, additional_forward_args=(index,), n_steps=50)[0].sum(-1).numpy()
        found = np.zeros(len(words))
        for token, (place, (start, _)) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True)):
            for number, word in enumerate(words):
                if place is not None and word["start"] <= start < word["end"]:
                    found[number] += given[token]
        return found


def area(pipe: Any, text: str, words: Sequence[Any], label: str, order: np.ndarray) -> float:
    """The mean probability of a label while words are left out in an order."""
    kept = [word["word"] for word in words]
    left, texts = list(range(len(kept))), [text]
    for number in order:
        left.remove(int(number))
        texts.append(" ".join(kept[i] for i in left))
    scores = [next(one["score"] for one in found if one["label"] == label) for found in pipe(texts, top_k=None)]
    return float(np.trapezoid(scores, dx=1 / len(kept)))


def compare(folder: Path, texts: Sequence[str]) -> dict[str, float]:
    """Method → the mean area under the deletion curve."""
    gradients, rng = Gradients(folder), np.random.default_rng(0)
    pipe = gradients.pipe
    areas: dict[str, list[float]] = {method: [] for method in METHODS}
    for text in texts:
        for method in METHODS:
            [found] = pipe(text, explain="occlusion" if method == "occlusion" else "shapley")
            words = found["words"]
            values = np.array([word["score"] for word in words])
            if method == "integrated gradients":
                values = gradients(text, words, found["label"])
            order = rng.permutation(len(words)) if method == "random" else np.argsort(-values, kind="stable")
            areas[method].append(area(pipe, text, words, found["label"], order))
    return {method: float(np.mean(found)) for method, found in areas.items()}


def seconds(count: int = 32, repeats: int = 5) -> dict[str, float]:
    """Method → the least seconds for a text of so many words, with the bundled model."""
    pipe = pipeline("text-classification")
    sentence = "the film is great but its end is a little too long for me and all others who saw it "
    text = " ".join((sentence * count).split()[:count])
    least = {}
    for method in ("shapley", "occlusion"):
        pipe(text, explain=method)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            pipe(text, explain=method)
            times.append(time.perf_counter() - start)
        least[method] = min(times)
    return least


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a classifier in fp32")
    parser.add_argument("dev", type=Path, help="SST-2's dev.tsv")
    parser.add_argument("--count", type=int, default=200, help="sentences, from the first one on")
    chosen = parser.parse_args()
    for method, least in seconds().items():
        print(f"{method}, 32 words: {least:.3f} s")
    rows = [line.split("\t")[0] for line in chosen.dev.read_text(encoding="utf-8").splitlines()[1 : chosen.count + 1]]
    for method, found in compare(chosen.model, rows).items():
        print(f"{method}: area {found:.4f}")


if __name__ == "__main__":
    main()
