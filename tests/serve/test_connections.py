"""Clients that send too much, too slowly, nothing, or stop sending: against a small application on real connections."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from pocketbert.serve import connections
from pocketbert.serve.connections import LARGEST_HEAD, Connection

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the size of the body, half a second after it is complete where the path says so."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        size, more = size + len(message["body"]), message["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
    await send({"type": "http.response.body", "body": b"%d" % size})


class Guarded:
    """The same application, which refuses a path before it is entered."""

    def __init__(self) -> None:
        self.refused, self.entered, self.waited = 0, list[str](), list[float]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] in self.entered or scope["path"] == "/later"
        await application(scope, receive, send)

    def refuse(self, scope: Any, waited: float) -> tuple[bytes, bytes] | None:
        self.waited.append(waited)
        if scope["path"] != "/full":
            return None
        self.refused += 1
        return b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\nretry-after: 1", b"full"

    def enter(self, scope: Any, waited: float) -> None:
        self.entered.append(scope["path"])


@contextlib.asynccontextmanager
async def listening(app: Any = application) -> AsyncIterator[Callable[[], Awaitable[Streams]]]:
    """A server, and how to connect to it."""
    config, state = (
        uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False, ws="none"),
        ServerState(),
    )
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    try:
        yield lambda: asyncio.open_connection("127.0.0.1", port)
    finally:
        for one in list(state.connections):
            one.transport.abort()
        server.close()
        await server.wait_closed()


def on_server(talk: Callable[[Callable[[], Awaitable[Streams]]], Awaitable[None]], app: Any = application) -> None:
    """Run a conversation."""

    async def run() -> None:
        async with listening(app) as connect:
            await asyncio.wait_for(talk(connect), 60)

    asyncio.run(run())
    assert not Connection.idle


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection is closed."""
    with contextlib.suppress(ConnectionResetError):
        return await reader.read()
    return b""


@pytest.mark.parametrize("size", [LARGEST_HEAD - 200, LARGEST_HEAD + 1, 4 << 20])
@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_headers_have_a_limit(size: int, piece: int) -> None:
    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        head = b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * size
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(head), piece):
                writer.write(head[start : start + piece])
                await writer.drain()
            if size < LARGEST_HEAD:
                writer.write(b"\r\nconnection: close\r\n\r\n")
        answer = await ended(reader)
        if size < LARGEST_HEAD:
            assert answer.startswith(b"HTTP/1.1 200 ")
        else:  # a client that goes on sending may see the connection reset before it reads
            assert answer.startswith(b"HTTP/1.1 431 ") or not answer
        writer.close()

    on_server(talk)


def test_headers_never_completed_are_refused_before_they_are() -> None:
    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"a" * LARGEST_HEAD)
        assert (await ended(reader)).endswith(b"the headers are larger than 64 KiB")
        writer.close()

    on_server(talk)


@pytest.mark.parametrize("first", [b"", b"GET /", REQUEST + b"12345"], ids=["silent", "part", "the second request"])
def test_headers_have_a_time_limit(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)

    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(first)
        if first.startswith(REQUEST):
            assert (await reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.5)  # between requests is no limit of this kind
            writer.write(b"GET /")
        for _ in range(3):  # a byte now and then does not help
            await asyncio.sleep(0.08)
            if first:
                writer.write(b"x")
        assert (await ended(reader)).startswith(b"HTTP/1.1 408 ")
        writer.close()

    on_server(talk)


def test_the_body_has_no_part_in_these_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)  # for the head of a busy machine

    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(REQUEST.replace(b"5\r", b"9\r"))
            for byte in b"123456789":
                await asyncio.sleep(0.04)
                writer.write(bytes([byte]))
            assert (await reader.readuntil(b"\r\n\r\n9")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    on_server(talk)


@pytest.mark.parametrize("path", [b"/", b"/slow"])
def test_a_client_that_sends_no_more_is_answered(path: bytes) -> None:
    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(REQUEST.replace(b"/ ", path + b" ") + b"12345")
        writer.write_eof()
        answer = await ended(reader)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"5")
        writer.close()
        for part in (b"", b"GET / HT", REQUEST + b"12"):
            reader, writer = await connect()
            writer.write(part)
            writer.write_eof()
            assert await ended(reader) == b""
            writer.close()

    on_server(talk)


def test_newcomers_take_the_place_of_who_is_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 20)
    monkeypatch.setattr(Connection, "warned", -connections.WARNING_SECONDS)

    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        slow_reader, slow = await connect()
        slow.write(REQUEST.replace(b"/ ", b"/slow ") + b"12345")
        await asyncio.sleep(0.05)
        silent = [await connect() for _ in range(60)]
        reader, writer = await connect()
        writer.write(REQUEST + b"12345")
        assert (await reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200 ")
        assert (await slow_reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200 ")  # it was not idle
        assert await ended(silent[0][0]) == b""
        for _, one in (*silent, (reader, writer), (slow_reader, slow)):
            one.close()

    with caplog.at_level(logging.WARNING):
        on_server(talk)
    assert [record.message for record in caplog.records if record.name == "pocketbert.serve"] == [
        "more than 20 concurrent connections: closing those that were idle longest; a higher limit of open files "
        "(ulimit -n) allows more"
    ]


def test_refusal_before_the_application_is_entered() -> None:
    """The connection goes on, whatever comes of the refused body, unless the client wants to close it."""
    app = Guarded()
    full = REQUEST.replace(b"/ ", b"/full?a=b ")

    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        for pieces in ([full + b"12345"], [full, b"12", b"345"], [full[:30], full[30:] + b"12345"]):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            answer = await reader.readuntil(b"\r\n\r\nfull")
            assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            assert b"\r\nretry-after: 1\r\n" in answer
            writer.write(REQUEST + b"12345")
            assert (await reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200 ")
        for path in (b"/later ", b"/full "):  # behind a response that is not complete it is for the application to say
            writer.write(REQUEST.replace(b"/ ", b"/slow ") + b"12345" + REQUEST.replace(b"/ ", path) + b"12345")
            app.entered.append(path.strip().decode())
            for _ in range(2):
                assert (await reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        reader, writer = await connect()
        writer.write(full.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + b"12345")
        assert (await ended(reader)).startswith(b"HTTP/1.1 429 ")
        writer.close()

    on_server(talk, app)
    assert app.refused == 4
    assert app.entered.count("/") == 3


def test_a_refused_body_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)

    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(REQUEST.replace(b"/ ", b"/full ") + b"123")
        assert (await ended(reader)).startswith(b"HTTP/1.1 429 ")
        writer.close()

    on_server(talk, Guarded())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when data arrived")
def test_time_in_an_unread_socket_is_known() -> None:
    app = Guarded()

    async def talk(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        for seconds in (0.0, 0.2):
            await asyncio.sleep(0.05)
            writer.write(REQUEST + b"12345")
            time.sleep(seconds)  # nothing is read meanwhile
            await reader.readuntil(b"\r\n\r\n5")
        writer.close()

    on_server(talk, app)
    assert app.waited[1] >= 0.19
