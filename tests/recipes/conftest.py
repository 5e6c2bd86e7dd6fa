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
