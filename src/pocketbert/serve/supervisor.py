"""Several worker processes: they share a port, one that dies is replaced, and all reload together or none does.

The supervisor and each worker talk over a pipe. A reload has two steps: every worker in turn prepares, which may fail,
and then every worker commits, which cannot. One worker at a time loads, so that the others have processors left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, Literal

from pocketbert.errors import ConfigError
from pocketbert.serve.settings import Settings

INTERVAL = 0.05  # seconds between two looks at the workers
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0  # seconds until a worker that could not start is tried again
HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none

logger = logging.getLogger("pocketbert.serve")
Main = Callable[[Settings, int, Event, Connection], None]


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    is_ready: Event
    pipe: Connection

    def send(self, *message: Any) -> None:
        """Send it a message; one that has died is found elsewhere."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)


_Asker = tuple[_Worker, int]  # a worker whose client waits for the outcome, and the number of its question


@dataclass
class _Round:
    """One reload of all workers."""

    asker: _Asker | None
    left: list[_Worker]  # the first of them takes the step now
    taken: list[_Worker] = field(default_factory=list)
    step: Literal["prepare", "commit"] = "prepare"


class Supervisor:
    """Runs worker processes until SIGTERM or SIGINT.

    Args:
        settings: of the service.
        port: that the workers share.
        main: the main function of a worker.
        ready: called once, when all workers accept requests.
    """

    def __init__(self, settings: Settings, port: int, main: Main, ready: Callable[[], None]) -> None:
        self._settings, self._port, self._main, self._ready = settings, port, main, ready
        self._workers: list[_Worker] = []
        self._round: _Round | None = None
        self._stopping = self._hung_up = self._announced = False
        self._delay, self._next_start = FIRST_DELAY, 0.0

    def run(self) -> None:
        """Run the workers. Raises `ConfigError` if one of the first does not start."""
        handlers: dict[Any, Any] = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop}
        if HANGUP is not None:
            handlers[HANGUP] = self._hang_up
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            while len(self._workers) < self._settings.workers:
                self._start()
            while not self._stopping:
                self._look()
        finally:
            for worker in self._workers:
                worker.process.terminate()
            for worker in self._workers:
                worker.process.join()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _hang_up(self, *_: object) -> None:
        self._hung_up = True

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        is_ready, (ours, theirs) = spawn.Event(), spawn.Pipe()
        arguments = (self._settings, self._port, is_ready, theirs)
        process = spawn.Process(target=self._main, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the worker
        self._workers.append(_Worker(process, is_ready, ours))

    def _look(self) -> None:
        """Wait a moment for messages, and see to whatever has happened."""
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), INTERVAL):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                kind, *content = worker.pipe.recv()
            except (EOFError, OSError):  # it has died, or is about to
                time.sleep(INTERVAL)
                continue
            if kind == "reload":
                self._reload((worker, *content))
            else:
                self._done(worker, *content)
        if self._hung_up:
            self._hung_up = False
            if terminal_is_gone():
                self._stopping = True
            else:
                self._reload(None)
        for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
            self._bury(worker)
        if not self._announced and all(worker.is_ready.is_set() for worker in self._workers):
            self._ready()
            self._announced = True
        if len(self._workers) < self._settings.workers and time.monotonic() >= self._next_start:
            self._start()

    def _bury(self, worker: _Worker) -> None:
        """Forget a worker that has died; another takes its place, later if this one could not even start."""
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.is_ready.is_set():
            logger.error("a worker ended with status %s and is replaced", worker.process.exitcode)
            self._delay = FIRST_DELAY
        elif not self._announced:
            raise ConfigError("a worker did not start: its error is above")
        else:
            logger.error("a worker could not start: its error is above; the next attempt is in %g s", self._delay)
            self._next_start = time.monotonic() + self._delay
            self._delay = min(2 * self._delay, LONGEST_DELAY)
        if (now := self._round) is not None:
            if worker is now.left[0]:
                self._done(worker, None if now.step == "commit" else "a worker died", 500)
            for workers in (now.left, now.taken):
                if worker in workers:
                    workers.remove(worker)

    # ── reloads ──

    def _reload(self, asker: _Asker | None) -> None:
        """Begin a reload, for a client of a worker or after a signal."""
        starting = len(self._workers) < self._settings.workers or not all(w.is_ready.is_set() for w in self._workers)
        if self._round is not None or starting:
            busy = "a worker is starting: retry in a moment" if self._round is None else "a reload is in progress"
            if asker is None:
                logger.warning("SIGHUP has no effect: %s", busy)
            else:
                asker[0].send("outcome", asker[1], f"{busy}: nothing was reloaded", 409)
            return
        self._round = _Round(asker, list(self._workers))
        self._workers[0].send("prepare")

    def _done(self, worker: _Worker, problem: str | None, status: int) -> None:
        """A worker has taken a step of the reload, or could not."""
        now = self._round
        if now is None or worker is not now.left[0]:
            return
        now.left.pop(0)
        if problem is not None:
            for other in now.taken:
                other.send("abort")
            self._finish(problem, status)
            return
        now.taken.append(worker)
        if not now.left and now.step == "prepare":
            now.step, now.left, now.taken = "commit", now.taken, []
        if now.left:
            now.left[0].send(now.step)
        else:
            self._finish(None, 200)

    def _finish(self, problem: str | None, status: int) -> None:
        now, self._round = self._round, None
        if problem is None:
            logger.warning("all %d workers have reloaded models and API keys", len(self._workers))
        if now is not None and now.asker is not None:
            now.asker[0].send("outcome", now.asker[1], problem, status)


def terminal_is_gone(began_on_terminal: bool = sys.stdin is not None and sys.stdin.isatty()) -> bool:
    """Whether SIGHUP is the end of the terminal that the service was started on, and not a request to reload."""
    return began_on_terminal and not os.isatty(0)


# ── in a worker ──


class Link:
    """A worker's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._numbers = pipe, itertools.count()
        self._waiting: dict[int, asyncio.Future[tuple[str | None, int]]] = {}

    def start(self, reloader: Any) -> None:
        """Take the supervisor's messages from now on; called in the event loop."""
        self._reloader, self._loop = reloader, asyncio.get_running_loop()
        reloader.ask = self._ask
        threading.Thread(target=self._read, name="pocketbert-link", daemon=True).start()

    async def _ask(self) -> None:
        """Have the supervisor reload all workers; raises `ReloadError`."""
        from pocketbert.serve.reload import ReloadError

        number = next(self._numbers)
        outcome = self._waiting[number] = self._loop.create_future()
        self._pipe.send(("reload", number))
        problem, status = await outcome
        if problem is not None:
            raise ReloadError(problem, status)

    def _read(self) -> None:
        while True:
            try:
                kind, *content = self._pipe.recv()
            except (EOFError, OSError):  # the supervisor is gone, and this process ends for that reason
                return
            if kind == "outcome":
                self._loop.call_soon_threadsafe(self._tell, *content)
            else:
                asyncio.run_coroutine_threadsafe(self._take(kind), self._loop)

    def _tell(self, number: int, problem: str | None, status: int) -> None:
        outcome = self._waiting.pop(number)
        if not outcome.done():
            outcome.set_result((problem, status))

    async def _take(self, step: str) -> None:
        from pocketbert.serve.reload import ReloadError

        try:
            if step == "prepare":
                await self._reloader.prepare()
            elif step == "commit":
                self._reloader.commit()
            else:
                self._reloader.abort()
                return
            self._pipe.send(("done", None, 200))
        except ReloadError as error:
            self._pipe.send(("done", str(error), error.status))
