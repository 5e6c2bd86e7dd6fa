"""The figures of a model of sentiment with three labels, on texts that are positive or negative.

    python runs/sentiment_figures.py MODEL FILE...

Each FILE is a table that `pocketbert classify` reads, with the columns text (or sentence) and label: those that
`runs/sentiment_texts.py` writes, or dev.tsv of SST-2. A text is answered by the sign of positive minus negative; its
probability is that of the two alone. Texts that are labelled neutral are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pocketbert import pipeline
from pocketbert.data.tables import read_table
from pocketbert.metrics import calibration_error

POSITIVE = {"positive": True, "1": True, "negative": False, "0": False}


def main() -> None:
    """Print a line per file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    classify = pipeline("text-classification", options.model, top_k=None, windows=True)
    for path in options.files:
        examples = [one for one in read_table(path).examples if str(one.label) in POSITIVE]
        answers = classify([one.text for one in examples])
        scores = [{one["label"]: one["score"] for one in answer} for answer in answers]
        positive = np.array([one["positive"] / (one["positive"] + one["negative"]) for one in scores])
        neutral = np.mean([one.get("neutral", 0.0) > max(one["positive"], one["negative"]) for one in scores])
        right = (positive > 0.5) == np.array([POSITIVE[str(one.label)] for one in examples])
        error = calibration_error(np.maximum(positive, 1 - positive), right)
        print(
            f"{path.name}: {len(examples):,} texts, accuracy {right.mean():.1%}, calibration error {error:.3f}, "
            f"neutral first {neutral:.1%}"
        )


if __name__ == "__main__":
    main()
