"""Pairs of sentences from raw text with how alike a sentence encoder finds them: training data for readers of pairs.

    python runs/similar_pairs.py CORPUS ENCODER OUT.csv [--sentences N]

CORPUS has Parquet files with a column `text`, ENCODER is a sentence encoder (a folder or name). The score is five times
the cosine of the vectors, as STS-B's scores count from 0 to 5. Of every two sentences, one is paired with one of its
six nearest neighbours, which gives pairs of all degrees; for every five sentences there is a random pair, and for every
two a sentence with a copy in which words are left out, replaced or turned. A model is fine-tuned on them as on STS-B:

    pocketbert finetune OUT.csv --output pairs --epochs 1 --batch-size 64 --learning-rate 3e-4
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from random import Random

import numpy as np
from sentiment_texts import corpus_sentences

from pocketbert import SentenceTransformer
from pocketbert.checkpoints import atomic_write

SEED, NEIGHBOURS, MOST_WORDS = 3, 6, 28
MOST_CHANGED, LEFT_OUT, TURNED = 0.8, 0.4, 0.3  # of the words of a copy; of changed words; of the copies


def neighbours(vectors: np.ndarray, draw: Random) -> list[tuple[int, int]]:
    """Return pairs of numbers of vectors [sentences, width] of length 1: half of them, each with a near one."""
    pairs = []
    for start in range(0, len(vectors), 2000):
        cosines = vectors[start : start + 2000] @ vectors.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -1
        nearest = np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        pairs += [(start + row, int(draw.choice(list(nearest[row])))) for row in rows.tolist() if draw.random() < 0.5]
    return pairs


def changed(text: str, other: str, draw: Random) -> str:
    """Return a copy of a text in which words are left out, replaced by those of another text, or turned."""
    rate, words = draw.uniform(0, MOST_CHANGED), []
    for word in text.split():
        chance = draw.random()
        if chance >= rate * LEFT_OUT:
            words.append(draw.choice(other.split()) if chance < rate else word)
    if draw.random() < TURNED and len(words) > 4:
        cut = draw.randrange(1, len(words) - 1)
        words = words[cut:] + words[:cut]
    return " ".join(words) or text


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("encoder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sentences", type=int, default=50_000)
    options = parser.parse_args()
    draw = Random(SEED)
    found = (text for text in corpus_sentences(options.corpus, draw) if len(text.split()) <= MOST_WORDS)
    sentences = list(dict.fromkeys(found))[: options.sentences]
    encoder = SentenceTransformer(options.encoder)
    vectors = np.asarray(encoder.encode(sentences, normalize_embeddings=True))
    pairs = [(sentences[i], sentences[j]) for i, j in neighbours(vectors, draw)]
    pairs += [(draw.choice(sentences), draw.choice(sentences)) for _ in range(len(sentences) // 5)]
    originals = [draw.choice(sentences) for _ in range(len(sentences) // 2)]
    pairs += [(text, changed(text, draw.choice(sentences), draw)) for text in originals]
    draw.shuffle(pairs)
    sides = [np.asarray(encoder.encode(list(side), normalize_embeddings=True)) for side in zip(*pairs, strict=True)]
    scores = 5 * (sides[0] * sides[1]).sum(axis=1)
    with atomic_write(options.out, "w") as file:
        rows = csv.writer(file)
        rows.writerow(("text1", "text2", "score"))
        rows.writerows((*pair, f"{score:.3f}") for pair, score in zip(pairs, scores, strict=True))
    shown = ", ".join(f"{score:.2f}" for score in np.percentile(scores, (5, 25, 50, 75, 95)))
    print(f"{options.out}: {len(pairs):,} pairs; scores at 5, 25, 50, 75 and 95 %: {shown}")


if __name__ == "__main__":
    main()
