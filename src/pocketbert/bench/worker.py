"""Engines in processes of their own.

A crash of an engine, such as a segmentation fault in a quantizer, ends its process alone, and is an `EngineError` here.
No engine shares threads or memory with another. Ctrl-C in a terminal reaches this process alone, which ends the others;
if this process is killed, they notice and end.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pocketbert.bench.noise import interruptions, stolen_seconds

if TYPE_CHECKING:
    from pocketbert.bench.peers import Peer, Run, Shape
    from pocketbert.bench.subjects import Subject
    from pocketbert.features import Features

PAUSE = 0.01  # seconds before a turn, in which the threads of the engine before fall asleep: some wait spinning
MOST_PASSES = 10  # in a row
_START = "import sys; sys.path[:] = sys.argv[1:]; from pocketbert.bench.worker import serve; serve()"
_LENGTH = struct.Struct("<Q")


class EngineError(Exception):
    """An engine failed, or its process died."""


@dataclass(frozen=True)
class Turn:
    """Some passes in a row.

    Attributes:
        first: seconds of the first pass, which finds what other engines left in the caches; not among `times`.
        times: seconds of the others.
        interrupted: how many of the others lost a processor; None where no counter tells.
        stolen: seconds that a host took from the processors during the others, summed; None where no counter tells.
    """

    first: float
    times: list[float]
    interrupted: int | None
    stolen: float | None


class Passes:
    """Runs in the process of an engine: makes its files, loads it, takes turns."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.inputs: Sequence[Features] = ()

    def prepare(self, peer: Peer, subject: Subject, folder: Path) -> None:
        """Make the files of an engine in a folder."""
        peer.prepare(subject, folder)

    def load(self, peer: Peer, subject: Subject, folder: Path, shape: Shape | None) -> str:
        """Load an engine instead of the last; name its kernels."""
        self.run = None
        gc.collect()
        self.run = peer.load(subject, folder, shape)
        return peer.kernels(self.run)

    def use(self, inputs: Sequence[Features]) -> None:
        """Run once on the inputs of the turns to come."""
        self.inputs = inputs
        self._pass()

    def turn(self, seconds: float) -> Turn:
        """Run passes in a row for about so long, at least one after the first."""
        time.sleep(PAUSE)
        first = self._pass()
        times: list[float] = []
        interrupted, stolen = 0, stolen_seconds()
        for _ in range(max(1, min(MOST_PASSES, int(seconds / first)))):
            before = interruptions()
            times.append(self._pass())
            interrupted += before != interruptions()
        after = stolen_seconds()
        return Turn(
            first,
            times,
            None if interruptions() is None else interrupted,
            None if stolen is None or after is None else after - stolen,
        )

    def _pass(self) -> float:
        assert self.run is not None
        start = time.perf_counter()
        self.run(self.inputs)
        return time.perf_counter() - start

    def texts(self, inputs: Sequence[Features], size: int) -> float:
        """Seconds for all inputs in batches of `size`."""
        assert self.run is not None
        time.sleep(PAUSE)
        begun = time.perf_counter()
        for start in range(0, len(inputs), size):
            self.run(inputs[start : start + size])
        return time.perf_counter() - begun


class Worker:
    """A process with `Passes`, from the side of the benchmark; every method but `end` may raise `EngineError`."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process is
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            start_new_session=True,  # so that Ctrl-C does not reach it, and it ends with all that it has started
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def prepare(self, peer: Peer, subject: Subject, folder: Path) -> None:
        """See `Passes.prepare`."""
        self._call("prepare", peer, subject, folder)

    def load(self, peer: Peer, subject: Subject, folder: Path, shape: Shape | None) -> str:
        """See `Passes.load`."""
        kernels: str = self._call("load", peer, subject, folder, shape)
        return kernels

    def use(self, inputs: Sequence[Features]) -> None:
        """See `Passes.use`."""
        self._call("use", inputs)

    def turn(self, seconds: float) -> Turn:
        """See `Passes.turn`."""
        turn: Turn = self._call("turn", seconds)
        return turn

    def texts(self, inputs: Sequence[Features], size: int) -> float:
        """See `Passes.texts`."""
        seconds: float = self._call("texts", inputs, size)
        return seconds

    def _call(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send(self._process.stdin, (method, arguments))
            worked, answer = pickle.loads(_receive(self._process.stdout))
        except (BrokenPipeError, EOFError):
            raise EngineError(self._last_words()) from None
        if not worked:
            raise EngineError(answer)
        return answer

    def _last_words(self) -> str:
        """How the process died, and the last line that it wrote."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        how = f"ended with status {status}"
        if status < 0:
            how = "was killed" if -status == signal.SIGKILL else f"crashed: {signal.strsignal(-status)}"
        return f"its process {how}" + (f" ({lines[-1][:120]})" if lines else "")

    def end(self, folder: Path) -> None:
        """End the process and whatever it has started, and remove files of `folder` that it had not finished."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(BrokenPipeError):  # of what was written and not yet sent
                assert stream is not None
                stream.close()
        for unfinished in folder.glob(f".{self.pid}-*.tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)


def serve() -> None:
    """Answer the calls of a `Worker` until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # engines print lines of their own
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        with suppress(EOFError):
            while True:
                waiting.put(_receive(requests))
        os._exit(1)  # the benchmark has ended, perhaps in the middle of a pass

    threading.Thread(target=read, daemon=True).start()
    passes = Passes()
    while True:
        try:
            method, arguments = pickle.loads(waiting.get())
            answer = True, getattr(passes, method)(*arguments)
        except Exception as error:  # an engine may fail in any way
            answer = False, (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        _send(answers, answer)


def _send(stream: IO[bytes], value: object) -> None:
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    head = stream.read(_LENGTH.size)
    content = stream.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
    if not content:
        raise EOFError
    return content
