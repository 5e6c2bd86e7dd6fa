"""Processes and their shutdown: after SIGTERM new requests get 503, active ones are completed, then uvicorn stops."""

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
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from types import FrameType

import uvicorn

from pocketbert.errors import ConfigError
from pocketbert.serve.settings import Settings

LINGER = 0.3  # seconds in which clients that keep connections open learn of the shutdown
SWITCH_INTERVAL = 0.0005  # seconds; with Python's own 5 ms the engine would wait that long for its next batch
FILES = "PROMETHEUS_MULTIPROC_DIR"
M_MMAP_THRESHOLD, LARGE = -3, 1 << 17  # of malloc.h; and bytes

logger = logging.getLogger("pocketbert.serve")


def serve(settings: Settings, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the port once requests are accepted.

    Raises:
        ConfigError: the address cannot be used, or a worker does not start.
        CheckpointError: a model cannot be read.
    """
    shared = settings.workers > 1
    _raise_connection_limit()
    if shared and settings.port:
        _listener(settings.host, settings.port, shared=False).close()  # fails if another service shares the port
    with _listener(settings.host, settings.port, shared=shared) as listener:
        port = listener.getsockname()[1]
        if not shared:
            _run(settings, listener, lambda: ready(port))
            return
        with tempfile.TemporaryDirectory(prefix="pocketbert-") as folder:
            os.environ[FILES] = folder  # metrics of the workers, so that any of them can report those of all
            _supervise(settings, port, lambda: ready(port))


def _listener(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket bound to an address; if `shared`, others may bind to it too, and the system distributes connections."""
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
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}") from None
    return listener


def _raise_connection_limit() -> None:
    """Allow this process and its workers as many open files as the system permits; the usual limit is 1,024."""
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # "no limit" is not always accepted
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _return_freed_memory() -> None:
    """Make the allocator return large blocks to the system when they are freed.

    By default glibc adapts and keeps them, between small blocks that stay, so that a service would grow for its first
    hours: its memory is then the live blocks and the holes between them.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)


def _run(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve in this process."""
    from pocketbert.serve.app import load_app
    from pocketbert.serve.connections import Connection
    from pocketbert.serve.middleware import RequestGuard

    class Server(uvicorn.Server):
        """A server that completes active requests before it stops."""

        def __init__(self, config: uvicorn.Config, guard: RequestGuard) -> None:
            super().__init__(config)
            self.guard = guard

        async def main_loop(self) -> None:
            """Serve until a signal arrives, then complete active requests."""
            ready()
            gc.freeze()  # modules and models stay: the collector need not scan them again and again
            await super().main_loop()
            self.guard.draining = True
            loop = asyncio.get_running_loop()
            end = loop.time() + settings.limits.time
            await asyncio.sleep(LINGER)
            while self.guard.in_flight and loop.time() < end and not self.force_exit:
                await asyncio.sleep(0.02)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Start the shutdown; a second signal ends it at once. Unlike uvicorn's, it ends with status 0."""
            self.force_exit = self.should_exit
            self.should_exit = True

    _return_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL)
    if settings.log:
        _configure_log()
    guard = load_app(settings)
    config = uvicorn.Config(
        guard, log_config=None, access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=30,
        timeout_graceful_shutdown=5, ws="none", http=Connection,
    )  # fmt: skip
    Server(config, guard).run(sockets=[listener])


# ── several workers ──


def _supervise(settings: Settings, port: int, ready: Callable[[], None]) -> None:
    """Run worker processes that share a port; one that dies is replaced, unless it was never ready."""
    spawn = multiprocessing.get_context("spawn")
    stopping = False
    workers: list[tuple[BaseProcess, Event]] = []

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    def start() -> None:
        is_ready = spawn.Event()
        process = spawn.Process(target=_worker_main, args=(settings, port, is_ready), daemon=True)
        process.start()
        workers.append((process, is_ready))

    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGTERM, signal.SIGINT)}
    announced = False
    try:
        for _ in range(settings.workers):
            start()
        while not stopping:
            time.sleep(0.05)
            if not announced and all(is_ready.is_set() for _, is_ready in workers):
                ready()
                announced = True
            for process, is_ready in [pair for pair in workers if not pair[0].is_alive()]:
                workers.remove((process, is_ready))
                if not is_ready.is_set():
                    raise ConfigError("a worker did not start: its error is above")
                logger.error("a worker ended with status %s and is replaced", process.exitcode)
                start()
    finally:
        for process, _ in workers:
            process.terminate()
        for process, _ in workers:
            process.join()
        for sig, handler in before.items():
            signal.signal(sig, handler)


def _worker_main(settings: Settings, port: int, is_ready: Event) -> None:
    """Main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _listener(settings.host, port, shared=True) as listener:
        _run(settings, listener, is_ready.set)


def _end_with_parent() -> None:
    """End this worker as by SIGTERM when its parent is gone, however that ended: nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _configure_log() -> None:
    """Log to standard error: a line of JSON per request, errors as they are."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    requests = logging.getLogger("pocketbert.serve.requests")
    requests.handlers, requests.propagate = [handler], False
    requests.setLevel(logging.INFO)
