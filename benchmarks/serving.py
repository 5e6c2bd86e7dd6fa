"""A service under load: PocketBERT beside FastAPI + transformers and FastAPI + ONNX Runtime, the same model, one run.

    POCKETBERT_DATA=… python benchmarks/serving.py MODELS [--seconds 5] [--no-peers]

The model is a classifier of SqueezeBERT's published size with random weights, which are as fast as trained ones; then
the bundled model, in our service alone. A request is a sentence of SST-2's dev set; a second process sends requests
at rising rates, at random times, whether or not earlier ones were completed (open loop). The rise ends where less
than 95 of 100 requests succeed or the 99th percentile exceeds a second.

Every service is first measured in the settings that a user would try, with 16 clients that send one request after the
other, and continues with the best: one process with two threads, or two processes with one, and for the peers one
process that computes two requests at a time. The load runs on the same processors as the service; its share of
processor time is in the results. ONNX Runtime runs the stock graph in fp32, whose int8 form it cannot load, and in
int8 the file of `pocketbert export`.

MODELS is a folder for the models and the peers' files, which a second run reuses. Needs the extras train, export
and bench, and transformers. Writes results/serving_….csv and .png (the load) and
results/serving-summary_….csv (comparison, overhead of HTTP, time until ready).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from common import end_when_told, keep_results, results_path, write_results
from load import Outcome, closed_loop, open_loop, post

from pocketbert.bench.measure import in_turn

HERE = Path(__file__).parent
SHAPE = "squeezebert-uncased"
PORT = 8471
RATES = (0.1, 0.2, 0.4, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3)  # of what the 16 clients got
FEWEST = 60  # requests at a rate: a percentile of less says little
LONGEST = 1000.0  # ms; a p99 beyond it ends the rise
LIMITS = (25, 50, 100, 200)  # ms of p99 at which throughput is compared
SETTINGS = ((1, 2, 1), (1, 1, 2), (2, 1, 1))  # processes, threads of an engine, requests that it computes at a time
PEERS = {
    "the better stock one": ("FastAPI + ONNX Runtime fp32", "FastAPI + transformers"),
    "ONNX Runtime with our own export": ("FastAPI + ONNX Runtime int8",),
}
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Candidate:
    """A service in some settings."""

    name: str
    settings: str
    command: tuple[str, ...]
    environment: dict[str, str]


# ── the model, in the form of each service ──


def make(folder: Path) -> tuple[Path, Path]:
    """The model in fp32 and int8, each with its ONNX file beside it."""
    import torch

    from pocketbert import AutoModelForSequenceClassification, AutoTokenizer
    from pocketbert.bundles import BUNDLED, SENTIMENT
    from pocketbert.configs import PRESETS
    from pocketbert.exporters.export import export
    from pocketbert.exporters.options import ExportOptions
    from pocketbert.runtime.quantized_folders import quantize_folder

    torch.manual_seed(0)
    fp32, int8, onnx = folder / "fp32", folder / "int8", folder / "onnx"
    if (int8 / "model.onnx").exists():
        return fp32, int8
    AutoModelForSequenceClassification.from_config(PRESETS[SHAPE]).save_pretrained(fp32)
    AutoTokenizer.from_pretrained(BUNDLED / SENTIMENT).save_pretrained(fp32)
    quantize_folder(fp32, int8)
    stock_export(fp32)
    export(ExportOptions(model=fp32, output=onnx, precisions=("int8",)))
    shutil.copy(next(onnx.rglob("*.onnx")), int8 / "model.onnx")
    return fp32, int8


def stock_export(folder: Path) -> None:
    """The ONNX graph of transformers' model. Its own int8 would not load: ONNX Runtime has no such convolution."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from pocketbert.bench.graphs import quiet

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits

    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.ones(2, 16, dtype=torch.long)
    with torch.inference_mode(), quiet():
        torch.onnx.export(
            Logits().eval(), (ids, ids, ids * 0), str(folder / "model.onnx"), input_names=names,
            output_names=["logits"], dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names},
            opset_version=17, dynamo=False,
        )  # fmt: skip


def ours(name: str, model: Path) -> list[Candidate]:
    command = (sys.executable, "-m", "pocketbert.cli", "serve", "--port", str(PORT), "--no-log", str(model))
    return [
        Candidate(name, f"{workers} process{'es' * (workers > 1)}", (*command, "--workers", str(workers)), {})
        for workers in (1, 2)
    ]


