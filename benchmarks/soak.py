"""Reliability of the service: memory over many requests, shutdown under load. For overload see overload.py.

    python benchmarks/soak.py MODELS [--requests 200000] [--reloads 10]

MODELS is a folder for tiny models of every task (benchmarks/every_task.py), served beside the bundled one.

1. Requests of random tasks and lengths, from 16 clients that send one after the other, while the service reloads all
   models ten times: each must succeed with 200, and memory must not grow by more than a hundredth after the first
   fifth of them, which includes the first reload. While two sets of models are in memory it is not looked at.
2. SIGTERM at four fifths of its capacity: every request that the service accepted, by its own log, must be completed,
   and the process must end with status 0.

Writes results/soak_….csv, soak-memory_….csv and soak_….png (memory) during the run, so that an interrupted run keeps
its results; the exit status is 1 where a condition fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import end_when_told, keep_results, results_path, write_results
from every_task import as_served
from load import Outcome, closed_loop, open_loop, post, service
from rich.progress import track

from pocketbert.bundles import BUNDLED, SENTIMENT

WORDS = ("a", "the", "of", "film", "is", "never", "dull", "unforgettable", "story", "7", ",", ".", "naïve", "été", "🙂")
LENGTHS = (1, 3, 8, 15, 20, 25, 40, 80) * 3 + (600,)  # words; the last is cut to what the model reads
LONG = 0.01  # the share of requests with many texts
GROWTH = 0.01
PATIENT = "240"  # seconds: what a slow machine refuses is a matter of overload.py
Memory = list[tuple[int, float]]  # after so many requests, so many MB


# ── the service ──


def megabytes(process: int) -> float:
    """What a process occupies."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


# ── requests ──


def anything(draws: random.Random) -> bytes:
    """A request of a random task, with texts of random lengths."""

    def text() -> str:
        return " ".join(draws.choices(WORDS, k=draws.choice(LENGTHS)))

    def some() -> Any:
        count = draws.choice((1, 1, 1, 1, 2, 5)) if draws.random() > LONG else 60
        return [text() for _ in range(count)] if count > 1 else text()

    task = draws.choice(
        ("bundled", "classify", "nli", "tag", "answer", "fill-mask", "choose", "embed", "openai", "hub")
    )
    if task == "bundled":
        return post("/v1/classify", {"inputs": some(), "model": SENTIMENT})
    if task == "nli":
        return post("/v1/classify", {"inputs": text(), "model": "nli", "labels": ["a film", "a train"]})
    if task == "answer":
        return post("/v1/answer", {"inputs": {"question": "how is the film ?", "context": text()}, "top_k": 2})
    if task == "fill-mask":
        return post("/v1/fill-mask", {"inputs": f"the [MASK] {text()}"})
    if task == "choose":
        return post("/v1/choose", {"inputs": {"prompt": text(), "choices": [text(), text()]}})
    if task == "openai":
        return post("/v1/embeddings", {"input": some(), "model": "embed"})
    if task == "hub":
        return post("/models/tag", {"inputs": text(), "parameters": {"aggregation_strategy": "max"}})
    return post(f"/v1/{task}", {"inputs": some(), "model": task})


def a_text(draws: random.Random) -> bytes:
    return post("/v1/classify", {"inputs": " ".join(draws.choices(WORDS, k=20))})


# ── the parts ──


