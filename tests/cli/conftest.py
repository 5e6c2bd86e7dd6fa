"""Commands inside this process (`run`); as processes of their own they are in `helpers.shell`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers.shell import Outcome
from pocketbert import cli


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> Callable[..., Outcome]:
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv(cli.DEBUG, raising=False)

    def run(*arguments: str | Path, stdin: str | bytes | None = None) -> Outcome:
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run
