"""Latency of models × engines × shapes, interleaved."""

from __future__ import annotations

import datetime
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.bench.peers import OURS, PEERS, Peer, Run, Shape, versions
from pocketbert.bench.roofline import machine_peak, operations
from pocketbert.bench.subjects import Subject
from pocketbert.features import Features
from pocketbert.machine import processor_name
from pocketbert.runtime.engine import usable_threads

FEWEST, MOST = 5, 30  # rounds
SAMPLE = 128  # texts by which the best of the peers and their best batch size are found
BATCHES = (1, 8, 32)  # that they are tried with
Log = Callable[[str], None]  # receives the current step


@dataclass(frozen=True)
class Row:
    """One engine, one model, one shape.

    Attributes:
        share: of the limit for this precision, nought to one; None where that limit is not known.
    """

    model: str
    engine: str
    precision: str
    batch: int
    length: int
    ms: float
    fastest_ms: float
    rounds: int
    share: float | None

    @property
    def ours(self) -> bool:
        """Whether it is this package's."""
        return self.engine.startswith("PocketBERT")


@dataclass(frozen=True)
class TextRow:
    """One engine, one model, the texts of a file; `batch` is the texts that are padded to one length, 0 for none."""

    model: str
    source: str
    engine: str
    precision: str
    batch: int
    texts: int
    tokens: int
    tokens_a_second: float

    @property
    def ours(self) -> bool:
        """Whether it is this package's."""
        return self.engine.startswith("PocketBERT")


@dataclass
class Report:
    """All figures of a run.

    Attributes:
        limit: operations a second of this machine by arithmetic.
        operations: of a pass, by model and shape as "batch×length".
        missing: peers that could not run, each with the command that installs it, or with the error.
    """

    machine: str = field(default_factory=processor_name)
    threads: int = field(default_factory=usable_threads)
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    versions: Mapping[str, str] = field(default_factory=versions)
    limit: dict[str, float] = field(default_factory=machine_peak)
    operations: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    shapes: list[Row] = field(default_factory=list)
    texts: list[TextRow] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def best(
        self, model: str, shape: Shape, *, ours: bool, precisions: Sequence[str] = ("fp32", "bf16", "int8")
    ) -> Row | None:
        """The fastest engine for a model and a shape, at one of these precisions."""
        rows = [
            row for row in self.shapes
            if row.model == model and (row.batch, row.length) == shape
            and row.ours == ours and row.precision in precisions
        ]  # fmt: skip
        return min(rows, key=lambda row: row.ms, default=None)

    def limit_ms(self, model: str, shape: Shape, precision: str) -> float | None:
        """The time of a pass at the machine's limit."""
        rate = self.limit.get(precision)
        work = self.operations.get(model, {}).get(f"{shape[0]}×{shape[1]}")
        return None if rate is None or work is None else 1e3 * work / rate