def soak(port: int, process: int, log: Path, count: int, reloads: int) -> tuple[Outcome, Memory, int]:
    """All the requests, and how often the service reloaded; the memory a hundred times, which is kept as it comes."""
    draws, memory = random.Random(0), Memory()
    starts = {round((number + 0.5) * count / reloads) for number in range(reloads)}

    def reloaded() -> int:
        return log.read_text(encoding="utf-8").count("reloaded in")

    def look(number: int) -> None:
        if reloaded() < sum(start < number for start in starts) or any(0 <= number - s < count / 50 for s in starts):
            return  # two sets of models are in memory, or have just been
        memory.append((number, megabytes(process)))
        keep_results("soak-memory", [{"requests": n, "memory_mb": round(size, 2)} for n, size in memory])

    def requests() -> Iterator[bytes]:
        for number in track(range(count), "asking"):
            if number in starts:
                os.kill(process, signal.SIGHUP)
            if number % max(1, count // 100) == 0:
                look(number)
            yield anything(draws)

    found = closed_loop(port, requests(), 16)
    look(count)
    return found, memory, reloaded()


def stopped(process: subprocess.Popen[bytes], port: int, log: Path, rate: float) -> tuple[Counter[str], Counter[str]]:
    """SIGTERM under load: what the client got, and what the log says."""
    draws = random.Random(2)
    some = [a_text(draws) for _ in range(2000)]

    threading.Timer(1.5, process.send_signal, [signal.SIGTERM]).start()
    found = open_loop(port, some, rate, 3.0)
    process.wait(60)
    lines = log.read_text(encoding="utf-8").splitlines()
    return found.statuses, Counter(str(json.loads(line)["status"]) for line in lines if line.startswith("{"))


def picture(memory: Memory, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3))
    axes.plot([count / 1000 for count, _ in memory], [size for _, size in memory])
    axes.set(xlabel="thousands of requests, of all tasks and lengths", ylabel="MB", ylim=(0, None))
    axes.set_title("Memory of the service", fontsize=11)
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--requests", type=int, default=200_000, help="of the first part (default: %(default)s)")
    parser.add_argument("--reloads", type=int, default=10, help="during the first part (default: %(default)s)")
    options = parser.parse_args()
    end_when_told()
    rows: list[dict[str, Any]] = []

    def note(what: str, value: Any, holds: bool | None = None) -> None:
        verdict = {None: "", True: "holds", False: "DOES NOT HOLD"}[holds]
        rows.append({"measure": what, "value": value, "verdict": verdict})
        keep_results("soak", rows)
        print(f"{what}: {value} {verdict}", file=sys.stderr, flush=True)

    models = (str(BUNDLED / SENTIMENT), *as_served(options.models))
    with service("--no-log", "--max-wait", PATIENT, "--max-time", PATIENT, *models) as (process, port, log):
        found, memory, reloads = soak(port, process.pid, log, options.requests, options.reloads)
    note("requests", options.requests)
    note("requests per second, 16 clients", round(found.answered, 1))
    note("reloads", reloads, reloads == options.reloads)
    note("statuses", dict(found.statuses), set(found.statuses) == {"200"})
    early = max(size for count, size in memory if count <= options.requests / 5)
    late = max(size for _, size in memory)
    for share in range(0, 100, 10):
        size = next(size for count, size in memory if count >= share / 100 * options.requests)
        note(f"memory after {share} %, MB", round(size, 1))
    note("memory at most, MB, in the first fifth", round(early, 1))
    note("memory at most, MB, in all", round(late, 1), late <= (1 + GROWTH) * early)
    picture(memory, results_path("soak", ".png"))

    with service("--no-log", str(BUNDLED / SENTIMENT)) as (_, port, _):
        draws = random.Random(1)
        capacity = closed_loop(port, [a_text(draws) for _ in range(2000)] * 50, 16, 3.0).answered
    with service(str(BUNDLED / SENTIMENT)) as (process, port, log):
        got, logged = stopped(process, port, log, 0.8 * capacity)
    note("SIGTERM: what the client got", dict(got))
    note("SIGTERM: what the service's log says", dict(logged), all(got[status] == n for status, n in logged.items()))
    note("SIGTERM: requests cut", got["cut"] + got["late"], not got["cut"] + got["late"])
    note("SIGTERM: exit status", process.returncode, process.returncode == 0)
    write_results("soak", rows)
    sys.exit(any(row["verdict"].isupper() for row in rows))


if __name__ == "__main__":
    main()
