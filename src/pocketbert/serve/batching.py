"""Requests join batches: a queue a model, and one thread that computes.

A batch holds sequences of many requests, laid end to end without padding, up to a budget of tokens. A request that
finds the engine idle starts at once; while it computes, others gather. Of these the one with the least left to do goes
first, so that short texts do not wait for long ones nor one text for a thousand. Who has waited for `PATIENCE` seconds
goes first in seven eighths of every batch, oldest first, so that nobody starves: when more comes than can be answered,
all have waited, and short ones must not keep passing the long. A sequence's answer has the same bits in any batch: that
is the engine's promise, and what makes all of this invisible.

One thread computes for all models, a batch of each in turn, because an engine's own threads take all processors.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pocketbert.features import Features, Predictor

PATIENCE = 0.25  # seconds
TOKENS = 256  # of a batch, for each thread of the engine: larger ones are no faster, and keep newcomers waiting

logger = logging.getLogger("pocketbert.serve")
Output = dict[str, Any]


class Busy(Exception):
    """A request would have to wait too long; `seconds` is when to ask again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"ask again in {seconds:.1f} s")
        self.seconds = seconds


@dataclass(eq=False, slots=True)
class Request:
    """Sequences that are answered together."""

    sequences: Sequence[Features]
    arrived: float
    done: Callable[[Request], None] = lambda request: None  # called in the thread that computes
    tokens: int = 0  # not yet in a batch
    next: int = 0  # the first sequence not yet in a batch
    missing: int = 0  # sequences without outputs
    started: float = 0.0
    ended: float = 0.0
    outputs: list[Output] = field(default_factory=list)
    error: Exception | None = None
    given_up: bool = False

    def __post_init__(self) -> None:
        self.missing = len(self.sequences)
        self.tokens = sum(map(len, self.sequences))
        self.outputs = [{} for _ in self.sequences]


Batch = list[tuple[Request, int]]  # requests, and which of their sequences


@dataclass(frozen=True)
class Report:
    """What there is to say about a batch."""

    sequences: int
    tokens: int
    seconds: float
    waits: list[float]  # of the requests that began with it


class Queue:
    """The requests that wait for one model."""

    def __init__(self, predictor: Predictor, tokens: int = TOKENS) -> None:
        self.predictor, self.budget = predictor, tokens
        self.waiting: list[Request] = []  # oldest first
        self.observe: Callable[[Report], None] = lambda report: None
        self.pace = 0.0  # seconds a token in full batches; 0 as long as there was none
        self.queued = self.running = 0  # tokens that wait, and in the engine
        self.served = 0  # the number of its latest batch, among those of all queues

    @property
    def tokens(self) -> int:
        """In all that wait, and in the batch that runs."""
        return self.queued + self.running

    def add(self, request: Request) -> None:
        """Let a request wait."""
        self.waiting.append(request)
        self.queued += request.tokens

    def before(self, tokens: int) -> int:
        """Tokens that go before a newcomer of so many."""
        return self.running + sum(request.tokens for request in self.waiting if request.tokens <= tokens)

    def take(self, now: float) -> Batch:
        """The next batch."""
        self.waiting = [one for one in self.waiting if not one.given_up]
        self.queued = sum(one.tokens for one in self.waiting)
        batch: Batch = []
        late = [one for one in self.waiting if now - one.arrived > PATIENCE]
        used = self._draw(batch, late, self.budget * 7 // 8)
        used += self._draw(batch, sorted(self.waiting, key=lambda one: one.tokens), self.budget - used)
        self._draw(batch, late, self.budget - used)
        for request, _ in batch:
            request.started = request.started or now
        self.waiting = [one for one in self.waiting if one.next < len(one.sequences)]
        return batch

    def _draw(self, batch: Batch, requests: Iterable[Request], room: int) -> int:
        """Add what fits into `room`, and one sequence if there is none yet; returns how many tokens."""
        used = 0
        for request in requests:
            while request.next < len(request.sequences):
                size = len(request.sequences[request.next])
                if batch and used + size > room:
                    return used
                batch.append((request, request.next))
                request.next += 1
                request.tokens -= size
                self.queued -= size
                used += size
        return used

    def compute(self, batch: Batch) -> None:
        """Run a batch, and hand out what is complete."""
        begun = time.monotonic()
        sequences = [request.sequences[index] for request, index in batch]
        tokens = sum(map(len, sequences))
        try:
            outputs = self.predictor(sequences)
        except Exception as error:  # a bug: those who wait must hear of it, and the next batch may do better
            logger.exception("a batch of %d sequences failed", len(sequences))
            for request in {id(request): request for request, _ in batch}.values():
                request.error, request.given_up, request.ended = error, True, time.monotonic()
                request.done(request)
            return
        ended = time.monotonic()
        if tokens >= self.budget // 2:
            pace = (ended - begun) / tokens
            self.pace = 0.8 * self.pace + 0.2 * pace if self.pace else pace
        first = [request for request, index in batch if index == 0]
        self.observe(Report(len(batch), tokens, ended - begun, [begun - one.arrived for one in first]))
        for (request, index), output in zip(batch, outputs, strict=True):
            request.outputs[index] = output
            request.missing -= 1
            if not request.missing and not request.given_up:
                request.ended = ended
                request.done(request)


class Worker:
    """The thread that computes, in turn for all queues."""

    def __init__(self, queues: Sequence[Queue]) -> None:
        self.queues = queues
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="pocketbert-compute", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> float:
        """Seconds until all that is here is done: nobody waits longer than that."""
        return sum(one.tokens * one.pace for one in self.queues)

    def wait(self, queue: Queue, tokens: int) -> float:
        """Seconds that a newcomer of so many tokens may have to wait for the engine, by its measured speed.

        In its own queue what is shorter goes first; the others have a turn for each of its batches, and one more.
        """
        here = queue.before(tokens) * queue.pace
        others = (one for one in self.queues if one is not queue)
        return here + sum(min(one.tokens * one.pace, here + one.budget * one.pace) for one in others)

    def submit(self, queue: Queue, request: Request, longest: float) -> None:
        """Let a request wait its turn; raises `Busy` if that would take more than `longest` seconds."""
        with self._changed:
            if self.backlog > longest and (seconds := self.wait(queue, request.tokens)) > longest:
                raise Busy(seconds - longest)
            queue.add(request)
            self._changed.notify()

    async def run(self, queue: Queue, sequences: Sequence[Features], longest: float) -> Request:
        """Compute `sequences`; the result is in `outputs`. A caller that is cancelled gives its place up."""
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not finished.done():
                finished.set_result(None)

        def done(_: Request) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake)

        request = Request(sequences, time.monotonic(), done)
        if sequences:
            self.submit(queue, request, longest)
            try:
                await finished
            except asyncio.CancelledError:
                request.given_up = True
                raise
        if request.error is not None:
            raise request.error
        return request

    def stop(self) -> None:
        """End the thread after the batch that runs."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count(1):
            with self._changed:
                while not self._stopped and not any(queue.waiting for queue in self.queues):
                    self._changed.wait()
                if self._stopped:
                    return
                queue = min((q for q in self.queues if q.waiting), key=lambda q: q.served)
                queue.served = number
                batch = queue.take(time.monotonic())
                queue.running = sum(len(request.sequences[index]) for request, index in batch)
            if batch:
                queue.compute(batch)
            queue.running = 0