class Bench:
    """Measures into a `Report`.

    Args:
        folder: for the files that peers read; they stay there for the next run.
        log: receives the current step, for a progress bar.
        peers: that are to take part.
    """

    def __init__(self, folder: Path, log: Log = lambda _: None, peers: Sequence[Peer] = PEERS) -> None:
        self.folder, self.log, self.peers = folder, log, peers
        log("measuring the machine's limit")
        self.report = Report()

    def prepare(self, subject: Subject) -> list[Peer]:
        """The engines that can run this model, ours first, with their files made."""
        ready: list[Peer] = list(OURS)
        for peer in self.peers:
            if not peer.runs(subject):
                continue
            if lacking := peer.missing():
                self.report.missing[peer.name] = f"pip install {' '.join(lacking)}"
                continue
            self.log(f"{subject.name}: preparing {peer.name}")
            try:
                peer.prepare(subject, self.folder)
            except Exception as error:  # any engine may fail in any way: the others are measured all the same
                self._failed(subject, peer, error)
            else:
                ready.append(peer)
        return ready

    def _failed(self, subject: Subject, peer: Peer, error: Exception) -> None:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        self.report.missing[f"{peer.name}, {subject.name}"] = f"failed: {reason}"

    def _load(self, subject: Subject, peers: Sequence[Peer], shape: Shape | None) -> dict[Peer, Run]:
        """The engines that can be loaded and have run once."""
        runs: dict[Peer, Run] = {}
        for peer in peers:
            try:
                run = peer.load(subject, self.folder, shape)
                run(random_batch(subject, shape or (2, 16)))
            except Exception as error:  # as above
                self._failed(subject, peer, error)
            else:
                runs[peer] = run
        return runs

    def shape(self, subject: Subject, peers: Sequence[Peer], shape: Shape, seconds: float) -> list[Row]:
        """Measure a pass over a batch of random tokens for about `seconds`."""
        batch, length = shape
        self.log(f"{subject.name} {batch}×{length}: loading")
        runs = self._load(subject, peers, shape)
        inputs = random_batch(subject, shape)
        self.log(f"{subject.name} {batch}×{length}: measuring")
        times = in_turn({peer: lambda run=run: run(inputs) for peer, run in runs.items()}, MOST, seconds)  # type: ignore[misc]
        work = operations(subject.plan, [length] * batch)
        self.report.operations.setdefault(subject.name, {})[f"{batch}×{length}"] = work
        rows = []
        for peer, taken in times.items():
            median, rate = statistics.median(taken), self.report.limit.get(peer.precision)
            share = None if rate is None else round(work / median / rate, 4)
            rows.append(
                Row(subject.name, peer.name, peer.precision, batch, length, round(1e3 * median, 3),
                    round(1e3 * min(taken), 3), len(taken), share)
            )  # fmt: skip
        self.report.shapes += rows
        return rows

    def texts(self, subject: Subject, peers: Sequence[Peer], inputs: Sequence[Features], source: str) -> list[TextRow]:
        """Measure encoded texts in their order: ours in one call; of the peers the one that is best, at its best.

        All peers run a sample, spread over the texts, at every batch size of `BATCHES`; the fastest then runs all.
        """
        self.log(f"{subject.name}: texts, loading")
        runs = self._load(subject, peers, None)
        sample = [inputs[i] for i in np.linspace(0, len(inputs) - 1, min(SAMPLE, len(inputs))).astype(int)]
        tried: dict[tuple[Peer, int], float] = {}
        others = {peer: run for peer, run in runs.items() if peer not in OURS}
        for peer, run in others.items():
            for size in BATCHES:
                self.log(f"{subject.name}: texts, {peer.name}, {size} at a time")
                tried[peer, size] = _best_of_two(lambda run=run, size=size: _in_batches(run, sample, size))  # type: ignore[misc]
        chosen: dict[tuple[Peer, int], Run] = {(peer, len(inputs)): run for peer, run in runs.items() if peer in OURS}
        if tried:
            peer, size = min(tried, key=lambda key: tried[key])
            chosen[peer, size] = runs[peer]
        self.log(f"{subject.name}: texts, measuring")
        times = in_turn(
            {key: lambda run=run, size=key[1]: _in_batches(run, inputs, size) for key, run in chosen.items()},  # type: ignore[misc]
            3,
        )
        tokens = sum(map(len, inputs))
        rows = [
            TextRow(subject.name, source, peer.name, peer.precision, 0 if peer in OURS else size, len(inputs),
                    tokens, round(tokens / statistics.median(taken), 1))
            for (peer, size), taken in times.items()
        ]  # fmt: skip
        self.report.texts += rows
        return rows


def _in_batches(run: Run, inputs: Sequence[Features], size: int) -> None:
    for start in range(0, len(inputs), size):
        run(inputs[start : start + size])


def _best_of_two(call: Callable[[], object]) -> float:
    """The second run is without the work that an engine does for a new shape."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


Key = Any


def in_turn(
    candidates: Mapping[Key, Callable[[], object]], rounds: int, seconds: float | None = None
) -> dict[Key, list[float]]:
    """Seconds of every call of every candidate, one of each a round, after one round that does not count.

    Taking turns lets a busy neighbour slow all candidates alike, so that the ratio holds where single times do not. The
    pause before each call lets the threads of the one before fall asleep: some wait for more work spinning.

    Args:
        candidates: by any key.
        rounds: how many, at most.
        seconds: after which no more begin, but at least `FEWEST`.
    """
    times: dict[Key, list[float]] = {name: [] for name in candidates}
    begun = time.perf_counter()
    for round_ in range(rounds + 1):
        if seconds is not None and round_ > FEWEST and time.perf_counter() - begun > seconds:
            break
        for name, call in candidates.items():
            time.sleep(0.01)
            start = time.perf_counter()
            call()
            if round_:
                times[name].append(time.perf_counter() - start)
    return times


def random_batch(subject: Subject, shape: Shape) -> list[Features]:
    """A batch of random tokens, always the same."""
    ids = np.random.default_rng(0).integers(0, subject.config.vocab_size, shape).astype(np.int32)
    return [Features(row, np.zeros(shape[1], np.int32)) for row in ids]


@contextmanager
def exports(folder: Path | None) -> Iterator[Path]:
    """Where exports go: `folder`, which stays, or a temporary one."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pocketbert-bench-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)
