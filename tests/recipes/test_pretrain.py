"""Pretraining and transfer as a user runs them, on a small corpus: learning, resuming, refusing, several processes."""

import json
import math
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from helpers.corpora import write_corpus
from helpers.packed import IB_BERT, MOBILEBERT, SQUEEZEBERT
from helpers.processes import ask
from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert.cli import app
from pocketbert.corpus.corpus import Corpus
from pocketbert.corpus.pretraining_batches import PretrainingBatches
from pocketbert.errors import CheckpointError, ConfigError, DataError, TrainingError
from pocketbert.models.auto import AutoModel, AutoModelForMaskedLM
from pocketbert.recipes.estimate import estimate
from pocketbert.recipes.pretrain import PretrainRun, pretrain
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.pretraining_recipes import MINI_RECIPES, RECIPES, Phase
from pocketbert.recipes.transfer import stages_and_phases, transfer
from pocketbert.recipes.transfer_options import STRATEGIES, TransferOptions
from pocketbert.training.distributed import ProcessGroup
from pocketbert.training.optim import polynomial_schedule

ROOT = Path(__file__).parents[2]
MINIATURES = dict(MINI_RECIPES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The miniatures in miniature, with dropout."""
    for name, config in (("squeezebert", SQUEEZEBERT), ("mobilebert", MOBILEBERT), ("ib-bert", IB_BERT)):
        config = config.replace(attention_probs_dropout_prob=0.1, max_position_embeddings=32)
        monkeypatch.setitem(MINI_RECIPES, name, replace(MINI_RECIPES[name], config=config))


def options(corpus: Path, output: Path, **changes: Any) -> PretrainOptions:
    usual: dict[str, Any] = dict(
        corpus=corpus, output=output, preset="squeezebert", mini=True, steps=(6, 3), length=(12, 20), batch_size=(8,),
        learning_rate=(0.01,), tokens=40, tensorboard=False, eval_every=4, eval_batches=1, device="cpu", save_minutes=0,
    )  # fmt: skip
    kind = TransferOptions if "teacher" in changes else PretrainOptions
    return kind(**{**usual, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_it_learns_and_leaves_a_model(corpus: Path, tmp_path: Path) -> None:
    result = pretrain(options(corpus, tmp_path / "out", steps=(40,), length=(12,), eval_every=20, save_minutes=1))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    first, last = run["history"]
    assert last["masked_loss"] < first["masked_loss"]
    assert result.metrics == {name: value for name, value in last.items() if name != "step"}
    assert run["finished"]
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == 60
    assert (tmp_path / "out" / "vocab.txt").exists()
    assert len(list((tmp_path / "out" / "checkpoints").iterdir())) <= 2


@pytest.mark.parametrize(
    "optimizer", ["lamb", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lamb-nvidia", "adamw"))]
)
def test_killed_anywhere_and_resumed_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """Twice in the first epoch, at its end, in the second, at the border of phases, and after it.

    What a thread made ahead of its time changes nothing.
    """
    corpus = write_corpus(tmp_path / "corpus", documents=5)
    assert 3 * 8 < PretrainingBatches(Corpus(corpus), 12, 8, pairs="sop").examples < 4 * 8
    unbroken = options(corpus, tmp_path / "unbroken", optimizer=optimizer)
    pretrain(unbroken)
    broken = options(corpus, tmp_path / "broken", optimizer=optimizer, resume=True)
    rate = PretrainRun.rate
    for dies_at in (1, 2, 3, 5, 6, 8):

        def dying(run: PretrainRun, step: int, dies_at: int = dies_at) -> float:
            if step == dies_at:
                raise MemoryError  # nothing catches this: as good as SIGKILL for what is on the disk
            return rate(run, step)

        monkeypatch.setattr(PretrainRun, "rate", dying)
        with pytest.raises(MemoryError):
            pretrain(broken)
    monkeypatch.setattr(PretrainRun, "rate", rate)
    pretrain(broken)
    mine, theirs = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_is_resumed_with_its_own_options_alone(corpus: Path, tmp_path: Path) -> None:
    pretrain(options(corpus, tmp_path))
    with pytest.raises(CheckpointError, match="--resume"):
        pretrain(options(corpus, tmp_path))
    config, run = (tmp_path / "config.json").read_bytes(), json.loads((tmp_path / "run.json").read_text())
    pretrain(options(corpus, tmp_path, resume=True))  # it is finished
    assert (tmp_path / "config.json").read_bytes() == config
    assert json.loads((tmp_path / "run.json").read_text())["history"] == run["history"]
    with pytest.raises(ConfigError, match=r"options\.masked: was None, now 0\.3"):
        pretrain(options(corpus, tmp_path, masked=0.3, resume=True))

    # A run of a version that did not have this option yet, and had one that is gone.
    del run["options"]["whole_words"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(ConfigError, match=r"options\.whole_words: was False, now True$"):
        pretrain(options(corpus, tmp_path, whole_words=True, resume=True))
    pretrain(options(corpus, tmp_path, resume=True))
    run["options"]["old"] = 3
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(ConfigError, match=r"options\.old: was 3, an option that no longer exists$"):
        pretrain(options(corpus, tmp_path, resume=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_transfer(corpus: Path, tmp_path: Path, strategy: str) -> None:
    pretrain(options(corpus, tmp_path / "teacher", preset="ib-bert", steps=(2, 1)))
    given: dict[str, Any] = {
        "preset": "mobilebert", "teacher": str(tmp_path / "teacher"), "strategy": strategy, "layer_steps": 2,
        "layer_batch_size": 8, "steps": (3, 1),
    }  # fmt: skip
    chosen = options(corpus, tmp_path / "student", **given)
    assert isinstance(chosen, TransferOptions)
    result = transfer(chosen)
    assert result.steps == 10  # all three strategies take as many
    begun, teacher = weights(tmp_path / "student"), weights(tmp_path / "teacher")
    name = "mobilebert.embeddings.word_embeddings.weight"
    assert not torch.equal(begun[name], teacher[name])
    given |= {"steps": (1,), "length": (12,), "learning_rate": (1e-30,), "layer_rate": 0.01}
    alone = options(corpus, tmp_path / "layers", **given)
    assert isinstance(alone, TransferOptions)
    if strategy != "auxiliary":  # while layers are taught, what they stand on is the teacher's
        transfer(alone)
        assert torch.equal(weights(tmp_path / "layers")[name], teacher[name])


def test_the_published_stages() -> None:
    chosen = TransferOptions(corpus="c", output="o", preset="mobilebert", teacher="t")
    stages, phases = stages_and_phases(chosen, 24)
    assert [stage.layers for stage in stages] == [*((layer,) for layer in range(1, 25)), ()]
    assert [phase.steps for phase in phases] == [10_000] * 24 + [500_000]
    for step in range(0, 10_000, 97):  # min(√-decay from 1 to 0.9, a tenth of the steps of rise), as released
        taught = phases[0]
        rate = polynomial_schedule(step, steps=10_000, warmup=taught.warmup, power=taught.power, end=taught.end)
        released = min(0.9 + 0.1 * math.sqrt(1 - step / 10_000), step / 1_000)
        assert rate == pytest.approx(released, abs=6e-3)
    for strategy, expected in (("joint", [240_000, 500_000]), ("auxiliary", [740_000])):
        _, phases = stages_and_phases(replace(chosen, strategy=strategy), 24)
        assert [phase.steps for phase in phases] == expected
    squeezebert = RECIPES["squeezebert"]
    assert squeezebert.phases[0] == Phase(steps=56_000, length=128, batch=8192, learning_rate=2.5e-3, warmup=0.28)
    assert (squeezebert.phases[1].steps, squeezebert.phases[1].length, squeezebert.pairs) == (6_000, 512, "sop")


def test_shares_do_not_depend_on_the_number_of_processes(corpus: Path, tmp_path: Path) -> None:
    """1, 2 and 4 processes compute the same micro-batches between them, in all phases, and are asked about the same."""
    found, asked = [], []
    for count in (1, 2, 4):
        given = options(corpus, tmp_path, tokens=24)
        runs = [PretrainRun(given, processes=ProcessGroup(r, count)) for r in range(count)]
        for run in runs:
            run.read()
        batches = [run.batches() for run in runs]
        found.append(
            [[b["input_ids"].tolist() for part in zip(*(one(step) for one in batches), strict=True) for b in part]
             for step in (0, 5, 6, 8)]
        )  # fmt: skip
        shares = [share for run in runs for share in run.read_held_out()]
        names = ("input_ids", "masked_labels", "pair_labels")
        asked.append([np.concatenate([share[name] for share in shares]).tolist() for name in names])
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 4
    assert asked[0] == asked[1] == asked[2]
    assert len(asked[0][2]) == 64  # the examples of one batch


def test_a_dry_run_says_what_it_would_take(corpus: Path, tmp_path: Path) -> None:
    found = estimate(options(corpus, tmp_path / "out"))
    assert found.steps == (6, 3)
    assert found.tokens_per_step == (96, 160)
    assert found.fixed_bytes == 16 * found.parameters
    assert found.seconds > 0
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # PyTorch's own
def test_layers_are_compiled_for_all_sizes_at_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for every number of tokens, nor for evaluations. Inductor itself is left out: it takes long."""
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    config = SQUEEZEBERT.replace(num_hidden_layers=1, max_position_embeddings=32)  # nothing drops out
    monkeypatch.setitem(MINI_RECIPES, "squeezebert", replace(MINI_RECIPES["squeezebert"], config=config))
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    reset()
    counters.clear()
    plain = pretrain(options(corpus, tmp_path / "plain"))
    compiled = pretrain(options(corpus, tmp_path / "compiled", compile=True))
    assert counters["stats"]["unique_graphs"] in (1, 2)  # where all examples are full, nothing is padded
    assert compiled.metrics == pytest.approx(plain.metrics, rel=1e-4)
    for name, tensor in weights(plain.folder).items():
        torch.testing.assert_close(weights(compiled.folder)[name], tensor, atol=1e-5, rtol=1e-4)


def test_an_architecture_of_ones_own(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**SQUEEZEBERT.to_dict(), "num_hidden_layers": 1, "max_position_embeddings": 20}))
    given = options(corpus, tmp_path / "out", config=file, steps=(1,), length=(12,))
    pretrain(given)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["num_hidden_layers"], written["vocab_size"]) == (1, 60)
    with pytest.raises(ConfigError, match="describes a squeezebert, and --preset mobilebert pretrains a mobilebert"):
        pretrain(replace(given, preset="mobilebert", output=tmp_path / "other"))
    with pytest.raises(CheckpointError, match="no such file"):
        pretrain(replace(given, config=tmp_path / "none.json", output=tmp_path / "other"))


