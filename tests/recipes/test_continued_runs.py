"""Runs with a constant rate: continued as often as wanted, and decayed from any state, which stays as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import kill_when, newest
from helpers.runs import contents
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions

Make = Callable[..., FinetuneOptions]


@pytest.fixture
def constant(options: Make, tmp_path: Path) -> Make:
    """Options of a run with a constant rate, in the folder of this name."""

    def make(name: str, **changes: Any) -> FinetuneOptions:
        defaults: dict[str, Any] = {"schedule": "constant", "warmup_steps": 3, "eval_every": 5, "learning_rate": 5e-3}
        return options(output=tmp_path / name, **{**defaults, **changes})

    return make


def trained(folder: Path) -> dict[str, bytes]:
    """The weights, and the moments of the optimizer, after the last step."""
    files = contents(folder)
    return {
        name: content
        for name, content in files.items()
        if name.startswith(("last", "checkpoints")) and name.endswith(".safetensors")
    }


def test_a_run_in_pieces_is_the_run_in_one(constant: Make, tmp_path: Path) -> None:
    finetune(constant("whole", max_steps=17))
    for steps in (4, 5, 13, 17):
        result = finetune(constant("pieces", max_steps=steps, resume=True))
        assert result.steps == steps
        assert result.history[-1]["step"] == steps
    assert trained(tmp_path / "pieces") == trained(tmp_path / "whole")
    finetune(constant("epochs", epochs=1))
    finetune(constant("epochs", max_steps=17, resume=True))
    assert trained(tmp_path / "epochs") == trained(tmp_path / "whole")


@pytest.mark.slow
def test_a_decay_from_any_state_leaves_the_state(constant: Make, tmp_path: Path) -> None:
    finetune(constant("constant", max_steps=8))
    before = contents(tmp_path / "constant")
    result = finetune(constant("decayed", resume_from=tmp_path / "constant", decay_now=4))
    assert contents(tmp_path / "constant") == before
    assert [entry["step"] for entry in result.history] == [10, 12]
    assert (tmp_path / "decayed" / "model.safetensors").exists()
    run = json.loads((tmp_path / "decayed" / "run.json").read_text())
    assert (run["started_at_step"], run["decay_begins"], run["steps"]) == (8, 8, 12)

    finetune(constant("planned", max_steps=12, decay_last=4 / 12))
    assert trained(tmp_path / "decayed") == trained(tmp_path / "planned")
    undecayed = finetune(constant("constant", max_steps=12, resume=True))
    assert undecayed.steps == 12
    assert trained(tmp_path / "constant") != trained(tmp_path / "planned")


def test_a_decay_may_be_planned_later(constant: Make, tmp_path: Path) -> None:
    finetune(constant("a", max_steps=6, decay_last=0.0))
    finetune(constant("a", max_steps=12, decay_last=0.5, resume=True))
    finetune(constant("b", max_steps=12, decay_last=0.5))
    assert trained(tmp_path / "a") == trained(tmp_path / "b")
    with pytest.raises(
        ConfigError,
        match="12 steps are finished, and the learning rate was to decay from step 6 to 12, and now",
    ):
        finetune(constant("a", max_steps=20, decay_last=0.5, resume=True))


@pytest.mark.slow
def test_a_killed_decay_is_resumed(constant: Make, tmp_path: Path) -> None:
    finetune(constant("constant", max_steps=6))
    changes: dict[str, Any] = {"resume_from": tmp_path / "constant", "decay_now": 40, "eval_every": 7}
    whole = finetune(constant("whole", **changes))
    broken = constant("broken", resume=True, **changes)
    kill_when(lambda: newest(tmp_path / "broken" / "checkpoints") > 6, finetune, broken)
    finetune(constant("constant", max_steps=9, resume=True))  # what was continued may have gone on
    assert finetune(broken).history == whole.history
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_what_a_continued_run_refuses(constant: Make, options: Make, tmp_path: Path) -> None:
    finetune(constant("a", max_steps=6))
    with pytest.raises(ConfigError, match="6 steps are finished, and the run is to have 5"):
        finetune(constant("a", max_steps=5, resume=True))
    with pytest.raises(ConfigError, match=r"options\.learning_rate: was 0\.005, now 0\.001"):
        finetune(constant("a", max_steps=9, learning_rate=1e-3, resume=True))
    with pytest.raises(CheckpointError, match=r"nothing: has no training state to continue"):
        finetune(constant("b", resume_from=tmp_path / "nothing", decay_now=3))
    finetune(options(output=tmp_path / "linear", max_steps=4))
    with pytest.raises(ConfigError, match=r"options\.max_steps: was 4, now 6"):
        finetune(options(output=tmp_path / "linear", max_steps=6, resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosine"}, "--schedule cosine must be one of linear, constant"),
        ({"schedule": "constant"}, "--schedule constant needs --warmup-steps"),
        ({"decay_last": 0.2}, "--decay-last 0.2 needs --schedule constant"),
        ({"schedule": "constant", "warmup_steps": 1, "decay_last": 1.2}, "--decay-last 1.2 must lie in"),
        ({"schedule": "constant", "warmup_steps": -1}, "--warmup-steps -1 must be at least 0"),
        ({"max_steps": 0}, "--max-steps 0 must be at least 1"),
        ({"decay_now": 5}, "--decay-now 5 needs --schedule constant"),
        ({"schedule": "constant", "warmup_steps": 1, "decay_now": 5}, "--decay-now 5 needs --resume-from"),
        (
            {"schedule": "constant", "warmup_steps": 1, "decay_now": 5, "resume_from": "a", "max_steps": 9},
            "--max-steps 9 is not for --decay-now",
        ),
    ],
)
def test_options_that_contradict_each_other(options: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(**changes)


def test_warmup_in_steps(options: Make, tmp_path: Path) -> None:
    fraction = finetune(options(output=tmp_path / "a", max_steps=10, warmup=0.3))
    steps = finetune(options(output=tmp_path / "b", max_steps=10, warmup_steps=3))
    assert trained(fraction.folder) == trained(steps.folder)
