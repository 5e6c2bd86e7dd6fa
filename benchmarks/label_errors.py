"""`pocketbert check` on labels that are known to be wrong: SST-2 with flipped ones, split by sentence.

    python benchmarks/label_errors.py glue/SST-2/train.tsv [--rows 10000] [--share 0.05] [--model NAME]

Rows are drawn from the training sentences, each of which stands there once (phrases of a sentence are left out). A
share of the labels is flipped. Of as many rows as were flipped, those that `check` names first, it prints how many are
flipped ones, and the seconds that the whole check took.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np

from pocketbert.bundles import ENCODER
from pocketbert.checks.check import check
from pocketbert.checks.options import CheckOptions


def sentences(path: Path, rows: int, seed: int) -> list[tuple[str, str]]:
    """Texts with labels, none of which is part of another one that was drawn before."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    order = np.random.default_rng(seed).permutation(len(lines))
    # The longest phrase of a sentence stands for it: of the training file's phrases most are parts of others.
    chosen: list[tuple[str, str]] = []
    seen: set[str] = set()
    for i in sorted(order[: 6 * rows], key=lambda i: -len(lines[i][0])):
        text, label = lines[i][0].strip(), lines[i][1]
        words = text.split()
        key = " ".join(words)
        if key in seen or len(words) < 4:
            continue
        seen |= {" ".join(words[a:b]) for a in range(len(words)) for b in range(a + 4, len(words) + 1)}
        chosen.append((text, label))
    order = np.random.default_rng(seed + 1).permutation(len(chosen))
    return [chosen[i] for i in order[:rows]]


def main() -> None:
    """Flip, check, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="SST-2's train.tsv")
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are flipped")
    parser.add_argument("--model", default=ENCODER)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rows = sentences(chosen.train, chosen.rows, chosen.seed)
    count = round(chosen.share * len(rows))
    flipped = set(np.random.default_rng(chosen.seed + 2).permutation(len(rows))[:count].tolist())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flipped.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for i, (text, label) in enumerate(rows):
                writer.writerow([text, ("negative", "positive")[int(label) ^ (i in flipped)]])
        start = time.perf_counter()
        result = check(CheckOptions(data=path, model=chosen.model))
        seconds = time.perf_counter() - start
    named = [finding.line - 2 for finding in result.findings if finding.kind == "label"]
    hits = sum(row in flipped for row in named[:count])
    print(f"{len(rows):,} rows, {count} flipped; {len(named)} labels named; {seconds:.1f} s")
    print(f"of the first {count}: {hits / count:.1%} are flipped")
    print({kind: n for kind, n in result.counts().items()})


if __name__ == "__main__":
    main()
