"""Calibration and conformal sets on held-out halves of GLUE's tables, with heads on frozen vectors.

    python benchmarks/calibration.py glue [--tasks SST-2,CoLA,QNLI] [--rows 4500] [--model NAME]

Of each table a third fits a head, a third the temperature and the thresholds, and a third is the test, in 20 random
splits. Prints the calibration error of the test third before and after, that of perfect probabilities in 95 % of such
tests, and how often sets for 90 % hold the right label, with their mean size. The head is fitted with the weakest
regularisation, so that it is too sure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pocketbert.bundles import ENCODER
from pocketbert.calibration import calibrate, chance_error, judged
from pocketbert.data.glue import glue_task, read_glue
from pocketbert.decisions import Rule, probabilities_of_coverages
from pocketbert.decode import softmax
from pocketbert.frozen.encoder import FrozenEncoder
from pocketbert.frozen.linear import CLASSES, STRENGTHS, fit_head
from pocketbert.metrics import calibration_error

SPLITS = 20


def main() -> None:
    """Print a line for each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glue", type=Path, help="folder of GLUE's tasks")
    parser.add_argument("--tasks", default="SST-2,CoLA,QNLI")
    parser.add_argument("--rows", type=int, default=4500)
    parser.add_argument("--model", default=ENCODER)
    chosen = parser.parse_args()
    encoder = FrozenEncoder(chosen.model)
    for task in chosen.tasks.split(","):
        name = task.lower()
        part = "dev" if name == "qnli" else "train"  # of which there is no training set without a download
        table = next(iter(read_glue(chosen.glue / task, name, part).values()))
        gold = glue_task(name).labels.encode(table)
        rows = np.random.default_rng(0).permutation(len(gold))[: chosen.rows]
        some = [table.examples[i] for i in rows]
        pairs = None if some[0].text_pair is None else [one.text_pair or "" for one in some]
        vectors, gold = encoder.vectors([one.text for one in some], pairs), gold[rows]
        before, after, chance = list[float](), list[float](), list[float]()
        covered, sizes = list[float](), list[float]()
        for split in range(SPLITS):
            fit, tune, test = np.array_split(np.random.default_rng(split).permutation(len(gold)), 3)
            head = fit_head(vectors[fit], gold[fit], CLASSES, 2, strength=STRENGTHS[-1])
            found = calibrate(head.logits(vectors[tune]), gold[tune])
            logits = head.logits(vectors[test])
            for errors, divided in ((before, logits), (after, logits / found.temperatures[0])):
                _, confidence, right = judged(divided, gold[test])
                errors.append(calibration_error(confidence, right))
            chance.append(chance_error(confidence))
            tuned = softmax(head.logits(vectors[tune]) / found.temperatures[0])
            rule = Rule(member=probabilities_of_coverages(tuned, gold[tune])["0.9"])
            names = {0: "0", 1: "1"}
            sets = [rule(shares, names) for shares in softmax(logits / found.temperatures[0])]
            pairs_of = zip(sets, gold[test], strict=True)
            covered.append(float(np.mean([str(label) in {one["label"] for one in given} for given, label in pairs_of])))
            sizes.append(float(np.mean([len(given) for given in sets])))
        accuracy = np.mean(logits.argmax(axis=1) == gold[test])
        print(
            f"{task}: {len(test):,} to test, accuracy {accuracy:.3f}; calibration error {np.mean(before):.3f} before, "
            f"{np.mean(after):.3f} after (largest {max(after):.3f}, chance {np.mean(chance):.3f}); "
            f"sets for 90 % cover {np.mean(covered):.3f}, mean size {np.mean(sizes):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
