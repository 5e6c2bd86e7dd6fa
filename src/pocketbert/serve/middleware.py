"""ASGI middleware around the application: keys, limits and draining before a request; headers, metrics, log after it.

Rejecting a request costs next to nothing, so that an overloaded service can still respond.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from pocketbert.serve.admission import TICKET, Admission, Ticket
from pocketbert.serve.errors import error_response
from pocketbert.serve.keys import Keys, KeyUse
from pocketbert.serve.metrics import Metrics
from pocketbert.serve.settings import Settings

if TYPE_CHECKING:
    from pocketbert.serve.reload import Reloader

logger = logging.getLogger("pocketbert.serve.requests")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Without a key, and while draining.
OPEN_PATHS = {"/", "/health", "/live", "/ready", "/ping", "/favicon.ico", "/v2/health/live", "/v2/health/ready"}
KEY = "key"  # of a scope: the API key of the request
ADMIN = "/admin/"  # the beginning of paths that compute nothing for a client
STREAMED = "/lines"  # the end of paths whose body is read line by line
ENTERED = "ticket"  # of a scope: its request has been admitted by its head
NDJSON = b"application/x-ndjson"  # accepted by clients that read results as they come
_ID = re.compile(rb"[\w.-]{1,64}")
_PORT = re.compile(r":\d*$")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]


class RequestGuard:
    """The ASGI application around the application."""

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.load = Admission(settings.limits.wait)
        self.keys = Keys(settings.keys)
        self.reloader: Reloader
        self.hosts = settings.hosts
        self.draining = False
        self.in_flight = 0
        self.reading: dict[asyncio.Timeout, None] = {}  # requests that wait for their clients, the longest first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        scope["usage"] = {}  # for the log: filled in by the routes
        log = _RequestLog(headers, send, self.draining, scope["usage"])
        guarded = path not in OPEN_PATHS
        waits = _waits(scope["method"], path, headers.get(b"accept", b""))
        ticket: Ticket | None = scope.get(ENTERED)
        counted: KeyUse | None = None
        self.in_flight += guarded
        try:
            rejection = self._wrong_host(path, headers)
            if rejection is None and guarded:
                rejection = self._rejection(scope, path, headers, waits and ticket is None)
                if rejection is None and scope["method"] == "POST" and (counted := scope.get(KEY)) is not None:
                    counted.enter()
            if rejection is None and guarded and not path.endswith(STREAMED):
                receive, rejection = await self._body(headers, receive, path)
            if rejection is not None:
                await rejection(scope, receive, log.send)
                return
            if path.endswith(STREAMED):
                receive = self._part(receive)
            if waits and ticket is None:
                ticket = self.load.enter(_size(headers.get(b"content-length", b"")))
            TICKET.set(ticket)
            await self.app(scope, receive, log.send)
        finally:
            if ticket is not None:
                self.load.leave(ticket)
            if counted is not None:
                counted.leave(scope["usage"].get("tokens", 0))
            self.in_flight -= guarded
            self.metrics.in_flight.set(self.in_flight)
            self._record(log, scope)

    def refuse(self, scope: Scope, waited: float) -> tuple[bytes, bytes] | None:
        """The head, without its end, and the body of the response to a request that is refused by its head.

        Args:
            scope: of the request, with its method, path and headers.
            waited: seconds since it arrived.
        """
        path = scope["path"]
        if self.draining or scope["method"] != "POST" or path in OPEN_PATHS:
            return None
        headers = dict(scope["headers"])
        size = _size(headers.get(b"content-length", b""))
        if not _waits("POST", path, headers.get(b"accept", b"")) or (excess := self.load.excess(size, waited)) <= 0:
            return None
        scope["usage"] = {}
        log = _RequestLog(headers, _nowhere, False, scope["usage"])
        log.status = 429
        self._record(log, scope)
        head, body = _overload_bytes(path, math.ceil(excess))
        return head + b"\r\nx-request-id: " + log.id, body

    def enter(self, scope: Scope, waited: float) -> None:
        """Register a request that is complete and has not been refused, before the application is entered."""
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN_PATHS and _waits(scope["method"], scope["path"], headers.get(b"accept", b"")):
            scope[ENTERED] = self.load.enter(_size(headers.get(b"content-length", b"")), waited)

    def _rejection(self, scope: Scope, path: str, headers: dict[bytes, bytes], waits: bool) -> Any:
        """The response to a request whose body need not be read, if it is rejected."""
        if self.draining:
            return error_response(path, 503, "the service is shutting down: retry in a moment", retry=1)
        preflight = scope["method"] == "OPTIONS" and self.settings.cors
        if self.keys and not preflight:
            scope[KEY] = use = self.keys.find(headers.get(b"authorization", b""))
            if use is None:
                return error_response(path, 401, "an API key is required: send it as Authorization: Bearer …")
            if scope["method"] == "POST" and (refusal := self.keys.refusal(use)) is not None:
                limit, seconds = refusal
                return error_response(path, 429, f"the limit of this API key is {limit}", retry=seconds)
        if self.in_flight - len(self.reading) > self.settings.limits.queue:
            return error_response(path, 429, "too many concurrent requests: retry in a moment", retry=1)
        if waits and (excess := self.load.excess(_size(headers.get(b"content-length", b"")))) > 0:
            return _overloaded(path, excess)
        return None

    def _wrong_host(self, path: str, headers: dict[bytes, bytes]) -> Any:
        """The response to a request that names a host which is not allowed."""
        if self.hosts is None:
            return None
        name = _PORT.sub("", headers.get(b"host", b"").decode("latin-1").strip().lower())
        if not name or name in self.hosts:  # browsers always send one
            return None
        return error_response(path, 403, "the request names a host that is not allowed: serve with --allowed-host HOST")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, path: str) -> tuple[Receive, Any]:
        """Read the body within its limits; returns a `receive` that replays it, and a rejection if there is one."""
        limit = self.settings.limits.body
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > 18 or int(length) > limit):
            return receive, _too_large(path, limit)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.limits.time) as timer, self._waiting(timer):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":  # the client has disconnected
                        return receive, error_response(path, 400, "the body is incomplete")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        return receive, _too_large(path, limit)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            message_408 = f"the body took longer than {self.settings.limits.time:g} s, or others had to wait for it"
            return receive, error_response(path, 408, message_408, close=True)
        body: Message | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = body, None
            return message

        return replay, None

    @contextlib.asynccontextmanager
    async def _waiting(self, timer: asyncio.Timeout) -> AsyncIterator[None]:
        """Count a request that waits for its client. Of too many, the one that has waited longest is timed out."""
        self.reading[timer] = None
        if len(self.reading) > self.settings.limits.queue:
            longest = next(iter(self.reading))
            del self.reading[longest]
            longest.reschedule(asyncio.get_running_loop().time())
        try:
            yield
        finally:
            self.reading.pop(timer, None)

    def _part(self, receive: Receive) -> Receive:
        """The `receive` of a stream, which may wait for its client as long as there are not too many that do."""

        async def part() -> Message:
            try:
                async with asyncio.timeout(None) as timer, self._waiting(timer):
                    return await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}

        return part

    def _record(self, log: _RequestLog, scope: Scope) -> None:
        """Count a request and log it: its route and its cost, never its text."""
        route = getattr(scope.get("route"), "path", None) or "other"
        seconds = time.perf_counter() - log.started
        self.metrics.count(route, log.status, seconds)
        if (use := scope.get(KEY)) is not None:
            self.metrics.count_key(use.key.name, log.status, scope["usage"].get("tokens", 0))
        if logger.isEnabledFor(logging.INFO) and route not in OPEN_PATHS and route != "/metrics":
            line = {
                "time": round(time.time(), 3),
                "request": log.id.decode(),
                "method": scope["method"],
                "route": route,
                "status": log.status,
                "ms": round(1000 * seconds, 2),
                **({} if use is None else {"key": use.key.name}),
                **scope["usage"],
            }
            logger.info("%s", json.dumps(line, separators=(",", ":")))


def _waits(method: str, path: str, accept: bytes) -> bool:
    """Whether a request is rejected, before its body is read, under overload; streams wait for room in the queue."""
    return method == "POST" and not path.endswith(STREAMED) and NDJSON not in accept and not path.startswith(ADMIN)


def _size(length: bytes) -> int:
    """The size of a body by its header; 0 where that is unknown or absurd."""
    return int(length) if length.isdigit() and len(length) < 10 else 0


async def _nowhere(message: Message) -> None:
    pass


def _overloaded(path: str, excess: float) -> Response:
    return error_response(path, 429, "the service is overloaded: retry in a moment", retry=excess)


@lru_cache(64)  # a client may send any path
def _overload_bytes(path: str, seconds: int) -> tuple[bytes, bytes]:
    response = _overloaded(path, seconds)
    lines = [b"HTTP/1.1 429 Too Many Requests", *(b"%b: %b" % pair for pair in (*response.raw_headers, *_HEADERS))]
    return b"\r\n".join(lines), bytes(response.body)


def _too_large(path: str, limit: int) -> Any:
    return error_response(path, 413, f"the body is larger than {limit:,} bytes")


class _RequestLog:
    """The start, id and status of one request; adds headers to its response."""

    def __init__(self, headers: dict[bytes, bytes], send: Send, draining: bool, usage: dict[str, Any]) -> None:
        self.started, self.status, self._send = time.perf_counter(), 0, send
        client_id = headers.get(b"x-request-id", b"")
        # An id is no secret: the system's randomness would be slow, and can take as long as the rest of a request.
        self.id = client_id if _ID.fullmatch(client_id) else b"%032x" % random.getrandbits(128)
        self._close, self._usage = draining, usage

    async def send(self, message: Message) -> None:
        """Pass a message of the response on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *_HEADERS, (b"x-request-id", self.id)]
            if count := self._usage.get("truncated"):  # of a stream it is not known yet
                message["headers"].append((b"x-truncated", b"%d" % count))
            if self._close:
                message["headers"].append((b"connection", b"close"))
        await self._send(message)
