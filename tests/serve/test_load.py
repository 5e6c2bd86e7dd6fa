"""The load generator of the benchmarks is correct, and a service shuts down cleanly under load."""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.service import running

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from load import Outcome, closed_loop, open_loop, post

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = post("/", {})


async def against(answer: Callable[[int], tuple[float, bytes]], ask: Callable[[int], Outcome]) -> Outcome:
    """Load for a server that gives request n `answer(n)`: after so many seconds, these bytes, maybe not all of them."""
    count, writers = 0, list[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        writers.append(writer)
        while await reader.read(1 << 16):
            number, count = count, count + 1
            seconds, data = answer(number)
            await asyncio.sleep(seconds)
            writer.write(data)
            if not data.endswith(b"ok"):
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        return await asyncio.to_thread(ask, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def test_a_stall_is_not_hidden() -> None:
    """One waiting client would see one slow response; here all requests sent meanwhile see it."""

    def answer(number: int) -> tuple[float, bytes]:
        return (0.5 if number >= 20 else 0.0), ANSWER

    found = asyncio.run(against(answer, lambda port: open_loop(port, [REQUEST], 100, 0.4)))
    assert found.statuses == Counter({"200": 40})
    assert sum(seconds >= 0.5 for seconds in found.latencies) >= 20  # more, where the machine is slow
    assert found.seconds >= 0.5


def test_cut_responses_are_counted() -> None:
    def answer(number: int) -> tuple[float, bytes]:
        return 0.0, [ANSWER, ANSWER[:30], b"", ANSWER.replace(b"200 OK", b"429 Too Many Requests")][number % 4]

    requests = [REQUEST] * 8
    found = asyncio.run(against(answer, lambda port: closed_loop(port, requests, 1)))
    assert found.statuses == Counter({"200": 2, "cut": 2, "closed": 2, "429": 2})
    assert len(found.latencies) == 2


def test_a_closed_port() -> None:
    async def ask() -> Outcome:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await asyncio.to_thread(closed_loop, port, [REQUEST], 1)

    assert asyncio.run(ask()).statuses == Counter({"refused": 1})


@pytest.mark.parametrize("workers", ["1", "2"])
def test_accepted_requests_are_completed_before_shutdown(models: dict[str, Path], workers: str) -> None:
    """SIGTERM under load: the log of the service and the client agree on every response."""
    texts = ["the film is great " * n for n in (1, 4, 9)]

    def requests() -> Iterator[bytes]:
        for number in range(150):
            if number == 60:
                service.process.send_signal(signal.SIGTERM)
            yield post("/v1/classify", {"inputs": texts[number % 3]})

    with running(models["classify"], "--workers", workers) as service:
        found = closed_loop(service.port, requests(), 8)
        written = service.end()
    logged = Counter(str(json.loads(line)["status"]) for line in written.splitlines() if line.startswith("{"))
    assert logged["200"] >= 50
    assert {status: found.statuses[status] for status in logged} == logged
    assert not found.statuses.keys() & {"cut", "late"}
    assert service.process.returncode == 0
