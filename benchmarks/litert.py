"""LiteRT files in LiteRT's interpreter with XNNPACK beside our engine, two threads, in turns.

    python benchmarks/litert.py                 # a table, and benchmarks/results/litert_….csv
    python benchmarks/litert.py --seconds 1     # a quick look

SqueezeBERT and MobileBERT in their published sizes with random weights, 1×128, every token real. The files are those
that `pocketbert export --format litert` makes of the same plan.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import write_results

from pocketbert.bench.measure import in_turn, random_batch
from pocketbert.bench.subjects import Subject, published
from pocketbert.exporters.litert.predictor import LiteRtPredictor
from pocketbert.exporters.litert.writer import convert
from pocketbert.runtime.engine import Engine

LENGTH = 128
PRECISIONS = ("fp32", "int8")


def loaded(subject: Subject, precision: str, folder: Path) -> LiteRtPredictor:
    """The file of the encoder, which is made if it does not exist."""
    path = folder / f"{subject.name}-{precision}.tflite"
    if not path.exists():
        path.write_bytes(convert(subject.plan, LENGTH, precision))
    return LiteRtPredictor(path, threads=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each model, after the files are made")
    parser.add_argument("--files", type=Path, help="a folder to keep the files in")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.files or Path(temporary)
        for name in ("SqueezeBERT", "MobileBERT"):
            subject = published(name)
            batch = random_batch(subject, (1, LENGTH))
            runs: dict[str, Callable[[], object]] = {}
            for precision in PRECISIONS:
                runs[f"LiteRT {precision}"] = partial(loaded(subject, precision, folder).run, batch)
            runs["PocketBERT fp32"] = partial(Engine(subject.plan, threads=2), batch)
            runs["PocketBERT int8"] = partial(Engine(subject.int8_plan, threads=2), batch)
            for engine, taken in in_turn(runs, 200, given.seconds).items():
                ms = 1e3 * statistics.median(taken)
                rows.append(
                    {"model": name, "engine": engine, "batch": 1, "length": LENGTH, "ms": round(ms, 2),
                     "rounds": len(taken)}
                )  # fmt: skip
                print(f"{name:12} {engine:16} {ms:7.2f} ms", flush=True)
    write_results("litert", rows)


if __name__ == "__main__":
    main()
