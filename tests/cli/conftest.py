"""Tiny models with random weights, the shell inside this process (`run`) and as a process of its own (`shell`)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pocketbert import cli
from pocketbert.tokenization import SqueezeBertTokenizer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from every_task import every_task

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("the", "film", "is", "great", "dull", "marie", "curie", "was", "born", "in", "warsaw", "poland", ".", ",", "?")
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS), *WORDS]
COMMAND = [sys.executable, "-m", "pocketbert.cli"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each command."""
    tokenizer = SqueezeBertTokenizer(vocab={piece: i for i, piece in enumerate(PIECES)}, model_max_length=64)
    return every_task(tmp_path_factory.mktemp("models"), tokenizer, width=32, longest=64)


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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv(cli.DEBUG, raising=False)

    def run(*arguments: str | Path, stdin: str | bytes | None = None) -> Outcome:
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


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
    out, err = process.communicate(stdin, timeout=120)
    return Outcome(process.returncode, out, err)
