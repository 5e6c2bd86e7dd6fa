"""Load for a service over HTTP, cheap enough to share a machine with what it measures.

Open loop: each request is sent at its scheduled time, whether or not earlier ones were completed, and its latency
counts from that time, so that a stalled service cannot hide it. Closed loop: a number of clients, each of which sends
its next request after the response to the last.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

PATIENCE = 300.0  # seconds; without a response by then the request has failed
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


class _Connection:
    """A persistent connection with one request at a time."""

    __slots__ = ("due", "number", "received", "socket", "unsent")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.number = connected, connected.fileno()
        self.received = self.unsent = b""
        self.due = 0.0


class _Clients:
    """Connections to a service, used in turn; more are opened when all are busy.

    Sockets without an event loop between: a request costs a fifth of what it costs with asyncio's protocols.
    """

    def __init__(self, port: int, connections: int) -> None:
        self.address, self.found = ("127.0.0.1", port), Outcome()
        self.free, self.busy = deque[_Connection](), dict[_Connection, None]()
        self._selector = selectors.DefaultSelector()
        with contextlib.suppress(OSError):  # each request reports it
            for _ in range(connections):  # one after the other, so that several worker processes each get some
                self.free.append(self._register(_Connection(socket.create_connection(self.address))))
        self._begun, self._cpu = time.perf_counter(), _cpu()

    def _register(self, connection: _Connection) -> _Connection:
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        return connection

    def ask(self, request: bytes, due: float) -> bool:
        """Send a request, whose latency counts from `due`; returns whether a response may come."""
        if self.free:
            connection = self.free.popleft()
        else:
            connection = _Connection(socket.socket())
            connection.socket.connect_ex(self.address)
            self._register(connection)
        connection.received, connection.unsent, connection.due = b"", request, due
        self.busy[connection] = None
        return self._send(connection)

    def _send(self, connection: _Connection) -> bool:
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:  # not yet connected
            sent = 0
        except ConnectionRefusedError:
            return self._end(connection, "refused", close=True)
        except OSError:
            return self._end(connection, "closed", close=True)
        waited, connection.unsent = connection.unsent, connection.unsent[sent:]
        if connection.unsent or len(waited) != sent:
            self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        return True

    def wait(self, seconds: float) -> int:
        """Receive until something has come, for so many seconds at most; returns how many requests have ended."""
        before = len(self.busy)
        for key, events in self._selector.select(seconds):
            connection: _Connection = key.data
            if events & selectors.EVENT_WRITE and connection in self.busy:
                self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
                if connection.unsent and not self._send(connection):
                    continue
            if events & selectors.EVENT_READ:
                self._receive(connection)
        now = time.perf_counter()
        while self.busy and next(iter(self.busy)).due + PATIENCE < now:
            self._end(next(iter(self.busy)), "late", close=True)
        return before - len(self.busy)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionRefusedError:
            self._end(connection, "refused", close=True)
            return
        except OSError:
            data = b""
        if connection not in self.busy:  # the service has closed an idle one
            self._close(connection)
            self.free.remove(connection)
        elif not data:
            self._end(connection, "cut" if connection.received else "closed", close=True)
        else:
            connection.received += data
            head, end, body = connection.received.partition(b"\r\n\r\n")
            length = _LENGTH.search(head) if end else None
            if length and len(body) >= int(length[1]):
                self._end(connection, head[9:12].decode(), close=b"connection: close" in head.lower())

    def _end(self, connection: _Connection, status: str, *, close: bool) -> bool:
        self.found.statuses[status] += 1
        if status == "200":
            self.found.latencies.append(time.perf_counter() - connection.due)
        del self.busy[connection]
        if close:
            self._close(connection)
        else:
            self.free.append(connection)
        return False

    def _close(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def finish(self) -> Outcome:
        """Receive the rest, close, and return what was found."""
        while self.busy:
            self.wait(0.1)
        self.found.seconds = time.perf_counter() - self._begun
        self.found.cpu = (_cpu() - self._cpu) / self.found.seconds
        while self.free:
            self._close(self.free.popleft())
        self._selector.close()
        return self.found


def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float, seed: int = 0) -> Outcome:
    """Send `requests` in turn, `rate` per second at random times; those of a millisecond go together."""
    times = np.random.default_rng(seed).exponential(1, max(1, round(rate * seconds))).cumsum()
    times *= len(times) / rate / times[-1]
    clients = _Clients(port, CONNECTIONS)
    begun = time.perf_counter()
    for number, at in enumerate(times.tolist()):
        while (pause := begun + at - time.perf_counter()) > 0:
            clients.wait(pause)
        if number % 16 == 0:  # responses are received in time, even if the load is late
            clients.wait(0)
        clients.found.lags.append(time.perf_counter() - begun - at)
        clients.ask(requests[number % len(requests)], begun + at)
    return clients.finish()


def at_once(port: int, requests: Sequence[bytes]) -> Outcome:
    """Send all requests together, each over a connection of its own."""
    clients = _Clients(port, len(requests))
    begun = time.perf_counter()
    for request in requests:
        clients.ask(request, begun)
    return clients.finish()


def closed_loop(port: int, requests: Iterable[bytes], clients: int, seconds: float = float("inf")) -> Outcome:
    """Send with several clients until no `requests` are left, or the time is over."""
    rest, all_of_them = iter(requests), _Clients(port, clients)
    end, ready = time.perf_counter() + seconds, clients
    while ready or all_of_them.busy:
        while ready and (now := time.perf_counter()) < end and (request := next(rest, None)) is not None:
            ready -= all_of_them.ask(request, now)
        if not all_of_them.busy:
            break
        ready += all_of_them.wait(0.1)
    return all_of_them.finish()


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
