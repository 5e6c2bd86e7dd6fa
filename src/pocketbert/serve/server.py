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
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Event
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from pocketbert.errors import ConfigError
from pocketbert.serve.settings import Settings
from pocketbert.serve.supervisor import HANGUP, Link, Supervisor, terminal_is_gone
from pocketbert.serve.tls import Certificate

if TYPE_CHECKING:
    from pocketbert.serve.metrics import Metrics

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
    _certificate(settings)  # a wrong one is found before the port is opened
    if HANGUP is not None:
        signal.signal(HANGUP, signal.SIG_IGN)  # until there is something to reload
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
            Supervisor(settings, port, _worker_main, lambda: ready(port)).run()


def _certificate(settings: Settings) -> Certificate | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


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


def _run(settings: Settings, listener: socket.socket, ready: Callable[[], None], link: Link | None = None) -> None:
    """Serve in this process; with a link to its supervisor if it is one of several workers."""
    from pocketbert.serve.app import load_app
    from pocketbert.serve.connections import Connection
    from pocketbert.serve.middleware import RequestGuard
    from pocketbert.serve.reload import BUSY, ReloadError

    class Server(uvicorn.Server):
        """A server that completes active requests before it stops."""

        def __init__(self, config: uvicorn.Config, guard: RequestGuard) -> None:
            super().__init__(config)
            self.guard = guard

        async def main_loop(self) -> None:
            """Serve until a signal arrives, then complete active requests."""
            loop = asyncio.get_running_loop()
            if link is not None:
                link.start(self.guard.reloader)
            elif HANGUP is not None:
                loop.add_signal_handler(HANGUP, self.hang_up)
            ready()
            gc.freeze()  # modules and models stay: the collector need not scan them again and again
            await super().main_loop()
            self.guard.draining = True
            end = loop.time() + settings.limits.time
            await asyncio.sleep(LINGER)
            while self.guard.in_flight and loop.time() < end and not self.force_exit:
                await asyncio.sleep(0.02)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Start the shutdown; a second signal ends it at once. Unlike uvicorn's, it ends with status 0."""
            self.force_exit = self.should_exit
            self.should_exit = True

        def hang_up(self) -> None:
            """Read models, keys and certificate again; or stop, if the terminal is gone."""
            if terminal_is_gone():
                self.should_exit = True
            else:
                self.reloading = asyncio.ensure_future(self.reload())

        async def reload(self) -> None:
            """Reload; the outcome is in the log."""
            try:
                await self.guard.reloader.reload()
            except ReloadError as error:
                if error.status == BUSY:
                    logger.warning("SIGHUP has no effect: %s", error)

    _return_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL)
    if settings.log:
        _configure_log()
    certificate = _certificate(settings)
    guard = load_app(settings, certificate)
    config = uvicorn.Config(
        guard, log_config=None, access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=30,
        timeout_graceful_shutdown=5, ws="none", http=Connection,
        loop="auto" if certificate is None else "pocketbert.serve.event_loop:make_event_loop",
    )  # fmt: skip
    if certificate is not None:
        config.load()
        config.ssl = certificate.context
    with _sending(settings, guard.metrics):
        Server(config, guard).run(sockets=[listener])


@contextlib.contextmanager
def _sending(settings: Settings, metrics: Metrics) -> Iterator[None]:
    """Send metrics to the collector, if there is one."""
    if settings.otlp is None:
        yield
        return
    from pocketbert.serve.otlp import OtlpSender

    sender = OtlpSender(metrics, settings.otlp)
    sender.start()
    try:
        yield
    finally:
        sender.stop()


# ── one of several workers ──


def _worker_main(settings: Settings, port: int, is_ready: Event, pipe: Pipe) -> None:
    """Main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent ends its workers
    if HANGUP is not None:
        signal.signal(HANGUP, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _listener(settings.host, port, shared=True) as listener:
        _run(settings, listener, is_ready.set, Link(pipe))


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
