"""What every request passes before it is looked at: keys, limits, draining; and after it: headers, metrics, a log line.

It costs a refused request next to nothing, so that a service that is asked too much can still say so.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
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
_ID = re.compile(rb"[\w.-]{1,64}")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]


class Gate:
    """The ASGI application around the application."""

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.worker = metrics.models.worker
        self.keys = [key.encode() for key in settings.keys]
        self.draining = False
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = _Visit(scope, send, self.draining)
        scope["read"] = {}  # what the routes say of what they read
        path = scope["path"]
        asked = path not in OPEN
        self.in_flight += asked
        try:
            refusal = self._refusal(scope, path) if asked else None
            if refusal is None and asked and not path.endswith(STREAMED):
                receive, refusal = await self._body(scope, receive, path)
            if refusal is not None:
                await refusal(scope, receive, visit.send)
            else:
                await self.app(scope, receive, visit.send)
        finally:
            self.in_flight -= asked
            self.metrics.in_flight.set(self.in_flight)
            self._note(visit, scope)

    def _refusal(self, scope: Scope, path: str) -> Any:
        """Why a request is not even read, if so."""
        if self.draining:
            return error(path, 503, "the service is being stopped: ask again in a moment", retry=1)
        headers = dict(scope["headers"])
        preflight = scope["method"] == "OPTIONS" and self.settings.cors
        if self.keys and not preflight and not self._known(headers.get(b"authorization", b"")):
            return error(path, 401, "an API key is needed: send it as Authorization: Bearer …")
        if self.in_flight > self.settings.limits.queue:
            return error(path, 429, "too many requests at a time: ask again in a moment", retry=1)
        # Those that stream wait for room; others are not read in vain.
        streams = path.endswith(STREAMED) or LINES in headers.get(b"accept", b"")
        if scope["method"] == "POST" and not streams and (seconds := self.worker.backlog) > self.settings.limits.wait:
            return error(path, 429, "too much to do: ask again in a moment", retry=seconds)
        return None

    def _known(self, header: bytes) -> bool:
        scheme, _, given = header.partition(b" ")
        # All keys are compared, each in constant time, so that the time tells nothing.
        matches = [hmac.compare_digest(given.strip(), key) for key in self.keys]
        return scheme.lower() == b"bearer" and any(matches)

    async def _body(self, scope: Scope, receive: Receive, path: str) -> tuple[Receive, Any]:
        """Read the body, within its limits; what gives it to the application, or why not."""
        limit = self.settings.limits.body
        too_large = error(path, 413, f"the body is larger than {limit:,} bytes")
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and (len(length) > 18 or int(length) > limit):
            return receive, too_large
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
                        return receive, too_large
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


class _Visit:
    """One request on its way out: its headers, its status, its name."""

    def __init__(self, scope: Scope, send: Send, draining: bool) -> None:
        self.begun, self.status, self._send = time.perf_counter(), 0, send
        given = dict(scope["headers"]).get(b"x-request-id", b"")
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
