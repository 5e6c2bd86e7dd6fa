"""Our ONNX files beside the stock exports of the same weights, in ONNX Runtime, in turns.

    python benchmarks/exports.py                # a table, and benchmarks/results/exports_….csv
    python benchmarks/exports.py --seconds 3    # a quick look

SqueezeBERT and MobileBERT in their published sizes with random weights, 1×32, 1×128 and 8×128. Stock files are what
transformers gives by `torch.onnx.export`, in int8 after ONNX Runtime's own dynamic quantisation. There, SqueezeBERT's
convolutions stay in fp32, because ONNX Runtime refuses to load them in int8; and MobileBERT's residual stream is
rounded, which with published weights costs its accuracy, while ours keeps fp32 where that stream is read.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from common import write_results

from pocketbert.bench.measure import in_turn, random_batch
from pocketbert.bench.peers import OnnxRuntime
from pocketbert.bench.subjects import Subject, published
from pocketbert.export.onnx_files import OnnxPredictor
from pocketbert.export.onnx_graph import onnx_graph

BARS = {
    ("SqueezeBERT", "fp32"): 2.0,
    ("SqueezeBERT", "int8"): 6.0,
    ("MobileBERT", "fp32"): 1.3,
    ("MobileBERT", "int8"): 1.3,
}
SHAPES = ((1, 32), (1, 128), (8, 128))


def files(subject: Subject, precision: str, folder: Path) -> dict[str, Path]:
    """The stock file and ours."""
    stock = OnnxRuntime("int8" if precision == "int8" else "fp32")
    stock.prepare(subject, folder)
    ours = folder / f"{subject.name}-{precision}.onnx"
    ours.write_bytes(onnx_graph(subject.int8_plan if precision == "int8" else subject.plan).SerializeToString())
    return {"stock": stock.file(subject, folder), "ours": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="for a model, precision and shape")
    parser.add_argument("--models", nargs="+", default=["SqueezeBERT", "MobileBERT"])
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        for (name, precision), bar in BARS.items():
            if name not in given.models:
                continue
            subject = published(name)
            paths = files(subject, precision, Path(temporary))
            loaded = {which: OnnxPredictor(path) for which, path in paths.items()}
            for batch, length in SHAPES:
                inputs = random_batch(subject, (batch, length))
                calls = {which: lambda one=one, x=inputs: one.run(x) for which, one in loaded.items()}
                times = in_turn(calls, 200, given.seconds)
                ms = {which: 1e3 * statistics.median(taken) for which, taken in times.items()}
                stock, ours = ms["stock"], ms["ours"]
                rows.append(
                    {"model": name, "precision": precision, "batch": batch, "length": length,
                     "stock_ms": round(stock, 2), "ours_ms": round(ours, 2), "times": round(stock / ours, 2),
                     "bar": bar, "rounds": len(times["ours"])}
                )  # fmt: skip
                print(
                    f"{name:12} {precision} {batch}×{length:<4} stock {stock:8.2f} ms   ours {ours:8.2f} ms", flush=True
                )
    write_results("exports", rows)


if __name__ == "__main__":
    main()
