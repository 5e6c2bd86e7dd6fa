"""Latency of the bundled model: one sentence in, one label out, in a process that has loaded the model.

    python benchmarks/bundled.py SENTENCES

SENTENCES is a file with one sentence per line; the first 256 are classified one by one, then all in one call. Median
and 99th percentile of single sentences, median of the whole call. Writes results/bundled_<machine>_<date>.csv.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from common import write_results

from pocketbert import pipeline
from pocketbert.runtime.engine import backend

ROUNDS = 5


def main() -> None:
    texts = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()[:256]
    classify = pipeline("text-classification")
    classify(texts)
    alone, together = [], []
    for _ in range(ROUNDS):
        for text in texts:
            begun = time.perf_counter()
            classify(text)
            alone.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        classify(texts)
        together.append(time.perf_counter() - begun)
    kernels, threads, _ = backend()
    row = {
        "kernels": kernels, "threads": threads, "texts": len(texts),
        "words per text": round(float(np.mean([len(text.split()) for text in texts])), 1),
        "ms per text alone, median": round(1e3 * float(np.median(alone)), 2),
        "ms per text alone, p99": round(1e3 * float(np.quantile(alone, 0.99)), 2),
        "texts per second in one call": round(len(texts) / float(np.median(together)), 1),
    }  # fmt: skip
    write_results("bundled", [row])


if __name__ == "__main__":
    main()
