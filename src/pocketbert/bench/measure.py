"""Latency of models × engines × shapes: engines take turns, each in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pocketbert.bench import peers as engines
from pocketbert.bench.peers import OURS, Peer, Shape
from pocketbert.bench.report import Report, Row, TextRow, row_of, text_row_of
from pocketbert.bench.roofline import operations, peaks
from pocketbert.bench.subjects import Subject
from pocketbert.bench.time_left import TimeLeft
from pocketbert.bench.worker import EngineError, Turn, Worker
from pocketbert.features import Features

FEWEST = 5  # turns of every engine, and rounds of `in_turn`
SLOW = 5  # times its share of the time, after which an engine has no further turns
TURN = 0.1  # seconds of a turn: some passes of a fast engine, one of a slow one
SAMPLE = 128  # texts by which the best of the peers and their best batch size are found
BATCHES = (1, 8, 32)  # that they are tried with
TEXT_ROUNDS = 3
PACE = {"model": 2.0, "files": 20.0, "load": 2.0, "measure": 1.0, "texts": 20.0}  # seconds each, a first guess

Result = TypeVar("Result")


class Bench:
    """Measures into a `Report`; a context manager, at whose end the processes of the engines end.

    Args:
        folder: for the files that peers read; they stay there for the next run.
        peers: that are to take part [default: all].
        quick: leaves out peers that are slow to prepare or to run.
        log: receives the current step.
        watch: receives the rows of the current shape, again and again while they become more exact.
    """

    def __init__(
        self,
        folder: Path,
        peers: Sequence[Peer] | None = None,
        *,
        quick: bool = False,
        log: Callable[[str], None] = lambda _: None,
        watch: Callable[[Sequence[Row], Report], None] = lambda *_: None,
    ) -> None:
        self.folder, self.peers, self.quick = folder, engines.PEERS if peers is None else peers, quick
        self.log, self.watch, self.left = log, watch, TimeLeft(PACE)
        self._workers: dict[Peer | None, Worker] = {}  # of None the one that makes files
        self._loaded: dict[Peer, tuple[str, Shape | None, str]] = {}  # the model, its shape, the kernels
        log("measuring the peaks of the processor")
        self.report = Report(peaks=peaks(all_kernels=not quick))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._workers):
            self._end(key)

    def expect(self, models: int, shapes: int, seconds: float, *, texts: bool) -> None:
        """Estimate the time left for so many models, of `shapes` shapes each, with the engines that are installed."""
        installed = [peer for peer in self.peers if not peer.missing()]
        filed = [] if self.quick else [peer for peer in installed if type(peer).made is not Peer.made]
        eager = [
            peer for peer in installed
            if type(peer).made is Peer.made and (not self.quick or peer.precision == "fp32")
        ]  # fmt: skip
        count = len(OURS) + len(filed) + len(eager)
        loads = count + (shapes - 1) * sum(peer.takes_shapes for peer in filed)
        self.left.expect(
            model=models, files=models * len(filed), load=models * loads, measure=models * shapes * count * seconds,
            texts=models * texts,
        )  # fmt: skip

    def prepare(self, subject: Subject) -> list[Peer]:
        """The engines that can run this model, ours first, with their files made."""
        if self.report.shapes:  # of another model
            self.log(f"{subject.name}: measuring the peaks of the processor again")
            self.report.measure_peaks()
        ready: list[Peer] = list(OURS)
        for peer in self.peers:
            if not peer.runs(subject):
                continue
            if lacking := peer.missing():
                self.report.missing[peer.name] = f"pip install {' '.join(lacking)}"
            elif self.quick and not peer.is_quick(subject, self.folder):
                self.report.missing[peer.name] = "measured only with --full"
            elif peer.made(subject, self.folder) or self._make(subject, peer):
                ready.append(peer)
        for key in self._workers.keys() - set(ready):
            self._end(key)
        return ready

    def _make(self, subject: Subject, peer: Peer) -> bool:
        self.log(f"{subject.name}: making the files of {peer.name}")
        with self.left.step("files"):
            try:
                self._worker(None).prepare(peer, subject, self.folder)
            except EngineError as error:
                self._failed(subject, peer, error)
                self._end(None)
                return False
        return True

    def _load(self, subject: Subject, peers: Sequence[Peer], shape: Shape | None) -> dict[Peer, str]:
        """The engines that can be loaded, each with its kernels."""
        for peer in peers:
            wanted = shape if peer.takes_shapes else None
            if self._loaded.get(peer, ("", None, ""))[:2] == (subject.name, wanted):
                continue
            self.log(f"{subject.name}: loading {peer.name}")
            needed = subject if peer.reads_weights else subject.without_weights()
            with self.left.step("load"):
                try:
                    kernels = self._worker(peer).load(peer, needed, self.folder, wanted)
                except EngineError as error:
                    self._failed(subject, peer, error)
                else:
                    self._loaded[peer] = subject.name, wanted, kernels
        return {peer: self._loaded[peer][2] for peer in peers if peer in self._loaded}

    def shape(self, subject: Subject, peers: Sequence[Peer], shape: Shape, seconds: float) -> list[Row]:
        """Measure a pass over a batch of random tokens for about `seconds` per engine.

        A slow engine has its `FEWEST` turns, as long as they do not take `SLOW` times as long. If the run is
        interrupted, the report contains the rows so far.
        """
        batch, length = shape
        kernels, inputs = self._load(subject, peers, shape), random_batch(subject, shape)
        work = operations(subject.plan, [length] * batch)
        self.report.operations.setdefault(subject.name, {})[f"{batch}×{length}"] = work
        self.log(f"{subject.name}: {batch}×{length} tokens")
        turns: dict[Peer, list[Turn]] = {peer: [] for peer in kernels}
        rows: list[Row] = []
        try:
            with self.left.step("measure", seconds * len(peers)):
                for peer in list(turns):
                    self._attempt(subject, peer, turns, lambda worker: worker.use(inputs))
                while waiting := [peer for peer in turns if not _is_finished(turns[peer], seconds)]:
                    for peer in waiting:
                        turn = self._attempt(subject, peer, turns, lambda worker: worker.turn(TURN))
                        if turn is not None:
                            turns[peer].append(turn)
                    rows = [
                        row_of(
                            of, threads=self.report.threads, model=subject.name, engine=peer.name,
                            precision=peer.precision, kernels=kernels[peer], batch=batch, length=length,
                        )
                        for peer, of in turns.items()
                    ]  # fmt: skip
                    self.watch(rows, self.report)
        finally:
            self.report.shapes += rows
        return rows

    def texts(self, subject: Subject, peers: Sequence[Peer], inputs: Sequence[Features], source: str) -> list[TextRow]:
        """Measure encoded texts in their order: ours in one call; of the peers the one that is best, at its best.

        All peers run a sample, spread over the texts, at every batch size of `BATCHES`; the fastest then runs all.
        """
        kernels = self._load(subject, peers, None)
        sample = [inputs[i] for i in np.linspace(0, len(inputs) - 1, min(SAMPLE, len(inputs))).astype(int)]
        with self.left.step("texts"):
            tried: dict[tuple[Peer, int], float] = {}
            for peer, size in [(peer, size) for peer in kernels if peer not in OURS for size in BATCHES]:
                self.log(f"{subject.name}: texts, {peer.name}, {size} at a time")
                # The second run is without the work that an engine does for a new shape.
                runs = [self._attempt(subject, peer, kernels, lambda w: w.texts(sample, size)) for _ in range(2)]  # noqa: B023
                if (seconds := runs[1]) is not None:
                    tried[peer, size] = seconds
            chosen: list[tuple[Peer, int]] = [(peer, len(inputs)) for peer in kernels if peer in OURS]
            if tried:
                chosen.append(min(tried, key=lambda key: tried[key]))
            self.log(f"{subject.name}: texts")
            times: dict[tuple[Peer, int], list[float]] = {key: [] for key in chosen}
            for peer, size in chosen * TEXT_ROUNDS:
                taken = self._attempt(subject, peer, kernels, lambda worker: worker.texts(inputs, size))  # noqa: B023
                if taken is not None:
                    times[peer, size].append(taken)
        rows = [
            text_row_of(
                taken, inputs, model=subject.name, source=source, engine=peer.name, precision=peer.precision,
                kernels=kernels[peer], batch=0 if peer in OURS else size,
            )
            for (peer, size), taken in times.items() if peer in kernels and taken
        ]  # fmt: skip
        self.report.texts += rows
        return rows

    # ── processes ──

    def _worker(self, key: Peer | None) -> Worker:
        if key not in self._workers:
            self._workers[key] = Worker()
        return self._workers[key]

    def _end(self, key: Peer | None) -> None:
        if key is not None:
            self._loaded.pop(key, None)
        if (worker := self._workers.get(key)) is not None:
            worker.end(self.folder)
            del self._workers[key]

    def _attempt(
        self, subject: Subject, peer: Peer, taking_part: dict[Peer, Any], task: Callable[[Worker], Result]
    ) -> Result | None:
        """Have an engine do something; one that fails no longer takes part."""
        if peer not in taking_part:
            return None
        try:
            return task(self._worker(peer))
        except EngineError as error:
            self._failed(subject, peer, error)
            del taking_part[peer]
            return None

    def _failed(self, subject: Subject, peer: Peer, error: EngineError) -> None:
        self.report.missing[f"{peer.name}, {subject.name}"] = f"failed: {error}"
        self._end(peer)


def _is_finished(turns: Sequence[Turn], seconds: float) -> bool:
    spent = sum(turn.first + sum(turn.times) for turn in turns)
    return len(turns) > 0 and spent >= (seconds if len(turns) >= FEWEST else SLOW * max(seconds, 1.0))


Key = Any


def in_turn(
    candidates: Mapping[Key, Callable[[], object]], rounds: int, seconds: float | None = None
) -> dict[Key, list[float]]:
    """Seconds of every call of every candidate in this process, one of each a round, after one that does not count.

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
