"""A service with a tiny model of every task, as a process of its own, and a client that knows nothing but HTTP.

Where a test must hold something back, the service is in this process (`Inside`), so that no test waits for a clock.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pocketbert.features import Features, Predictor
from pocketbert.serve.app import load_app
from pocketbert.serve.keys import read_keys
from pocketbert.serve.models import Models
from pocketbert.serve.settings import Limits, Settings

COMMAND = [sys.executable, "-m", "pocketbert.cli", "serve", "--port", "0"]


class Reply:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


class Service:
    """A running service."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"https?://\S+:(\d+) ", line)
        assert found, line + self.process.stderr.read()
        self.port = int(found[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
        """Send JSON, or bytes as they are, and read the answer."""
        connection = self.connect()
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            kind = {} if data is None else {"content-type": "application/json"}
            connection.request(method or ("GET" if data is None else "POST"), path, data, {**kind, **named})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def end(self) -> str:
        """Stop it; what it wrote."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=300)
        assert out == ""
        return err


@contextlib.contextmanager
def running(*arguments: str | Path, **environment: str) -> Iterator[Service]:
    """A service for the length of a block."""
    service = Service(*arguments, **environment)
    try:
        yield service
    finally:
        service.end()


class Inside:
    """A service in this process, asked without a socket."""

    def __init__(self, *models: tuple[str, str | Path], limits: Limits | None = None, keys: Path | None = None) -> None:
        named = tuple((name, str(path)) for name, path in models)
        known = read_keys(keys) if keys else ()
        self.guard = load_app(Settings(named, limits=limits or Limits(), log=False, keys=known, key_file=keys))

    @property
    def models(self) -> Models:
        return self.guard.metrics.models

    def __enter__(self) -> "Inside":
        return self

    def __exit__(self, *_: object) -> None:
        self.models.worker.stop()

    async def ask(
        self, path: str, body: Any = None, sent: Callable[[], Awaitable[Any]] | None = None, **headers: str
    ) -> Reply:
        """Ask and read the answer; the body comes when `sent` has happened."""
        data = b"" if body is None else json.dumps(body).encode()
        named = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        scope = {
            "type": "http", "method": "GET" if body is None else "POST", "path": path, "raw_path": path.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in named.items()], "query_string": b"", "scheme": "http",
            "http_version": "1.1", "root_path": "", "client": None, "server": None,
        }  # fmt: skip
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            if sent is not None:
                await sent()
            return {"type": "http.request", "body": data}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.guard(scope, receive, send)
        answered = {k.decode(): v.decode() for k, v in messages[0]["headers"]}
        return Reply(messages[0]["status"], answered, b"".join(one.get("body", b"") for one in messages[1:]))


class Held:
    """A predictor that waits until it may go on."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.busy, self.go = predictor, threading.Event(), threading.Event()

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, Any]]:
        self.busy.set()
        assert self.go.wait(300)
        return self.predictor(inputs)
