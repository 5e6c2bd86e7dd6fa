import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pocketbert.errors import CheckpointError
from pocketbert.training.optim import adamw
from pocketbert.training.state import Saver, State, fork_state, latest_state, load_state, read_progress


class Tied(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.decoder = nn.Linear(width, 5)
        self.decoder.weight = self.embedding.weight
        self.unused = nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros(3))

    def forward(self, ids: Tensor) -> Tensor:
        return self.decoder(self.embedding(ids)).sum()


def trained(steps: int) -> tuple[Tied, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = Tied()
    optimizer = adamw(module, learning_rate=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.arange(5)).square().backward()
        optimizer.step()
    module.get_buffer("count").add_(steps)
    return module, optimizer


def save_state(folder: Path, state: State, module: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    with Saver(folder) as saver:
        saver.save(state, module, optimizer)
    return folder / f"step-{state.step:08d}"


def test_a_state_without_moments_cannot_be_resumed(tmp_path: Path) -> None:
    path = save_state(tmp_path, State(step=3), *trained(3))
    save_file({}, path / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"after step 3, but not the moments .*--model"):
        load_state(path, *trained(0))
    start = save_state(tmp_path / "start", State(step=0), *trained(0))  # which has none yet
    assert load_state(start, *trained(0)).step == 0


def test_a_state_restores_everything_bit_for_bit(tmp_path: Path) -> None:
    module, optimizer = trained(3)
    state = State(step=3, history=[{"step": 3, "accuracy": 0.1 + 0.2}])
    path = save_state(tmp_path, state, module, optimizer)
    other, other_optimizer = trained(0)
    assert load_state(path, other, other_optimizer) == state
    assert other.decoder.weight is other.embedding.weight
    for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    mine, theirs = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[i][key], theirs[i][key]) for i in mine for key in mine[i])
    assert {key for i in mine for key in mine[i]} == {"step", "exp_avg", "exp_avg_sq"}


def test_only_the_newest_state_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_state(tmp_path, State(step=step), *trained(0))
        assert [path.name for path in tmp_path.iterdir()] == [f"step-{step:08d}"]
    assert latest_state(tmp_path) == tmp_path / "step-00000010"


def test_an_unfinished_state_is_ignored_and_removed(tmp_path: Path) -> None:
    assert latest_state(tmp_path / "none") is None
    save_state(tmp_path, State(step=1), *trained(0))
    (tmp_path / "step-00000002.tmp").mkdir()
    (tmp_path / "step-00000002.tmp" / "weights.safetensors").write_bytes(b"half")
    assert latest_state(tmp_path) == tmp_path / "step-00000001"
    save_state(tmp_path, State(step=2), *trained(0))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_step_may_be_saved_again_once_it_is_evaluated(tmp_path: Path) -> None:
    module, optimizer = trained(1)
    save_state(tmp_path, State(step=1), module, optimizer)
    evaluated = State(step=1, history=[{"step": 1, "loss": 0.5}])
    path = save_state(tmp_path, evaluated, module, optimizer)
    assert load_state(path, module, optimizer) == evaluated
    assert sorted(p.name for p in path.iterdir()) == ["optimizer.safetensors", "state.json", "weights.safetensors"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "other"])
def test_damaged_states_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    path = save_state(tmp_path, State(step=1), *trained(1))
    whole = (path / name).read_bytes()
    contents = {"empty": b"", "truncated": whole[: len(whole) // 2], "other": b"[1, 2, 3]"}
    if damage == "missing":
        (path / name).unlink()
    else:
        (path / name).write_bytes(contents[damage])
    without_moments = (damage, name) == ("missing", "optimizer.safetensors")
    problem = "has the weights .* but not the moments" if without_moments else "is damaged"
    with pytest.raises(CheckpointError, match=f"step-00000001: {problem}"):
        load_state(path, *trained(0))


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    path = save_state(tmp_path, State(step=12, history=[{"step": 12, "loss": 0.5}]), *trained(1))
    content = bytearray((path / name).read_bytes())
    content[content.index(b"12") + 1 if name == "state.json" else -3] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged and cannot be resumed: .*checksum"):
        load_state(path, *trained(0))


@pytest.mark.parametrize(
    "summary", ['{"history": []}', '{"step": "1"}', '{"step": 1, "history": [2]}', '{"step": 1, "x": 2}']
)
def test_summaries_that_say_something_else(tmp_path: Path, summary: str) -> None:
    path = save_state(tmp_path, State(step=1), *trained(1))
    (path / "state.json").write_text(summary)
    with pytest.raises(CheckpointError, match=r"step-00000001: is damaged"):
        load_state(path, *trained(0))


def test_moments_in_another_shape(tmp_path: Path) -> None:
    path = save_state(tmp_path, State(step=1), *trained(1))
    moments = load_file(path / "optimizer.safetensors")
    moments["embedding.weight/exp_avg"] = torch.zeros(4, 5)
    save_file(moments, path / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"embedding\.weight/exp_avg in another shape than the model"):
        load_state(path, *trained(0))


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    path = save_state(tmp_path, State(step=1), *trained(1))
    other = Tied(width=6)
    with pytest.raises(CheckpointError, match=r"another model; these differ: embedding\.weight"):
        load_state(path, other, adamw(other, learning_rate=0.1))


def test_a_full_disk_leaves_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save_state(tmp_path, State(step=1), *trained(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"disk is full.*last undamaged state is .*step-00000001"):
        save_state(tmp_path, State(step=2), *trained(2))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load_state(good, *trained(0)).step == 1


def test_a_failing_rename_leaves_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, State(step=1), *trained(1))
    replace = Path.replace

    def fails(path: Path, target: Path) -> Path:
        if path.is_dir():
            raise OSError(5, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(CheckpointError, match=r"Input/output error; the last undamaged state is"):
        save_state(tmp_path, State(step=2), *trained(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_no_folder_can_be_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="no state has been saved yet"):
        save_state(tmp_path / "file" / "checkpoints", State(step=1), *trained(1))


def test_best_and_stale() -> None:
    state = State(history=[{"step": i, "accuracy": a, "loss": -a} for i, a in enumerate((0.1, 0.5, float("nan"), 0.5))])
    for metric in ("accuracy", "loss"):
        best = state.best(metric)
        assert best is state.history[1]
        assert state.evaluations_since_best(metric) == 2
    assert State().best("accuracy") is None
    assert State().evaluations_since_best("accuracy") == 0
    assert json.loads(json.dumps(state.history[1])) == state.history[1]


def test_another_run_may_continue_a_state(tmp_path: Path) -> None:
    source = save_state(tmp_path / "a", State(step=3, history=[{"step": 3, "loss": 0.5}]), *trained(3))
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    folder = tmp_path / "b"
    folder.mkdir()
    assert fork_state(source, folder) == State(step=3, start=3)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == files
    newest = latest_state(folder)
    assert newest == folder / "step-00000003"
    assert load_state(newest, *trained(0)) == read_progress(newest) == State(step=3, start=3)
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert (newest / name).read_bytes() == files[name]
    (source / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is damaged"):
        fork_state(source, tmp_path / "c")


def test_a_state_that_cannot_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays of what was copied before the disk was full."""
    source = save_state(tmp_path / "a", State(step=3), *trained(3))
    folder = tmp_path / "b"
    folder.mkdir()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"step-00000003: cannot be copied to .*b: .*disk is full"):
        fork_state(source, folder)
    assert list(folder.iterdir()) == []
