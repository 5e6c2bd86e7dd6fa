"""Several processes that train one model: what they learn, and what they lose when one dies or all stop (nothing)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from pocketbert.recipes.pretrain import PretrainOptions, pretrain
from pocketbert.recipes.published import MINI_ORIGINS
from training.packed import write_corpus

from .small import SMALL

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--preset", "squeezebert", "--mini", "--steps", "12,6", "--length", "12,20", "--batch-size", "8", "--tokens", "40",
    "--clip", "0.5", "--eval-every", "10", "--eval-batches", "1", "--save-minutes", "0", "--no-tensorboard",
    "--device", "cpu", "--resume",
]  # fmt: skip


def start(corpus: Path, output: Path, *flags: str) -> "subprocess.Popen[str]":
    """Two processes over gloo, with parts that hold unequal numbers of masked words."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = [sys.executable, *launcher, "--monitor-interval=0.05", "-m", "recipes.small", "pretrain", str(corpus)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # a restart must not look for the addresses of the dead
    how: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, str(output), *FLAGS, *flags], **how)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given: dict[str, Any] = {
        "preset": "squeezebert", "mini": True, "steps": (12, 6), "length": (12, 20), "batch_size": (8,), "tokens": 40,
        "clip": 0.5, "eval_every": 10, "eval_batches": 1, "tensorboard": False, "device": "cpu",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(Any, MINI_ORIGINS), "squeezebert", SMALL)
        return pretrain(PretrainOptions(corpus=corpus, output=tmp_path_factory.mktemp("alone"), **given)).folder


@pytest.fixture(scope="module")
def sharded(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(corpus, tmp_path_factory.mktemp("sharded"), "--sharded")


def finished(corpus: Path, output: Path, *flags: str) -> Path:
    run = start(corpus, output, *flags)
    said, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    assert len(said.splitlines()) == 1, "one process speaks"
    return output


def test_two_processes_learn_what_one_does(corpus: Path, alone: Path, sharded: Path, tmp_path: Path) -> None:
    """With copied weights (DDP) and with divided ones (FSDP2): but for the order of sums the same."""
    copied = weights(finished(corpus, tmp_path))
    divided = weights(sharded)
    for name, expected in weights(alone).items():
        torch.testing.assert_close(copied[name], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(divided[name], expected, atol=1e-5, rtol=1e-4)


def test_one_dies_then_all_are_stopped_and_nothing_is_lost(corpus: Path, sharded: Path, tmp_path: Path) -> None:
    """`torchrun` starts them again by itself; on SIGTERM they save, at a step on which all agree. Bit for bit."""
    run = start(corpus, tmp_path, "--sharded")
    wait_until(run, lambda: newest(tmp_path) >= 2)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    died_at = newest(tmp_path)
    wait_until(run, lambda: newest(tmp_path) >= died_at + 2)
    run.terminate()
    _, errors = run.communicate(timeout=600)
    assert run.returncode != 0
    assert f"resuming from {tmp_path}" in errors
    stopped_at = newest(tmp_path)
    assert f"stopped by SIGTERM after step {stopped_at} of 18" in errors
    mine, theirs = weights(finished(corpus, tmp_path, "--sharded")), weights(sharded)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def newest(output: Path) -> int:
    return max((int(path.name[5:]) for path in (output / "checkpoints").glob("step-*[0-9]")), default=0)


def wait_until(run: "subprocess.Popen[str]", holds: Callable[[], bool]) -> None:
    while not holds():
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.001)
