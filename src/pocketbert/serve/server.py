"""Processes and their end: on SIGTERM new requests get 503, those under way are answered, then uvicorn stops."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from types import FrameType

import uvicorn

from pocketbert.errors import ConfigError
from pocketbert.serve.settings import Settings

LINGER = 0.3  # seconds in which clients that keep connections hear of the end
SWITCH = 0.0005  # seconds; with Python's own 5 ms the engine would wait that long for its next batch
FILES = "PROMETHEUS_MULTIPROC_DIR"
M_MMAP_THRESHOLD, LARGE = -3, 1 << 17  # of malloc.h; and bytes

logger = logging.getLogger("pocketbert.serve")


def serve(settings: Settings, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the port when requests are answered.

    Raises:
        ConfigError: the address cannot be used, or a worker does not start.
        CheckpointError: a model cannot be read.
    """
    shared = settings.workers > 1
    _many_connections()
    if shared and settings.port:
        _listener(settings.host, settings.port, shared=False).close()  # nobody else's: that would be shared, too
    with _listener(settings.host, settings.port, shared=shared) as listener:
        port = listener.getsockname()[1]
        if not shared:
            _run(settings, listener, lambda: ready(port))
            return
        with tempfile.TemporaryDirectory(prefix="pocketbert-") as folder:
            os.environ[FILES] = folder  # the workers' metrics, so that any can tell those of all
            _supervise(settings, port, lambda: ready(port))


def _listener(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket that holds an address; if it is `shared`, others may too, and the system deals the connections out."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host} port {port}: {told}") from None
    return listener


def _many_connections() -> None:
    """Let this process and its workers have as many as the system permits; many give 1,024 unless asked for more."""
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # "no limit" is not always one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _give_back() -> None:
    """Have what was large go back to the system when it is freed.

    glibc would learn to keep it, between small things that stay, and a service would grow for its first hours: its
    memory is then what lives in it and the holes.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)


def _run(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """One process that answers."""
    from pocketbert.serve.app import load_app
    from pocketbert.serve.gate import Gate

    class Server(uvicorn.Server):
        """A server that ends well."""

        def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
            super().__init__(config)
            self.gate = gate

        async def main_loop(self) -> None:
            """Answer until a signal comes, then what is under way."""
            ready()
            gc.freeze()  # modules and models stay: no use in looking at them again and again
            await super().main_loop()
            self.gate.draining = True
            loop = asyncio.get_running_loop()
            end = loop.time() + settings.limits.time
            await asyncio.sleep(LINGER)
            while self.gate.in_flight and loop.time() < end and not self.force_exit:
                await asyncio.sleep(0.02)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Begin to end; the second time, end at once. Unlike uvicorn's it is not raised again: this end is good."""
            self.force_exit = self.should_exit
            self.should_exit = True

    _give_back()
    sys.setswitchinterval(SWITCH)
    if settings.log:
        _log()
    gate = load_app(settings)
    config = uvicorn.Config(
        gate, log_config=None, access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=30,
        timeout_graceful_shutdown=5, ws="none",
    )  # fmt: skip
    Server(config, gate).run(sockets=[listener])


# ── several ──


def _supervise(settings: Settings, port: int, ready: Callable[[], None]) -> None:
    """Processes that share a port; one that dies is replaced, unless it never answered."""
    spawn = multiprocessing.get_context("spawn")
    stopping = False
    workers: list[tuple[BaseProcess, Event]] = []

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    def start() -> None:
        answers = spawn.Event()
        process = spawn.Process(target=_work, args=(settings, port, answers), daemon=True)
        process.start()
        workers.append((process, answers))

    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGTERM, signal.SIGINT)}
    told = False
    try:
        for _ in range(settings.workers):
            start()
        while not stopping:
            time.sleep(0.05)
            if not told and all(answers.is_set() for _, answers in workers):
                ready()
                told = True
            for process, answers in [pair for pair in workers if not pair[0].is_alive()]:
                workers.remove((process, answers))
                if not answers.is_set():
                    raise ConfigError("a worker did not start: what it wrote above says why")
                logger.error("a worker ended with status %s: another takes its place", process.exitcode)
                start()
    finally:
        for process, _ in workers:
            process.terminate()
        for process, _ in workers:
            process.join()
        for sig, handler in before.items():
            signal.signal(sig, handler)


def _work(settings: Settings, port: int, answers: Event) -> None:
    """What a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent says when
    with _listener(settings.host, port, shared=True) as listener:
        _run(settings, listener, answers.set)


def _log() -> None:
    """Write what happens to standard error: a line of JSON a request, errors as they are."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    requests = logging.getLogger("pocketbert.serve.requests")
    requests.handlers, requests.propagate = [handler], False
    requests.setLevel(logging.INFO)
