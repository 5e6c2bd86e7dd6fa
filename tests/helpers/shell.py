"""Commands as processes of their own (`start`, `shell`), and what any command wrote."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "pocketbert.cli"]


class Outcome:
    """What a command wrote, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines, of a command that went well."""
        assert self.code == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def text(self) -> str:
        """Standard output, of a command that went well."""
        assert self.code == 0, self.err
        return self.out

    @property
    def error(self) -> str:
        """The one line of a command that went wrong."""
        assert (self.code, self.out) == (1, "")
        [line] = self.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


def start(arguments: Sequence[str | Path], **options: Any) -> "subprocess.Popen[str]":
    """Start a command as a process of its own, its three streams being pipes unless `options` say otherwise."""
    command = options.pop("command", COMMAND)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [*command, *map(str, arguments)], text=True, encoding="utf-8", env=environment, **{**streams, **options}
    )


def shell(*arguments: str | Path, stdin: str = "", **options: Any) -> Outcome:
    """Run a command as a process of its own."""
    process = start(arguments, **options)
    out, err = process.communicate(stdin, timeout=300)
    return Outcome(process.returncode, out, err)
