from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from helpers.runs import config_in, options_in
from pocketbert.recipes.finetune_options import FinetuneOptions


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    """Write the configuration of a small model, with changes."""
    return partial(config_in, tmp_path)


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., FinetuneOptions]:
    """Options of a run of a second, with changes."""
    return partial(options_in, tmp_path)


@pytest.fixture
def pictures() -> None:
    """Asked for by the tests that look at the pictures of a run."""


@pytest.fixture(autouse=True)
def few_pictures(request: pytest.FixtureRequest) -> None:
    """Only the runs of those tests draw any."""
    if "pictures" not in request.fixturenames:
        request.getfixturevalue("no_pictures")