def test_bad_input(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs 5,000: use smaller batches"):
        pretrain(options(corpus, tmp_path / "a", batch_size=(5000,)))
    with pytest.raises(DataError, match="is not a prepared corpus"):
        pretrain(options(tmp_path, tmp_path / "b"))
    with pytest.raises(ConfigError, match="--length 999"):
        pretrain(options(corpus, tmp_path / "c", length=(999,)))
    with pytest.raises(ConfigError, match="--compile excludes --sharded"):
        options(corpus, tmp_path, compile=True, sharded=True)
    with pytest.raises(ConfigError, match="--preset nobert must be one of"):
        options(corpus, tmp_path, preset="nobert")
    with pytest.raises(ConfigError, match="one per phase: 2"):
        pretrain(options(corpus, tmp_path / "d", steps=(1, 2), length=(12, 16, 20)))
    with pytest.raises(
        TrainingError, match=r"after step 1, batch .* phase 1 \(its examples .*\); the last training state"
    ):
        pretrain(options(corpus, tmp_path / "e", learning_rate=(1e30,), optimizer="adamw"))
    assert not (tmp_path / "e" / "model.safetensors").exists()
    assert [path.name for path in (tmp_path / "e" / "checkpoints").iterdir()] == ["step-00000000"]


@pytest.mark.parametrize(
    ("name", "steps"), [("squeezebert", [3]), pytest.param("mobilebert", [3, 7], marks=pytest.mark.slow)]
)
def test_the_published_runs(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, steps: list[int]
) -> None:
    """`--smoke` of the scripts, the miniatures as they are."""
    for preset, origin in MINIATURES.items():
        monkeypatch.setitem(MINI_RECIPES, preset, origin)
    script = ROOT / "runs" / f"pretrain_{name}.sh"
    asked, _ = ask(script, corpus, tmp_path / "out", "--smoke", "--device", "cpu", folder=tmp_path)
    for command, expected in zip(asked, steps, strict=True):
        ran = CliRunner().invoke(app, command, catch_exceptions=False)
        assert ran.exit_code == 0, ran.stderr
        said = json.loads(ran.stdout)
        assert said["steps"] == expected
        assert (Path(said["folder"]) / "model.safetensors").exists()


@pytest.mark.slow
def test_going_on_from_a_checkpoint(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = pretrain(options(corpus, tmp_path / "first", length=(12,), steps=(8,), pairs="none"))
    changes: dict[str, Any] = {
        "preset": None, "mini": False, "model": str(first.folder), "steps": (6,), "length": (12,),
        "learning_rate": (2e-3,),
    }  # fmt: skip
    caplog.set_level("INFO", "pocketbert")
    result = pretrain(options(corpus, tmp_path / "second", **changes))
    assert not any("initialised randomly" in record.message for record in caplog.records)
    assert [entry["step"] for entry in result.history] == [0, 4, 6]
    assert result.history[0]["masked_loss"] == pytest.approx(first.metrics["masked_loss"], rel=1e-4)
    assert not any("pair" in name for name in result.metrics)
    before, after = weights(first.folder), weights(result.folder)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if "pooler" not in name and "seq_relationship" not in name} == moved

    again = pretrain(options(corpus, tmp_path / "pieces", resume=True, **changes))
    assert again.history == result.history
    # An encoder has no word head, and other tokens are other words.
    AutoModel.from_pretrained(first.folder).save_pretrained(tmp_path / "encoder")
    Corpus(corpus).tokenizer.save_pretrained(tmp_path / "encoder")
    pretrain(options(corpus, tmp_path / "third", **{**changes, "model": str(tmp_path / "encoder")}))
    [line] = [record.message for record in caplog.records if "initialised randomly" in record.message]
    assert "cls.predictions.transform.dense.weight" in line
    assert "seq_relationship" not in line
    tokenizer_of([*SPECIAL, "x"]).save_pretrained(tmp_path / "encoder")
    with pytest.raises(DataError, match="another vocabulary"):
        pretrain(options(corpus, tmp_path / "fourth", **{**changes, "model": str(tmp_path / "encoder")}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": None}, "choose what to pretrain"),
        ({"model": "x"}, "choose what to pretrain"),
        ({"preset": None, "model": "x"}, "--mini is not for --model"),
        ({"preset": None, "model": "x", "mini": False, "config": "y"}, "--model-config y is not for --model"),
    ],
)
def test_what_to_pretrain(corpus: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(corpus, tmp_path, **changes)