def peer(name: str, model: Path) -> list[Candidate]:
    return [
        Candidate(
            name,
            f"{workers} process{'es' * (workers > 1)}, {threads} thread{'s' * (threads > 1)}, {at_once} at once",
            (sys.executable, "-m", "uvicorn", "peer_service:app", "--app-dir", str(HERE), "--port", str(PORT),
             "--workers", str(workers), "--no-access-log", "--log-level", "error"),
            {"MODEL": str(model), "THREADS": str(threads), "AT_ONCE": str(at_once), "OMP_NUM_THREADS": str(threads)},
        )
        for workers, threads, at_once in SETTINGS
    ]  # fmt: skip


@contextlib.contextmanager
def running(candidate: Candidate) -> Iterator[None]:
    """A service that answers, and is gone afterwards with all its processes."""
    environment = {**os.environ, **candidate.environment}
    process = subprocess.Popen(candidate.command, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not _answers():
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{candidate.name} ({candidate.settings}) does not answer")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers() -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{PORT}/ready", timeout=5):
            return True
    except OSError:
        return False


# ── the load, in a process of its own ──


def at_rate(requests: Sequence[bytes], rate: float, seconds: float) -> Outcome:
    return open_loop(PORT, requests, rate, seconds)


def with_clients(requests: Sequence[bytes], clients: int, seconds: float) -> Outcome:
    """Each sentence in turn, over and over."""
    return closed_loop(PORT, (one for _ in range(10_000) for one in requests), clients, seconds)


class Load:
    """The process that generates load, and its requests."""

    def __init__(self, pool: Any, texts: Sequence[str], seconds: float) -> None:
        self.pool, self.seconds = pool, seconds
        self.requests = [post("/v1/classify", {"inputs": text}) for text in texts]

    def capacity(self, seconds: float) -> float:
        """Responses per second with 16 clients."""
        return float(self.pool.apply(with_clients, (self.requests, 16, seconds)).answered)

    def alone(self) -> float:
        """Median latency of one client, in milliseconds."""
        return float(self.pool.apply(with_clients, (self.requests, 1, 3.0)).ms(50))

    def rise(self, candidate: Candidate, capacity: float, rows: Rows) -> None:
        """Rates until it is too much, a row each, kept as it comes."""
        self.pool.apply(with_clients, (self.requests, 4, 1.0))  # warm
        for share in RATES:
            rate = share * capacity
            seconds = max(self.seconds, FEWEST / rate)
            found = self.pool.apply(at_rate, (self.requests, rate, seconds))
            p50, p95, p99 = (round(found.ms(percent), 2) for percent in (50, 95, 99))
            refused, count = found.statuses["429"], sum(found.statuses.values())
            rows.append(
                {
                    "service": candidate.name, "settings": candidate.settings, "rate": round(rate, 1),
                    "answered_per_second": round(found.answered, 1), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
                    "refused": refused, "failed": count - refused - found.statuses["200"],
                    "load_cpu": round(found.cpu, 3), "behind_ms": round(found.behind, 1),
                }
            )  # fmt: skip
            keep_results("serving", rows)
            say(f"  {rate:6.0f} per second: {found.answered:6.0f} answered, p50 {p50:.1f}, p99 {p99:.1f} ms")
            if found.statuses["200"] < 0.95 * count or p99 > LONGEST:
                break


def best(candidates: Sequence[Candidate], load: Load) -> tuple[Candidate, float]:
    """The settings with the highest throughput, and that."""
    found: dict[int, float] = {}
    for candidate in candidates:
        with running(candidate):
            load.capacity(0.7)  # warm
            found[id(candidate)] = load.capacity(2.5)
        say(f"{candidate.name}, {candidate.settings}: {found[id(candidate)]:.0f} per second")
    chosen = max(candidates, key=lambda one: found[id(one)])
    return chosen, found[id(chosen)]


# ── beside the load ──


def ready_seconds(rounds: int) -> float:
    """From the start of `pocketbert serve` until it has answered /ready; the median."""
    command = (sys.executable, "-m", "pocketbert.cli", "serve", "--port", str(PORT), "--no-log")
    taken = []
    for _ in range(rounds + 1):  # the first warms the disk
        begun = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert process.stderr is not None
        process.stderr.readline()  # the line that says that requests are answered
        assert _answers()
        taken.append(time.perf_counter() - begun)
        process.terminate()
        process.communicate()
    return statistics.median(taken[1:])


def bare(folder: Path, texts: Sequence[str]) -> tuple[float, float]:
    """The engine without HTTP: median latency of one text in milliseconds, and texts per second in one call."""
    from pocketbert import pipeline

    pipe = pipeline("text-classification", folder, top_k=None)
    some = iter(list(texts) * 4)
    alone = in_turn({"one": lambda: pipe(next(some))}, 400)["one"]
    pipe(list(texts))
    begun = time.perf_counter()
    pipe(list(texts))
    return 1000 * statistics.median(alone), len(texts) / (time.perf_counter() - begun)


