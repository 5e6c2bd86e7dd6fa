"""Several processes that train one model: what they learn, and what they lose when one dies or all stop (nothing)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.corpora import write_corpus
from helpers.labelled import reviews, write_csv
from helpers.packed import IB_BERT, MOBILEBERT, SQUEEZEBERT
from helpers.processes import newest, together
from helpers.runs import config_in
from pocketbert.recipes.pretrain import pretrain
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.transfer import transfer
from pocketbert.recipes.transfer_options import TransferOptions

ROOT = Path(__file__).parents[2]
CHANGES: dict[str, Any] = {"num_hidden_layers": 2, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 32}
GIVEN: dict[str, Any] = {
    "mini": True, "steps": (8, 4), "length": (12, 20), "batch_size": (8,), "tokens": 40, "clip": 0.5,
    "eval_every": 6, "eval_batches": 1, "tensorboard": False, "device": "cpu",
}  # fmt: skip
TAUGHT: dict[str, Any] = {
    **GIVEN, "preset": "mobilebert", "steps": (2, 1), "strategy": "progressive", "layer_steps": 2,
    "layer_batch_size": 8, "layer_rate": 0.01, "lower_rate": 0.3,
}  # fmt: skip
DIES = ("--sharded", "--save-minutes", "0")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def squeezebert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is pretrained; its micro-batches hold unequal numbers of masked words."""
    file = tmp_path_factory.mktemp("squeezebert") / "config.json"
    file.write_text(json.dumps(SQUEEZEBERT.replace(**CHANGES).to_dict()))
    return {**GIVEN, "preset": "squeezebert", "config": file}


