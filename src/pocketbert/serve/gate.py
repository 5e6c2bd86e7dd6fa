"""What every request passes before it is looked at: keys, limits, draining; and after it: headers, metrics, a log line.

It costs a refused request next to nothing, so that a service that is asked too much can still say so.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pocketbert.serve.errors import error
from pocketbert.serve.metrics import Metrics
from pocketbert.serve.settings import Settings

logger = logging.getLogger("pocketbert.serve.requests")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN = {"/", "/health", "/live", "/ready", "/ping", "/favicon.ico"}  # without a key, and while draining
STREAMED = "/lines"  # the end of paths whose body is read line by line
LINES = b"application/x-ndjson"  # asked for by those that take answers as they come
FEW = 16  # requests at a time that are never too many: they hardly fill a batch
_ID = re.compile(rb"[\w.-]{1,64}")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]


class Crowd:
    """The requests under way, and how fast they are answered.

    By Little's law a newcomer waits for as long as it takes to answer as many as are here, whether HTTP takes the time,
    as it does with small models, or the engine.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.here, self._clock = 0, clock
        self._seconds = self._answers = 0.0  # that several were here, of about the latest one; and answers in these
        self._since = 0.0

    @property
    def wait(self) -> float:
        """Seconds that a newcomer may have to wait; 0 if there is little to do, or was so far."""
        return self.here * self._seconds / self._answers if self.here >= FEW and self._answers else 0.0

    def __enter__(self) -> None:
        """One more."""
        self.here += 1
        if self.here == 2:  # how long one takes alone says little about many
            self._since = self._clock()

    def __exit__(self, *_: object) -> None:
        """One is answered."""
        now = self._clock()
        if self.here > 1:
            kept = math.exp(self._since - now)
            self._seconds = kept * self._seconds + 1 - kept
            self._answers = kept * self._answers + 1
        self.here -= 1
        self._since = now


class Gate:
    """The ASGI application around the application."""

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.crowd = Crowd()
        self.keys = [key.encode() for key in settings.keys]
        self.draining = False
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        visit = _Visit(headers, send, self.draining)
        scope["read"] = {}  # what the routes say of what they read
        asked = path not in OPEN
        # Those that stream wait for room; others are not read in vain.
        waits = scope["method"] == "POST" and not path.endswith(STREAMED) and LINES not in headers.get(b"accept", b"")
        self.in_flight += asked
        try:
            refusal = self._refusal(scope["method"], path, headers, waits) if asked else None
            if refusal is None and asked and not path.endswith(STREAMED):
                receive, refusal = await self._body(headers, receive, path)
            if refusal is not None:
                await refusal(scope, receive, visit.send)
            elif waits:
                with self.crowd:
                    await self.app(scope, receive, visit.send)
            else:
                await self.app(scope, receive, visit.send)
        finally:
            self.in_flight -= asked
            self.metrics.in_flight.set(self.in_flight)
            self._note(visit, scope)

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes], waits: bool) -> Any:
        """Why a request is not even read, if so."""
        if self.draining:
            return error(path, 503, "the service is being stopped: ask again in a moment", retry=1)
        preflight = method == "OPTIONS" and self.settings.cors
        if self.keys and not preflight and not self._known(headers.get(b"authorization", b"")):
            return error(path, 401, "an API key is needed: send it as Authorization: Bearer …")
        if self.in_flight > self.settings.limits.queue:
            return error(path, 429, "too many requests at a time: ask again in a moment", retry=1)
        if waits and (excess := self.crowd.wait - self.settings.limits.wait) > 0:
            return error(path, 429, "too much to do: ask again in a moment", retry=excess)
        return None

    def _known(self, header: bytes) -> bool:
        scheme, _, given = header.partition(b" ")
        # All keys are compared, each in constant time, so that the time tells nothing.
        matches = [hmac.compare_digest(given.strip(), key) for key in self.keys]
        return scheme.lower() == b"bearer" and any(matches)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, path: str) -> tuple[Receive, Any]:
        """Read the body, within its limits; what gives it to the application, or why not."""
        limit = self.settings.limits.body
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > 18 or int(length) > limit):
            return receive, _too_large(path, limit)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.limits.time):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":  # gone
                        return receive, error(path, 400, "the body is not complete")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        return receive, _too_large(path, limit)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            return receive, error(path, 408, f"the body took longer than {self.settings.limits.time:g} s")
        whole: Message | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            message, whole = whole, None
            return message

        return replay, None

    def _note(self, visit: _Visit, scope: Scope) -> None:
        """Count a request and log it: its route and what it took, never its text."""
        route = getattr(scope.get("route"), "path", None) or "other"
        seconds = time.perf_counter() - visit.begun
        self.metrics.requests.labels(route, str(visit.status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        if logger.isEnabledFor(logging.INFO) and route not in OPEN and route != "/metrics":
            line = {
                "time": round(time.time(), 3),
                "request": visit.id.decode(),
                "method": scope["method"],
                "route": route,
                "status": visit.status,
                "ms": round(1000 * seconds, 2),
                **scope["read"],
            }
            logger.info("%s", json.dumps(line, separators=(",", ":")))


def _too_large(path: str, limit: int) -> Any:
    return error(path, 413, f"the body is larger than {limit:,} bytes")


class _Visit:
    """One request on its way out: its headers, its status, its name."""

    def __init__(self, headers: dict[bytes, bytes], send: Send, draining: bool) -> None:
        self.begun, self.status, self._send = time.perf_counter(), 0, send
        given = headers.get(b"x-request-id", b"")
        # No secret, so not of the system's randomness, which can take as long as all else here.
        self.id = given if _ID.fullmatch(given) else b"%032x" % random.getrandbits(128)
        self._close = draining

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *_HEADERS, (b"x-request-id", self.id)]
            if self._close:
                message["headers"].append((b"connection", b"close"))
        await self._send(message)
