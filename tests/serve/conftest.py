"""A service with a tiny model of every task, as a process of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.service import Service, running
from pocketbert.bundles import BUNDLED, SENTIMENT


@pytest.fixture(scope="session")
def service(models: dict[str, Path]) -> Iterator[Service]:
    """All of them at one address, the bundled one first."""
    named = [f"{name}={path}" for name, path in models.items()]
    with running(BUNDLED / SENTIMENT, *named, "--max-texts", "300", "--no-log") as one:  # nobody reads what it writes
        yield one