@pytest.fixture(scope="module")
def mobilebert(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is taught, layer after layer, by an IB-BERT that has learned a little."""
    folder = tmp_path_factory.mktemp("mobilebert")
    for name, config in (("student", MOBILEBERT), ("teacher", IB_BERT)):
        (folder / f"{name}.json").write_text(json.dumps(config.replace(**CHANGES).to_dict()))
    given = {**GIVEN, "preset": "ib-bert", "config": folder / "teacher.json", "steps": (2, 1)}
    pretrain(PretrainOptions(corpus=corpus, output=folder / "teacher", **given))
    return {**TAUGHT, "config": folder / "student.json", "teacher": str(folder / "teacher")}


@pytest.fixture(scope="module")
def sharded(corpus: Path, squeezebert: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished("pretrain", corpus, tmp_path_factory.mktemp("sharded") / "out", squeezebert, "--sharded")


def arguments(command: str, corpus: Path, output: Path, given: dict[str, Any], *flags: str) -> list[str]:
    """The options as flags."""
    shown = [command, str(corpus), str(output), "--no-tensorboard", "--resume", *flags]
    for name, value in given.items():
        if value is not False:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            flag = "--model-config" if name == "config" else f"--{name.replace('_', '-')}"
            shown += [flag, *([] if value is True else [text])]
    return shown


def finished(command: str, corpus: Path, output: Path, given: dict[str, Any], *how: str) -> Path:
    """The folder of a run in two processes."""
    run = together(output, arguments(command, corpus, output, given, *how))
    assert run.ends() == 0, run.said("err")
    assert len(run.said("out").splitlines()) == 1, "one process speaks"
    return output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def close(mine: Path, theirs: Path, but: str = "nothing") -> None:
    for name, expected in weights(theirs).items():
        if name.endswith(but):
            continue
        torch.testing.assert_close(weights(mine)[name], expected, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def alone(corpus: Path, squeezebert: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("alone") / "out"
    return pretrain(PretrainOptions(corpus=corpus, output=output, **squeezebert)).folder


def test_two_processes_learn_what_one_does(
    corpus: Path, squeezebert: dict[str, Any], sharded: Path, alone: Path, tmp_path: Path
) -> None:
    """With copied weights (DDP), and with divided ones (FSDP2): the order of sums aside."""
    close(sharded, alone)
    close(finished("pretrain", corpus, tmp_path / "copied", squeezebert), alone)


@pytest.mark.slow
def test_the_documented_command(corpus: Path, squeezebert: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "pocketbert.cli", *arguments("pretrain", corpus, tmp_path / "copied", squeezebert)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 1, "one process speaks"
    close(tmp_path / "copied", alone)


@pytest.mark.slow
def test_one_dies_then_all_are_stopped_and_nothing_is_lost(
    corpus: Path, squeezebert: dict[str, Any], sharded: Path, tmp_path: Path
) -> None:
    """`torchrun` starts them again by itself; on SIGTERM they save, at a step on which all agree. Bit for bit."""
    output, states = tmp_path / "out", tmp_path / "out" / "checkpoints"
    run = together(output, arguments("pretrain", corpus, output, squeezebert, *DIES))
    run.wait_until(lambda: newest(states) >= 2)
    os.kill(run.workers()[1], signal.SIGKILL)
    died_at = newest(states)
    run.wait_until(lambda: newest(states) >= died_at + 2)
    run.agent.terminate()
    assert run.ends() != 0
    assert f"resuming from {output}" in run.said("err")
    stopped_at = newest(states)
    assert f"stopped by SIGTERM after step {stopped_at} of 12" in run.said("err")
    mine, theirs = weights(finished("pretrain", corpus, output, squeezebert, "--sharded")), weights(sharded)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_sharded_transfer_learns_what_one_process_does_and_loses_nothing(
    corpus: Path, mobilebert: dict[str, Any], tmp_path: Path
) -> None:
    """Layer after layer, with layers below that learn slowly and all else at rest; one is killed on the way."""
    alone = transfer(TransferOptions(corpus=corpus, output=tmp_path / "alone", **mobilebert)).folder
    whole = finished("transfer", corpus, tmp_path / "whole", mobilebert, "--sharded")
    close(whole, alone)
    output, states = tmp_path / "out", tmp_path / "out" / "checkpoints"
    run = together(output, arguments("transfer", corpus, output, mobilebert, *DIES))
    run.wait_until(lambda: newest(states) >= 3)  # in the second layer's steps
    os.kill(run.workers()[0], signal.SIGKILL)
    assert run.ends() == 0, run.said("err")
    assert f"resuming from {output}" in run.said("err")
    mine, theirs = weights(output), weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


# ── labelled data ──


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """46 reviews, of which 4 are held out: the last batch of an epoch has 2, and that of the one before 8."""
    return write_csv(tmp_path_factory.mktemp("reviews") / "reviews.csv", reviews(46))


def taught(command: str, data: Path, output: Path, *flags: str) -> list[str]:
    given = {
        "epochs": 2,
        "batch-size": 8,
        "learning-rate": 0.005,
        "device": "cpu",
        "precision": "fp32",
        "output": output,
    }
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return [command, str(data), *options, "--no-tensorboard", "--resume", *flags]


def same_run(mine: Path, theirs: Path) -> None:
    """The same weights and evaluations, the order of sums aside.

    Biases of keys change no attention: Adam, which divides gradients by their size, moves them by rounding alone.
    """
    close(mine, theirs, but="key.bias")
    close(mine / "last", theirs / "last", but="key.bias")
    histories = [json.loads((folder / "run.json").read_text())["history"] for folder in (mine, theirs)]
    for entry, other in zip(*histories, strict=True):
        assert entry == pytest.approx(other, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--sharded",)], ids=["copied", "sharded"])
def test_fine_tuning_in_two_processes(how: tuple[str, ...], reviewed: Path, tmp_path: Path) -> None:
    """As one process with as many micro-batches; the folder is complete, and the run can be resumed by one process."""
    model = ["--from-scratch", config_in(tmp_path), "--vocab-size", "120"]
    run = together(tmp_path / "two", taught("finetune", reviewed, tmp_path / "two", *model, *how))
    assert run.ends() == 0, run.said("err")
    assert len(run.said("out").splitlines()) == 1, "one process speaks"
    assert "in 2 processes" in run.said("err")
    assert ("with sharded weights" in run.said("err")) == bool(how)
    one = together(tmp_path / "one", taught("finetune", reviewed, tmp_path / "one", *model, "--accumulation", "2"), 1)
    assert one.ends() == 0, one.said("err")
    same_run(tmp_path / "two", tmp_path / "one")
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("two", "one")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_distillation_in_two_processes(reviewed: Path, tmp_path: Path) -> None:
    """The teachers' outputs are computed once, by both; hidden states are compared, and all of it is sharded."""
    teacher = together(
        tmp_path / "teacher",
        taught(
            "finetune", reviewed, tmp_path / "teacher", "--from-scratch", config_in(tmp_path), "--vocab-size", "120"
        ),
        1,
    )
    assert teacher.ends() == 0, teacher.said("err")
    student = config_in(tmp_path, num_hidden_layers=1)
    flags = ["--teacher", str(tmp_path / "teacher"), "--from-scratch", student, "--hidden-weight", "1"]
    for name, count, more in (("two", 2, ["--sharded"]), ("one", 1, ["--accumulation", "2"])):
        run = together(tmp_path / name, taught("distill", reviewed, tmp_path / name, *flags, *more), count)
        assert run.ends() == 0, run.said("err")
    same_run(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--sharded",)], ids=["copied", "sharded"])
def test_an_encoder_is_distilled_in_two_processes(
    how: tuple[str, ...], corpus: Path, squeezebert: dict[str, Any], tmp_path: Path
) -> None:
    """On raw text: its hidden states, attention, words and sentences are compared; the teacher is never sharded."""
    teacher = pretrain(PretrainOptions(corpus=corpus, output=tmp_path / "teacher", **{**squeezebert, "steps": (2, 1)}))
    flags = ["--task", "feature-extraction", "--teacher", str(teacher.folder), "--max-length", "16"]
    flags += ["--from-scratch", config_in(tmp_path, num_hidden_layers=1), "--hidden-weight", "1"]
    flags += ["--attention-weight", "0.5", "--word-weight", "0.5", "--sentence-weight", "0.5"]
    for name, count, more in (("two", 2, how), ("one", 1, ("--accumulation", "2"))):
        run = together(tmp_path / name, taught("distill", corpus, tmp_path / name, *flags, *more), count)
        assert run.ends() == 0, run.said("err")
        assert len(run.said("out").splitlines()) == 1, "one process speaks"
    same_run(tmp_path / "two", tmp_path / "one")
