"""Dynamic batching: one queue per model, and one thread that computes.

A batch contains sequences of many requests, laid end to end without padding, up to a budget of tokens. A request that
finds the engine idle starts at once; during its batch, others gather in the queue. Each is due `STRETCH` times as long
after its arrival as it takes by itself, and the one that is due first goes first in seven eighths of every batch: short
texts do not wait for long ones, nor one text for a thousand, and none starves. The rest of a batch is for the shortest.
The result of a sequence has the same bits in any batch: the engine guarantees it, and so batching is invisible to
clients.

One thread computes for all models, one batch of each in turn, because an engine's own threads use all processors.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pocketbert.features import Features, Predictor
from pocketbert.serve.admission import LATE, TICKET, Ticket

STRETCH = 4.0  # a request is due so many times as long after its arrival as it takes alone …
LONGEST = 10.0  # … but at most so many seconds
PACE = 1e-4  # seconds per token, until it is measured
TOKENS = 256  # of a batch, per thread of the engine: larger batches are no faster, and delay new requests

logger = logging.getLogger("pocketbert.serve")
Output = dict[str, Any]


class ServerBusyError(Exception):
    """A request would have to wait too long; `seconds` is when to retry."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"retry in {seconds:.1f} s")
        self.seconds = seconds


class TooSlowError(Exception):
    """A request cannot be completed in time; at most `tokens` can."""

    def __init__(self, needed: float, allowed: float, tokens: int) -> None:
        super().__init__(
            f"the request would take {needed:.0f} s, more than the limit of {allowed:g} s: send at most {tokens:,} "
            f"tokens per request"
        )


@dataclass(eq=False, slots=True)
class Request:
    """Sequences that are completed together."""

    sequences: Sequence[Features]
    arrived: float
    ticket: Ticket | None = None  # of the HTTP request that it is a part of, if that was admitted as one
    most: float = float("inf")  # seconds that it may take
    on_done: Callable[[Request], None] = lambda request: None  # called in the compute thread
    due: float = 0.0
    tokens: int = 0  # not yet in a batch
    next: int = 0  # index of the first sequence not yet in a batch
    missing: int = 0  # sequences without outputs
    started: float = 0.0
    ended: float = 0.0
    outputs: list[Output] = field(default_factory=list)
    error: Exception | None = None
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.missing = len(self.sequences)
        self.tokens = sum(map(len, self.sequences))
        self.outputs = [{} for _ in self.sequences]

    def is_late(self, now: float) -> bool:
        """Whether it has waited so long, in overload, that others should go in its place."""
        return bool(self.ticket and self.ticket.owner.debt and not self.next and now > self.due + LATE)


Batch = list[tuple[Request, int]]  # requests, each with the index of a sequence


@dataclass(frozen=True)
class BatchReport:
    """Measurements of one batch."""

    sequences: int
    tokens: int
    seconds: float
    waits: list[float]  # of the requests that started with it


def _rank(request: Request) -> tuple[float, int]:
    return request.due, request.tokens


