"""Load for a service over HTTP, cheap enough to share a machine with what it measures.

Open loop: each request is sent at its scheduled time, whether or not earlier ones were completed, and its latency
counts from that time, so that a stalled service cannot hide it. Closed loop: a number of clients, each of which sends
its next request after the response to the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

PATIENCE = 60.0  # seconds; without a response by then the request has failed
CONNECTIONS = 256  # at the start of an open loop, as from so many clients
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Outcome:
    """The responses to a load.

    Attributes:
        statuses: count of each HTTP status, and of "refused" (no connection), "closed" (before a byte of a response),
            "cut" (in the middle of one), "late" (no response within `PATIENCE`).
        latencies: in seconds, of responses with status 200.
        seconds: from the first request to the last response.
        lags: seconds by which each request of an open loop was sent too late.
        cpu: share of one processor that the load itself took.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    lags: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def answered(self) -> float:
        """Successful responses per second."""
        return len(self.latencies) / self.seconds

    def ms(self, percent: float) -> float:
        """A percentile of the latencies, in milliseconds; infinite if there are none."""
        return 1000 * float(np.percentile(self.latencies, percent)) if self.latencies else float("inf")

    @property
    def behind(self) -> float:
        """The 99th percentile of the lags, in milliseconds."""
        return 1000 * float(np.percentile(self.lags, 99)) if self.lags else 0.0


def post(path: str, body: Any, **headers: str) -> bytes:
    """A request, ready to be sent."""
    data = json.dumps(body).encode()
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{named}content-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


class _Connection(asyncio.Protocol):
    """A persistent connection with one request at a time."""

    def __init__(self) -> None:
        self.received, self.answer = b"", asyncio.get_running_loop().create_future()
        self.open = False

    def connection_made(self, transport: Any) -> None:
        self.transport, self.open = transport, True

    def send(self, request: bytes) -> asyncio.Future[str]:
        self.received, self.answer = b"", asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and length and len(body) >= int(length[1]) and not self.answer.done():
            self.open = b"connection: close" not in head.lower()
            self.answer.set_result(head[9:12].decode())

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if not self.answer.done():
            self.answer.set_result("cut" if self.received else "closed")


class Client:
    """Connections to a service, used in turn; more are opened when all are busy."""

    def __init__(self, port: int) -> None:
        self.port, self.free = port, deque[_Connection]()

    async def open(self, connections: int) -> None:
        """Open connections one after the other, so that several worker processes each get some."""
        with contextlib.suppress(OSError):  # each request reports it
            for _ in range(connections):
                self.free.append(await self._connected())

    async def _connected(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self.port)
        return connection

    async def ask(self, request: bytes) -> str:
        """The status of the response, or the kind of failure; see `Outcome`."""
        try:
            connection = next((one for one in iter(self._pop, None) if one.open), None) or await self._connected()
        except OSError:
            return "refused"
        try:
            async with asyncio.timeout(PATIENCE):
                status = await connection.send(request)
        except TimeoutError:
            connection.transport.abort()
            return "late"
        if connection.open:
            self.free.append(connection)
        else:
            connection.transport.close()
        return status

    def _pop(self) -> _Connection | None:
        return self.free.popleft() if self.free else None

    async def close(self) -> None:
        """Close all connections."""
        for one in self.free:
            one.transport.close()
        await asyncio.sleep(0)  # sockets are closed in the loop's next turn


async def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float, seed: int = 0) -> Outcome:
    """Send `requests` in turn, `rate` per second at random times."""
    times = np.random.default_rng(seed).exponential(1, max(1, round(rate * seconds))).cumsum()
    times *= len(times) / rate / times[-1]

    async def send(client: Client, found: Outcome) -> None:
        tasks = []
        begun = time.perf_counter()

        async def one(request: bytes, due: float) -> None:
            status = await client.ask(request)
            found.statuses[status] += 1
            if status == "200":
                found.latencies.append(time.perf_counter() - due)

        for number, at in enumerate(times):
            while (pause := begun + at - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            found.lags.append(-pause)
            tasks.append(asyncio.create_task(one(requests[number % len(requests)], begun + at)))
        await asyncio.gather(*tasks)

    return await _measured(port, CONNECTIONS, send)


async def at_once(port: int, requests: Sequence[bytes]) -> Outcome:
    """Send all requests together, each over a connection of its own."""

    async def send(client: Client, found: Outcome) -> None:
        begun = time.perf_counter()

        async def one(request: bytes) -> None:
            status = await client.ask(request)
            found.statuses[status] += 1
            if status == "200":
                found.latencies.append(time.perf_counter() - begun)

        await asyncio.gather(*map(one, requests))

    return await _measured(port, len(requests), send)


async def closed_loop(port: int, requests: Iterable[bytes], clients: int, seconds: float = float("inf")) -> Outcome:
    """Send with several clients until no `requests` are left, or the time is over."""
    rest = iter(requests)

    async def send(client: Client, found: Outcome) -> None:
        end = time.perf_counter() + seconds

        async def one() -> None:
            while (begun := time.perf_counter()) < end and (request := next(rest, None)) is not None:
                status = await client.ask(request)
                found.statuses[status] += 1
                if status == "200":
                    found.latencies.append(time.perf_counter() - begun)

        await asyncio.gather(*(one() for _ in range(clients)))

    return await _measured(port, clients, send)


async def _measured(port: int, connections: int, send: Callable[[Client, Outcome], Awaitable[None]]) -> Outcome:
    client, found = Client(port), Outcome()
    await client.open(connections)
    begun, cpu = time.perf_counter(), _cpu()
    await send(client, found)
    found.seconds = time.perf_counter() - begun
    found.cpu = (_cpu() - cpu) / found.seconds
    await client.close()
    return found


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def service(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A process that serves, its port, and what it writes; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "pocketbert.cli", "serve", "--port", "0", *arguments]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stderr=file)
        try:
            while not (found := re.search(r"http://\S+:(\d+) ", log.read_text(encoding="utf-8"))):
                if process.poll() is not None:
                    raise SystemExit(log.read_text(encoding="utf-8"))
            yield process, int(found[1]), log
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