def at_p99(rows: Sequence[dict[str, Any]], service: str, limit: float) -> float:
    """The highest rate of responses per second of a service with a p99 of at most `limit` ms."""
    fine = [row["answered_per_second"] for row in rows if row["service"] == service and row["p99_ms"] <= limit]
    return max(fine, default=0.0)


def sentences() -> list[str]:
    """SST-2's dev sentences in a fixed random order."""
    path = Path(os.environ["POCKETBERT_DATA"]) / "glue" / "SST-2" / "dev.tsv"
    with path.open(encoding="utf-8") as file:
        texts = [row[0] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]
    return [str(text) for text in np.random.default_rng(0).permutation(texts)]


def picture(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.8))
    for name in dict.fromkeys(row["service"] for row in rows):
        of = [row for row in rows if row["service"] == name and np.isfinite(row["p99_ms"])]
        rates = [row["answered_per_second"] for row in of]
        strong = name.startswith("PocketBERT")
        (line,) = axes.plot(
            rates, [row["p99_ms"] for row in of], marker="o", markersize=4, lw=2 if strong else 1.3, label=name
        )
        axes.plot(rates, [row["p50_ms"] for row in of], lw=1, ls=":", color=line.get_color())
    axes.set(xscale="log", yscale="log", xlabel="responses per second", ylabel="latency, ms")
    axes.set_title("One sentence per request, at rising rates: p99, and dotted p50", fontsize=11)
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=8.5)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(load: Load, folder: Path, texts: Sequence[str], peers: bool, rows: Rows, summary: Rows) -> None:
    """Fill the rows of both result files, which are written after every measurement."""
    from pocketbert.bundles import BUNDLED, SENTIMENT

    def note(what: str, value: float, unit: str, target: float | None = None, *, most: bool = True) -> None:
        verdict = "" if target is None else "reached" if (value <= target if most else value >= target) else "missed"
        row = {"measure": what, "value": round(value, 3), "unit": unit, "target": target or "", "verdict": verdict}
        summary.append(row)
        keep_results("serving-summary", summary)
        say(f"{what}: {value:.3f} {unit} {verdict}")

    note("start of `pocketbert serve` to ready, bundled model", ready_seconds(9), "s", 0.5)
    fp32, int8 = make(folder)
    services = [("SqueezeBERT", ours("PocketBERT int8", int8), int8)]
    if peers:
        services += [
            ("", ours("PocketBERT fp32", fp32), fp32),
            ("", peer("FastAPI + ONNX Runtime fp32", fp32 / "model.onnx"), fp32),
            ("", peer("FastAPI + ONNX Runtime int8", int8 / "model.onnx"), int8),
            ("", peer("FastAPI + transformers", fp32), fp32),
        ]
    services.append(("bundled model", ours("PocketBERT, the bundled model", BUNDLED / SENTIMENT), BUNDLED / SENTIMENT))
    for measured, candidates, model in services:
        chosen, capacity = best(candidates, load)
        say(f"{chosen.name}, {chosen.settings}")
        if measured:
            alone, together = bare(model, texts)
        with running(chosen):
            load.rise(chosen, capacity, rows)
            if measured:
                http = load.alone()
        if measured:
            note(f"{measured}: a text alone, in the process", alone, "ms")
            note(f"{measured}: a text alone, over HTTP", http, "ms")
            note(f"{measured}: all texts in one call, in the process", together, "texts/s")
            note(f"{measured}: 16 clients over HTTP, {chosen.settings}", capacity, "texts/s")
    for limit in LIMITS if peers else ():
        value = at_p99(rows, "PocketBERT int8", limit)
        note(f"responses per second at p99 ≤ {limit} ms, PocketBERT int8", value, "per second")
        for kind, others in PEERS.items():
            found = {name: at_p99(rows, name, limit) for name in others}
            name = max(found, key=found.__getitem__)
            note(f"… {name}", found[name], "per second")
            note(f"… ratio to {kind}", value / found[name] if found[name] else float("inf"), "", 4, most=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load at each rate (default: %(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="PocketBERT alone")
    options = parser.parse_args()
    end_when_told()
    texts = sentences()
    rows: Rows = []
    summary: Rows = []
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measure(Load(pool, texts, options.seconds), options.models, texts, not options.no_peers, rows, summary)
    finally:
        if rows:
            picture(rows, results_path("serving", ".png"))
            write_results("serving", rows)
            write_results("serving-summary", summary)


if __name__ == "__main__":
    main()
