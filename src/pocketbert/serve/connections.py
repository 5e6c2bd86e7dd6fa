"""Connections: limits of what a client may send or leave unsent before there is a request that can be rejected.

uvicorn and its parser set no limit to the size of a head, nor to the time in which it must arrive, and take memory and
time that grow with the square of its size. A connection that does not answer these limits is closed.

Under overload a request is refused here, where that costs a tenth of what it would behind uvicorn's and the
application's layers: refusing must stay cheap when most requests are refused.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
import time
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 << 10  # bytes of the request line and the headers
HEAD_SECONDS = 10.0  # from the beginning of a connection or of a request's first byte to the end of its headers
RESERVE = 64  # open files that are kept for everything but connections
WARNING_SECONDS = 60.0  # between two warnings of closed connections
_LAST_DATA = 52 if sys.platform == "linux" else None  # place of tcpi_last_data_recv (ms) in the struct of TCP_INFO

logger = logging.getLogger("pocketbert.serve")


class Connection(HttpToolsProtocol):
    """One connection, which is idle while no complete head of a request has been received, or after the response."""

    idle: ClassVar[dict[Connection, None]] = {}  # of this process, the longest idle first
    warned: ClassVar[float] = -WARNING_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = 0  # bytes received of a head that is not complete
        self._deadline: asyncio.TimerHandle | None = None
        self._new = False  # the request began in the data that is being read: the application has not been entered
        self._refused = False  # the rest of the request is not read
        self._guard = self.app if hasattr(self.app, "refuse") else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place of the connection that has been idle longest, if there are as many as files may be open."""
        super().connection_made(transport)
        self._socket = transport.get_extra_info("socket")
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
        self._new = False
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
        """Stop the clock; the time of the body is a matter of the application. Refuse what would wait too long."""
        self._head_is_complete()
        if self._guard is not None and (self.cycle is None or self.cycle.response_complete):
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self.scope["path"] = self.url.partition(b"?")[0].decode("latin-1")
            if (response := self._guard.refuse(self.scope, self._waited())) is not None:
                self._refused = True
                head, body = response
                more = b"".join(b"\r\n%b: %b" % pair for pair in self.server_state.default_headers)
                self.transport.write(head + more + b"\r\n\r\n" + body)
                self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)  # if its body never ends
                return
            self._new = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Leave out the body of a refused request."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Register the request, so that those which are read next know of it; or wait for the next."""
        if self._refused:
            self._refused = False
            self._head_is_complete()
            self.idle[self] = None
            if self.parser.should_keep_alive():
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
            else:
                self.transport.close()
            return
        if self._new and self._guard is not None:
            self._guard.enter(self.scope, self._waited())
        super().on_message_complete()

    def _waited(self) -> float:
        """Seconds since the latest data arrived, which may have been unread in the socket for some time."""
        if _LAST_DATA is None:
            return 0.0
        try:
            state = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA + 4)
        except (OSError, AttributeError):  # no TCP
            return 0.0
        return float(struct.unpack_from("I", state, _LAST_DATA)[0]) / 1000

    def on_response_complete(self) -> None:
        """The next head may come; uvicorn closes the connection if none does."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.idle[self] = None

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: it still gets the response to a complete request."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body or self.scheme == "https":
            return False  # TLS has no half that could be closed
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
        self._refuse(408, f"receiving the headers took longer than {HEAD_SECONDS:g} s")

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
                "more than %d concurrent connections: closing those that were idle longest; a higher limit of open "
                "files (ulimit -n) allows more",
                most_connections(),
            )


def most_connections() -> int:
    """Return the number of connections that may be open at once, by the limit of open files."""
    if sys.platform == "win32":
        return 1 << 30
    import resource

    return max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE)
