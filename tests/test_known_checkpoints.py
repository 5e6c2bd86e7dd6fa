"""The page of known checkpoints is what its script writes, and says what the code does."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from pocketbert.configs import AutoConfig
from pocketbert.errors import ConfigError
from pocketbert.families import FAMILIES

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "known_checkpoints"))
ENTRIES: list[dict[str, Any]] = SCRIPT["entries"]()


def test_the_page_is_what_the_script_writes() -> None:
    assert (ROOT / "docs" / "guides" / "known-checkpoints.md").read_text(encoding="utf-8") == SCRIPT["page"]()


def test_fifty_names_once_each() -> None:
    assert len({entry["name"] for entry in ENTRIES}) == len(ENTRIES) == 50


def test_what_was_measured_is_near() -> None:
    measured = [entry for entry in ENTRIES if "tested" in entry]
    assert {entry["tested"] for entry in measured} == {"trained weights", "configuration"}
    assert all(entry["difference"] <= 1e-4 and entry["source"] for entry in measured)
    families = {entry["config"]["model_type"] for entry in measured}
    assert families >= {"bert", "distilbert", "electra", "roberta", "xlm-roberta", "mpnet"}


@pytest.mark.parametrize("entry", [e for e in ENTRIES if not SCRIPT["loads"](e)], ids=lambda entry: entry["name"])
def test_what_does_not_load_is_refused_by_name(entry: dict[str, Any]) -> None:
    assert entry["note"]
    assert "tested" not in entry
    with pytest.raises(ConfigError) as caught:
        AutoConfig.from_dict(entry["config"])
    supported = entry["config"]["model_type"] in FAMILIES
    reason = entry["config"]["position_embedding_type"] if supported else entry["config"]["model_type"]
    assert repr(reason) in str(caught.value)