class Queue:
    """The waiting requests of one model."""

    def __init__(self, predictor: Predictor, tokens: int = TOKENS) -> None:
        self.predictor, self.budget = predictor, tokens
        self.waiting: list[Request] = []  # what is due first is first
        self.observe: Callable[[BatchReport], None] = lambda report: None
        self.pace = 0.0  # seconds per token in full batches; 0 before the first one
        self.queued = self.running = 0  # tokens in the queue, and in the engine
        self.served = 0  # number of this queue's latest batch, among the batches of all queues

    @property
    def tokens(self) -> int:
        """In the queue and in the running batch."""
        return self.queued + self.running

    def add(self, request: Request) -> None:
        """Put a request into its place."""
        request.due = self.due(request.arrived, request.tokens)
        bisect.insort(self.waiting, request, key=_rank)
        self.queued += request.tokens

    def due(self, arrived: float, tokens: int) -> float:
        """When a request is due: others that are due later do not delay it."""
        return arrived + min(STRETCH * tokens * (self.pace or PACE), LONGEST)

    def tokens_before(self, tokens: int, now: float) -> int:
        """Tokens that are computed before a new request of `tokens` tokens."""
        new = self.due(now, tokens), tokens
        return self.running + sum(request.tokens for request in self.waiting if _rank(request) <= new)

    def check(self, request: Request, now: float) -> None:
        """Raise `TooSlowError` if a request takes too long even by itself, at the pace of full batches."""
        alone = sum(map(len, request.sequences)) * self.pace
        if alone > request.most and now + request.tokens * self.pace > request.arrived + request.most:
            raise TooSlowError(alone, request.most, int(request.most / self.pace))

    def take(self, now: float) -> Batch:
        """Remove and return the next batch; requests that can no longer be completed in time are given up."""
        late = [request for request in self.waiting if request.is_late(now)]
        if len(late) == len(self.waiting):  # one batch is computed all the same: else none would be answered
            late = late[: -max(1, self.budget // max(request.tokens for request in late))] if late else late
        for request in late:
            self._give_up(request, ServerBusyError(LATE), now)
        for request in self.waiting:
            try:
                self.check(request, now)
            except TooSlowError as error:
                self._give_up(request, error, now)
        self.waiting = [request for request in self.waiting if not request.cancelled]
        self.queued = sum(request.tokens for request in self.waiting)
        batch: Batch = []
        used = self._fill(batch, self.waiting, self.budget * 7 // 8)
        used += self._fill(batch, sorted(self.waiting, key=lambda request: request.tokens), self.budget - used)
        self._fill(batch, self.waiting, self.budget - used)
        for request, _ in batch:
            request.started = request.started or now
        self.waiting = [request for request in self.waiting if request.next < len(request.sequences)]
        return batch

    def _give_up(self, request: Request, error: Exception, now: float) -> None:
        if not request.cancelled:
            request.error, request.cancelled, request.ended = error, True, now
            request.on_done(request)

    def _fill(self, batch: Batch, requests: Iterable[Request], room: int) -> int:
        """Add sequences that fit into `room` tokens, and any one to an empty batch; returns the number of tokens."""
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
        """Run a batch, and complete the requests that have all their outputs."""
        started = time.monotonic()
        sequences = [request.sequences[index] for request, index in batch]
        tokens = sum(map(len, sequences))
        try:
            outputs = self.predictor(sequences)
        except Exception as error:  # a bug: its requests must get a response, and the next batch may succeed
            logger.exception("a batch of %d sequences failed", len(sequences))
            for request in {id(request): request for request, _ in batch}.values():
                request.error, request.cancelled, request.ended = error, True, time.monotonic()
                request.on_done(request)
            return
        ended = time.monotonic()
        if tokens >= self.budget // 2:
            pace = (ended - started) / tokens
            self.pace = 0.8 * self.pace + 0.2 * pace if self.pace else pace
        first = [request for request, index in batch if index == 0]
        self.observe(BatchReport(len(batch), tokens, ended - started, [started - request.arrived for request in first]))
        for (request, index), output in zip(batch, outputs, strict=True):
            request.outputs[index] = output
            request.missing -= 1
            if not request.missing and not request.cancelled:
                request.ended = ended
                request.on_done(request)


class Worker:
    """The compute thread, which serves all queues in turn."""

    def __init__(self, queues: Sequence[Queue]) -> None:
        self.queues = queues
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="pocketbert-compute", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> float:
        """Seconds until all queues are empty: an upper bound of any wait."""
        return sum(queue.tokens * queue.pace for queue in self.queues)

    def expected_wait(self, queue: Queue, tokens: int, now: float) -> float:
        """Longest wait of a new request for the engine in seconds, by its measured pace.

        In its own queue those go first that are due earlier; every other queue has one turn per batch of these, and one
        more.
        """
        own = queue.tokens_before(tokens, now) * queue.pace
        others = (other for other in self.queues if other is not queue)
        return own + sum(min(other.tokens * other.pace, own + other.budget * other.pace) for other in others)

    def submit(self, queue: Queue, request: Request, max_wait: float) -> None:
        """Add a request to a queue.

        Raises:
            ServerBusyError: it would wait more than `max_wait` seconds.
            TooSlowError: it would take too long by itself.
        """
        with self._changed:
            if self.backlog > max_wait:
                seconds = self.expected_wait(queue, request.tokens, request.arrived)
                if seconds > max_wait:
                    raise ServerBusyError(seconds - max_wait)
            queue.check(request, request.arrived)
            queue.add(request)
            self._changed.notify()

    async def run(
        self, queue: Queue, sequences: Sequence[Features], max_wait: float, max_time: float = float("inf")
    ) -> Request:
        """Compute the `outputs` of sequences. If the caller is cancelled, so is the request.

        Raises:
            ServerBusyError: it would wait more than `max_wait` seconds.
            TooSlowError: it would take more than `max_time` seconds, which may become known during the first batch.
        """
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not finished.done():
                finished.set_result(None)

        def on_done(_: Request) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake)

        ticket = TICKET.get()
        request = Request(sequences, time.monotonic() if ticket is None else ticket.arrived, ticket, max_time, on_done)
        if ticket is not None:
            ticket.count(request.tokens)
        if sequences:
            self.submit(queue, request, max_wait)
            try:
                await finished
            except asyncio.CancelledError:
                request.cancelled = True
                raise
        if request.error is not None:
            raise request.error
        return request

    def end(self) -> None:
        """Have the thread end after the running batch."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def stop(self) -> None:
        """End the thread after the running batch, and wait for it."""
        self.end()
        self.join()

    def join(self) -> None:
        """Wait until the thread has ended."""
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
