"""Admission: which requests are refused because the service has too much to do, from what is known of their head.

The work of a request is its tokens, estimated from the size of its body until they are known, and a constant for HTTP.
By Little's law a new request waits for the work of all active ones, divided by the work that is completed per second,
which is measured end to end: whether the time is spent on HTTP, as with small models, or in the engine. What it has
already waited, unread in its socket because the event loop was busy, counts too.

A burst is taken whole, up to `--max-wait` of work; in lasting overload so long a queue would only make every response
late. Refused work is a debt, which is paid off while the service has little to do, as if it were done then. While there
is a debt the wait may be `LASTING` at most, and what waits longer although it was admitted is refused in the queue.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar

LASTING = 0.05  # seconds that a request may wait while there is a debt
LATE = 2 * LASTING  # seconds after which one that waits is refused then
MIN_ACTIVE = 16  # fewer concurrent requests hardly fill a batch, and are not refused for their number …
MIN_LASTING = 4  # … or, while there is a debt, so many; with fewer, the rate of completion predicts little
CALM = LASTING / 4  # seconds: with less to do than this, a service pays off its debt
HTTP = 16  # tokens that the reading and answering of a request is counted as
LARGEST = 1024  # tokens of a request for which others wait; shorter ones need not wait for the rest (`batching`)
TOKENS_PER_BYTE = 0.25  # of a body, until it is measured


class Ticket:
    """One admitted request."""

    __slots__ = ("arrived", "bytes", "owner", "tokens", "work")

    def __init__(self, owner: Admission, size: int, arrived: float) -> None:
        self.owner, self.bytes, self.arrived, self.tokens = owner, size, arrived, 0
        self.work = HTTP + min(size * owner.tokens_per_byte, LARGEST)
        owner.work += self.work

    def count(self, tokens: int) -> None:
        """Replace the estimate, once the tokens are known; those of several calls are added."""
        self.tokens += tokens
        work = HTTP + min(self.tokens, LARGEST)
        self.owner.work += work - self.work
        self.work = work


TICKET: ContextVar[Ticket | None] = ContextVar("ticket", default=None)  # of the request that is being answered


class Admission:
    """The work of all active requests, how fast it is completed, and the debt of what was refused.

    Args:
        limit: seconds that a request of a burst may wait.
        clock: in seconds.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self._clock = limit, clock
        self.active, self.work, self.debt = 0, 0.0, 0.0
        self.tokens_per_byte = TOKENS_PER_BYTE
        # Of about the latest second: the time with several active requests, and the work completed in it.
        self._seconds = self._completed = 0.0
        self._since = 0.0  # the latest response, or when there were several requests
        self._bytes = self._tokens = 0.0  # of the latest thousand requests or so
        self._looked = clock()

    @property
    def wait(self) -> float:
        """Expected wait of a new request in seconds; 0 before any measurement."""
        return self.work * self._seconds / self._completed if self._completed else 0.0

    def excess(self, size: int, waited: float = 0.0) -> float:
        """By how many seconds a new request would wait too long; it is to be admitted if this is not positive.

        Args:
            size: of its body in bytes.
            waited: seconds since it arrived.
        """
        self._pay()
        few, limit = (MIN_LASTING, min(self.limit, LASTING)) if self.debt else (MIN_ACTIVE, self.limit)
        if self.active < few:  # also if all requests have waited too long: else none would be answered
            return 0.0
        excess = waited + self.wait - limit
        if excess > 0 and self._completed:
            work = HTTP + min(size * self.tokens_per_byte, LARGEST)
            self.debt = min(self.limit, self.debt + work * self._seconds / self._completed)
        return excess

    def enter(self, size: int, waited: float = 0.0) -> Ticket:
        """Register a request."""
        self._pay()
        now = self._clock()
        self.active += 1
        if self.active == MIN_LASTING:
            self._since = now
        return Ticket(self, size, now - waited)

    def leave(self, ticket: Ticket) -> None:
        """Record its response."""
        self._pay()
        now = self._clock()
        if self.active >= MIN_LASTING:
            decay = math.exp(self._since - now)
            self._seconds = decay * self._seconds + 1 - decay
            self._completed = decay * self._completed + HTTP + ticket.tokens  # without tokens it was no work
        self.active -= 1
        self._since = now
        self.work = self.work - ticket.work if self.active else 0.0
        if ticket.tokens and ticket.bytes:
            self._bytes = 0.999 * self._bytes + ticket.bytes
            self._tokens = 0.999 * self._tokens + ticket.tokens
            self.tokens_per_byte = self._tokens / self._bytes

    def _pay(self) -> None:
        now = self._clock()
        if self.debt and self.wait < CALM:
            self.debt = max(0.0, self.debt - (now - self._looked))
        self._looked = now
