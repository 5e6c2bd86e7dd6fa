"""Our engine beside every installed engine, in one run, and the ratios beside their targets.

    python benchmarks/engines.py EXPORTS [--data FOLDER] [--seconds 2 | --quick]

EXPORTS is a folder for the other engines' files, which a second run reuses. With --data (or POCKETBERT_DATA), a
folder with glue/SST-2, glue/MRPC and vocab/bert-base-uncased.txt, the true lengths of both dev sets are measured too.
The peers: pip install torch transformers onnx onnxruntime openvino nncf; and matplotlib for the picture.

Writes results/engines_<machine>_<date>.csv, .json and .png. Takes about ten minutes with the exports made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from common import RESULTS, results_path, write_results
from rich.console import Console
from rich.table import Table

from pocketbert import BertTokenizer
from pocketbert.bench.measure import Bench
from pocketbert.bench.peers import OURS, Peer, Shape
from pocketbert.bench.picture import draw
from pocketbert.bench.report import Report
from pocketbert.bench.subjects import PUBLISHED, published
from pocketbert.checkpoints.files import write_text
from pocketbert.data.glue import read_glue
from pocketbert.features import Features, encode_texts

SHAPES = ((1, 32), (1, 128), (1, 384), (8, 128))
BATCHES = (2, 4, 16)  # besides, at length 128 and with the leaders only, for the picture
ANY = ("fp32", "bf16", "int8")


def sentences(data: Path) -> dict[str, list[Features]]:
    """The sentences of SST-2 dev and MRPC dev in the order of the files, both of each pair, encoded for BERT."""
    vocabulary = next(path for path in sorted((data / "vocab").rglob("*.txt")) if "uncased" in str(path))
    tokenizer = BertTokenizer(vocab_file=str(vocabulary), do_lower_case=True)
    found = {}
    for task in ("sst-2", "mrpc"):
        examples = read_glue(data / "glue" / task.upper(), task, "dev")["dev"].examples
        texts = [text for e in examples for text in (e.text, e.text_pair) if text]
        found[task] = list(encode_texts(tokenizer, texts, max_length=512))
    return found


def leaders(report: Report, model: str, ready: list[Peer]) -> list[Peer]:
    """Ours in int8, and the best peer at each shape of length 128."""
    best = {row.engine for shape in ((1, 128), (8, 128)) if (row := report.best(model, shape, ours=False))}
    return [OURS[0], *(peer for peer in ready if peer.name in best)]


# ── targets ──


Target = tuple[str, str, str, str, float, float]  # measure, ours, best peer, its figure, ratio, target


def targets(report: Report) -> list[Target]:
    """Every target of speed, with the ratio that was measured."""
    results = []
    for model, target in (("SqueezeBERT", 2.3), ("MobileBERT", 1.8), ("BERT-base", 1.2)):
        results.append(_against(report, f"{model} int8 1×128", model, (1, 128), model, "int8", ANY, target))
    for model, paper in (("SqueezeBERT", "4.3"), ("MobileBERT", "5.5")):
        what = f"{model} int8 1×128 over BERT-base int8: the paper's {paper}"
        results.append(_against(report, what, model, (1, 128), "BERT-base", "int8", ("int8",), 2.8))
    for shape in ((1, 32), (1, 384), (8, 128)):
        for model in PUBLISHED:
            what = f"{model} int8 {shape[0]}×{shape[1]}"
            results.append(_against(report, what, model, shape, model, "int8", ANY, 1.0))
    results.append(
        _against(report, "SqueezeBERT fp32 1×128", "SqueezeBERT", (1, 128), "SqueezeBERT", "fp32", ("fp32",), 1.2)
    )
    return [*(one for one in results if one is not None), *_text_targets(report), *_share_target(report)]


def _against(
    report: Report, what: str, model: str, shape: Shape, peers_model: str, precision: str,
    allowed: tuple[str, ...], target: float,
) -> Target | None:  # fmt: skip
    ours = report.best(model, shape, ours=True, precisions=(precision,))
    theirs = report.best(peers_model, shape, ours=False, precisions=allowed)
    if ours is None or theirs is None:
        return None
    return (
        what,
        f"{ours.median_ms:.2f} ms",
        theirs.engine,
        f"{theirs.median_ms:.2f} ms",
        theirs.median_ms / ours.median_ms,
        target,
    )


def _text_targets(report: Report) -> list[Target]:
    results = []
    for source, model in dict.fromkeys((row.source, row.model) for row in report.texts):
        rows = [row for row in report.texts if (row.source, row.model) == (source, model)]
        ours = max((r for r in rows if r.ours and r.precision == "int8"), key=lambda r: r.tokens_per_second)
        theirs = max((r for r in rows if not r.ours), key=lambda r: r.tokens_per_second, default=None)
        if theirs is not None:
            peer = f"{theirs.engine}, {theirs.batch} at a time"
            numbers = f"{ours.tokens_per_second:,.0f} tokens/s", peer, f"{theirs.tokens_per_second:,.0f} tokens/s"
            results.append(
                (f"{model} int8, {source}", *numbers, ours.tokens_per_second / theirs.tokens_per_second, 3.0)
            )
    return results


def _share_target(report: Report) -> list[Target]:
    row = report.best("SqueezeBERT", (8, 128), ours=True, precisions=("int8",))
    share = None if row is None else report.share(row)
    if row is None or share is None:
        return []
    limit = f"{report.roofline['int8'] / 1e9:,.0f} GOP/s"
    return [("share of the int8 limit, SqueezeBERT 8×128", f"{row.least_ms:.2f} ms", "the limit", limit, share, 0.5)]


def show(report: Report) -> list[dict[str, object]]:
    """Print the table; return its rows."""
    table = Table("measure", "PocketBERT", "best other", "its figure", "ratio", "target", "", title="targets")
    rows: list[dict[str, object]] = []
    for what, ours, peer, theirs, ratio, target in targets(report):
        reached = ratio >= target
        table.add_row(what, ours, peer, theirs, f"{ratio:.2f}", f"≥ {target:g}", "reached" if reached else "missed")
        rows.append({"measure": what, "ours": ours, "peer": peer, "theirs": theirs, "ratio": round(ratio, 3),
                     "target": target, "reached": reached})  # fmt: skip
    Console(width=170).print(table)
    for name, reason in report.missing.items():
        print(f"without {name}: {reason}")
    print(f"disturbed: {len(report.disturbed)} of {len(report.shapes)} rows")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("POCKETBERT_DATA"))
    parser.add_argument("--quick", action="store_true", help="without engines that need an export, and briefly")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per engine, model and shape")
    arguments = parser.parse_args()
    texts = sentences(Path(arguments.data)) if arguments.data else {}
    arguments.exports.mkdir(parents=True, exist_ok=True)

    seconds = 0.1 if arguments.quick else arguments.seconds
    with Bench(arguments.exports, quick=arguments.quick, log=lambda step: print(step, file=sys.stderr)) as bench:
        for name in PUBLISHED:
            subject = published(name)
            ready = bench.prepare(subject)
            for shape in SHAPES:
                bench.shape(subject, ready, shape, seconds)
            for batch in BATCHES:
                bench.shape(subject, leaders(bench.report, name, ready), (batch, 128), seconds)
            for task, inputs in texts.items():
                bench.texts(subject, fast_peers(bench.report, name, ready), inputs, f"{task} dev")
    bench.report.complete = True
    reached = show(bench.report)
    draw(bench.report, results_path("engines", ".png"))
    whole = json.dumps({**bench.report.as_dict(), "bars": reached}, indent=1)
    write_text(results_path("engines", ".json"), whole + "\n")
    write_results("engines", bench.report.rows())
    print(f"written: {RESULTS.name}/{results_path('engines', '.*').name}")


def fast_peers(report: Report, model: str, ready: list[Peer]) -> list[Peer]:
    """Ours, and the five peers that were fastest at 1×32 and 8×128: the others need not be tried on texts."""
    times = {
        row.engine: row.median_ms * 8 + other.median_ms
        for row in report.shapes if row.model == model and (row.batch, row.length) == (1, 32)
        for other in report.shapes
        if other.model == model and (other.batch, other.length) == (8, 128) and other.engine == row.engine
    }  # fmt: skip
    fast = sorted((peer for peer in ready if peer not in OURS and peer.name in times), key=lambda p: times[p.name])
    return [*OURS, *fast[:5]]


if __name__ == "__main__":
    main()
