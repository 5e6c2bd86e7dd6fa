"""What a service does with more requests than it can answer: accepted per second and p99 at multiples of its capacity.

    python benchmarks/overload.py [--model MODEL] [--seconds 60] [--workers 1 2]

A second process sends texts of 20 words at random times, whether or not earlier ones were answered (open loop), over
256 connections. The capacity is the highest rate at which nothing is refused and p99 is at most 100 ms: found by
halving in shorter runs, then confirmed at full length. At each multiple of it p99 counts the responses with status 200,
from the moment at which their request was to be sent; "behind" is the p99 of the time by which the load itself was
late. The load shares the processors with the service; its share of a processor is in the results.

Lasting overload may cost the accepted at most half more than full load (p99), and a tenth of the capacity; and a burst
of a quarter of a second's work, sent at once to a service at rest, is taken whole. Writes results/overload_….csv and
.png; the exit status is 1 where this does not hold.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from common import end_when_told, keep_results, results_path, write_results
from load import Outcome, at_once, closed_loop, open_loop, post, service

from pocketbert.bundles import BUNDLED, SENTIMENT

WORDS = ("a", "the", "of", "film", "is", "never", "dull", "unforgettable", "story", "7", ",", ".", "naïve", "été", "🙂")
P99 = 100.0  # ms, of full load
STEPS = 6  # of the search for the capacity
MULTIPLES = (0.5, 1.0, 1.5, 2.0, 3.0, 0.5)  # of the capacity; the last shows whether the overload is over
WORSE, LOST = 1.5, 0.1  # at most: p99 over that at full load; share of the capacity
BURST = 0.25  # seconds of work
Rows = list[dict[str, Any]]


class Load:
    """Requests to a service."""

    def __init__(self, port: int) -> None:
        draws = random.Random(1)
        texts = (" ".join(draws.choices(WORDS, k=20)) for _ in range(2000))
        self.port, self.requests = port, [post("/v1/classify", {"inputs": text}) for text in texts]

    def at(self, rate: float, seconds: float) -> Outcome:
        """An open loop of so many per second."""
        return open_loop(self.port, self.requests, rate, seconds)

    def most(self) -> float:
        """Responses per second with 16 clients."""
        return closed_loop(self.port, self.requests * 100, 16, 3.0).answered

    def burst(self, count: int) -> Outcome:
        """So many at once."""
        return at_once(self.port, (self.requests * 2)[:count])

    def capacity(self, seconds: float) -> tuple[float, Outcome]:
        """The highest rate at which nothing is refused and p99 is within its limit, and what was found at it."""
        self.most()  # warm
        fine, too_much = 0.0, 1.1 * self.most()
        for _ in range(STEPS):
            rate = (fine + too_much) / 2 if fine else 0.7 * too_much
            fine, too_much = (rate, too_much) if is_fine(self.at(rate, seconds / 8)) else (fine, rate)
            say(f"  capacity: {fine:.0f} to {too_much:.0f} per second")
        while fine and not is_fine(found := self.at(fine, seconds)):
            fine *= 0.95
            say(f"  capacity at full length: less than {fine / 0.95:.0f}")
        if not fine:
            raise SystemExit(f"p99 exceeds {P99:g} ms at any rate: this machine is too busy, or too slow for the model")
        return fine, found


def is_fine(found: Outcome) -> bool:
    return set(found.statuses) == {"200"} and found.ms(99) <= P99


def measure(workers: int, model: str, seconds: float, rows: Rows) -> bool:
    """Add the rows of a service with so many processes; returns whether all holds."""
    with service("--no-log", "--workers", str(workers), model) as (_, port, _):
        load = Load(port)
        capacity, at_full_load = load.capacity(seconds)
        own: Rows = []
        for multiple in MULTIPLES:
            found = at_full_load if multiple == 1 else load.at(multiple * capacity, seconds)
            count = sum(found.statuses.values())
            own.append(
                {
                    "workers": workers, "load": multiple, "offered_per_second": round(count / seconds, 1),
                    "accepted_per_second": round(found.statuses["200"] / seconds, 1), "p50_ms": round(found.ms(50), 2),
                    "p99_ms": round(found.ms(99), 2), "refused": found.statuses["429"],
                    "failed": count - found.statuses["200"] - found.statuses["429"],
                    "behind_ms": round(found.behind, 2), "load_cpu": round(found.cpu, 3), "seconds": seconds,
                }
            )  # fmt: skip
            keep_results("overload", [*rows, *own])
            say("  " + ", ".join(f"{name} {value}" for name, value in own[-1].items()))
        time.sleep(1.5)
        burst = load.burst(round(BURST * capacity))
    rows += own
    full, heavy, after = own[1], own[-2], own[-1]
    holds = {
        "p99 at three times, over full load": (
            heavy["p99_ms"] / full["p99_ms"], heavy["p99_ms"] <= WORSE * full["p99_ms"],
        ),
        "accepted at three times, of capacity": (
            heavy["accepted_per_second"] / capacity, heavy["accepted_per_second"] >= (1 - LOST) * capacity,
        ),
        "refused at half load afterwards": (after["refused"], not after["refused"]),
        "requests that failed": (sum(row["failed"] for row in own), not any(row["failed"] for row in own)),
        f"refused of {sum(burst.statuses.values())} at once": (burst.statuses["429"], set(burst.statuses) == {"200"}),
    }  # fmt: skip
    for what, (value, holding) in holds.items():
        say(f"{workers} process{'es' * (workers > 1)}: {what}: {value:.3g} {'holds' if holding else 'DOES NOT HOLD'}")
    return all(holding for _, holding in holds.values())


def picture(rows: Rows, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for workers in sorted({row["workers"] for row in rows}):
        of = [row for row in rows if row["workers"] == workers][:-1]
        loads = [row["load"] for row in of]
        name = f"{workers} process{'es' * (workers > 1)}"
        axes[0].plot(loads, [row["accepted_per_second"] for row in of], marker="o", label=name)
        (line,) = axes[1].plot(loads, [row["p99_ms"] for row in of], marker="o", label=name)
        axes[1].plot(loads, [row["behind_ms"] for row in of], ls=":", color=line.get_color())
    axes[0].set(xlabel="load, of capacity", ylabel="accepted per second", ylim=(0, None))
    axes[1].set(xlabel="load, of capacity", ylabel="ms", ylim=(0, None))
    axes[1].set_title("p99 of the accepted; dotted: lag of the load", fontsize=10)
    for one in axes:
        one.grid(alpha=0.25)
        one.legend(fontsize=8.5)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def of_today() -> Rows:
    """What earlier runs of this day have measured."""
    path = results_path("overload", ".csv")
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: json.loads(value) for name, value in row.items()} for row in csv.DictReader(file)]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(BUNDLED / SENTIMENT), help="a classifier (default: the bundled one)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load at each point (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: 1, then 2)")
    options = parser.parse_args()
    end_when_told()
    rows = [row for row in of_today() if row["workers"] not in options.workers]  # a long run may be made in parts
    verdicts = [measure(workers, options.model, options.seconds, rows) for workers in options.workers]
    picture(rows, results_path("overload", ".png"))
    write_results("overload", rows)
    sys.exit(not all(verdicts))


if __name__ == "__main__":
    main()
