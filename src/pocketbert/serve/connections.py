"""Connections: limits of what a client may send or leave unsent before there is a request that can be rejected.

uvicorn and its parser set no limit to the size of a head, nor to the time in which it must arrive, and take memory and
time that grow with the square of its size. A connection that does not answer these limits is closed.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 << 10  # bytes of the request line and the headers
HEAD_SECONDS = 10.0  # from the beginning of a connection or of a request's first byte to the end of its headers
RESERVE = 64  # open files that are kept for everything but connections
WARNING_SECONDS = 60.0  # between two warnings of closed connections

logger = logging.getLogger("pocketbert.serve")


class Connection(HttpToolsProtocol):
    """One connection, which is idle while no complete head of a request has been received, or after the response."""

    idle: ClassVar[dict[Connection, None]] = {}  # of this process, the longest idle first
    warned: ClassVar[float] = -WARNING_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = 0  # bytes received of a head that is not complete
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place of the connection that has been idle longest, if there are as many as files may be open."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > most_connections() and len(self.idle) > 1:
            next(iter(self.idle)).transport.abort()
            self._warn()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._head_is_complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Give the parser what belongs to a head as far as the limit, and everything else."""
        if self in self.idle:
            if self._deadline is None:
                self._wait_for_head()
            allowed = LARGEST_HEAD - self._head
            self._head += len(data)
            super().data_received(data[:allowed])
            data = data[allowed:]
            if self in self.idle and self._head > LARGEST_HEAD:
                self._refuse(431, f"the headers are larger than {LARGEST_HEAD >> 10} KiB")
                return
        if data and not self.transport.is_closing():
            super().data_received(data)

    def on_headers_complete(self) -> None:
        """Stop the clock; the time of the body is a matter of the application."""
        self._head_is_complete()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The next head may come; uvicorn closes the connection if none does."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.idle[self] = None

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: it still gets the response to a complete request."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def _wait_for_head(self) -> None:
        self.idle[self] = None
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _head_is_complete(self) -> None:
        self.idle.pop(self, None)
        self._head = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._refuse(408, f"the headers took longer than {HEAD_SECONDS:g} s")

    def _refuse(self, status: int, message: str) -> None:
        phrase = {408: "Request Timeout", 431: "Request Header Fields Too Large"}[status]
        self.transport.write(
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(message)}\r\nconnection: close\r\n\r\n{message}".encode()
        )
        self.transport.close()

    @classmethod
    def _warn(cls) -> None:
        now = time.monotonic()
        if now - cls.warned >= WARNING_SECONDS:
            cls.warned = now
            logger.warning(
                "more than %d connections at once: those that were idle longest are closed; a higher limit of open "
                "files allows more",
                most_connections(),
            )


def most_connections() -> int:
    """Return the number of connections that may be open at once, by the limit of open files."""
    if sys.platform == "win32":
        return 1 << 30
    import resource

    return max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE)
