"""Engines that misbehave, for the benchmark to live with; and its command with one of them, as a process of its own."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from helpers.shell import start
from pocketbert.bench.peers import Peer, Run, Shape, made
from pocketbert.bench.subjects import Subject
from pocketbert.features import Features

Place = Literal["files", "load", "pass", "nowhere"]


@dataclass(frozen=True)
class Fragile(Peer):
    """An engine whose process meets its end in one place.

    Attributes:
        place: where.
        by: a signal that it sends to itself; 0 reads address nought; -1 raises; -2 waits for ever.
    """

    engine: str = "fragile"
    place: Place = "nowhere"
    by: int = 0

    def made(self, subject: Subject, folder: Path) -> bool:
        """Never, so that its files are always to be made."""
        return False

    def prepare(self, subject: Subject, folder: Path) -> None:
        """Files that are big, and never finished if that is the place."""

        def make(path: Path) -> None:
            path.write_bytes(bytes(1 << 20))
            self._end("files")

        made(folder / f"{self.engine}-{subject.name}" / "model", make)

    def load(self, subject: Subject, folder: Path, shape: Shape | None) -> Run:
        """Something that takes a while over nothing."""
        self._end("load")
        os.write(1, b"a line of the engine's own\n")

        def run(inputs: Sequence[Features]) -> None:
            self._end("pass")
            time.sleep(0.001)

        return run

    def _end(self, place: Place) -> None:
        if place != self.place:
            return
        if self.by == -1:
            raise ValueError("this engine\nis fragile")
        if self.by == -2:
            while True:
                time.sleep(1)
        if self.by == 0:
            ctypes.string_at(0)
        os.kill(os.getpid(), self.by)
        signal.pause()


def bench(peer: Peer, *arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
    """Start `pocketbert bench` with one engine besides ours."""
    code = f"""
from pocketbert.bench import measure, peers
from helpers.peers import Fragile
peers.PEERS = ({peer!r},)
measure.peaks = lambda all_kernels: {{}}  # they take seconds on a busy machine
from pocketbert.cli import bench, main
bench.SECONDS = 0.1
main()
"""
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **options.pop("env", {})}
    return start(["bench", *arguments], command=[sys.executable, "-c", code], env=environment, **options)


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that these have."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found
