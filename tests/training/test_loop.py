import logging
import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.seeds import seed_torch
from pocketbert.data.batches import BatchOrder, LabelledBatches
from pocketbert.errors import TrainingError, TrainingInterrupted
from pocketbert.features import Features
from pocketbert.training.loop import TrainingSchedule, train
from pocketbert.training.objectives import Batch, ExampleLoss, Objective
from pocketbert.training.optim import adamw
from pocketbert.training.progress import Progress
from pocketbert.training.state import State, latest_state

EXAMPLES = 50


class Output:
    def __init__(self, loss: Tensor) -> None:
        self.loss = loss


class Tiny(nn.Module):
    """Words in, two classes out; learns something, and drops out."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor) -> Output:
        words = self.words(input_ids) * attention_mask.unsqueeze(-1)
        hidden = self.dropout(self.norm(words.sum(1) / attention_mask.sum(1, keepdim=True)))
        return Output(nn.functional.cross_entropy(self.classes(hidden), labels))


def batches(parts: int = 1) -> LabelledBatches:
    random = np.random.default_rng(0)
    ids = [random.integers(1, 20, size=random.integers(3, 12), dtype=np.int32) for _ in range(EXAMPLES)]
    features = [Features(i, np.zeros_like(i)) for i in ids]
    labels = np.array([int((i > 10).mean() > 0.5) for i in ids])
    order = BatchOrder([len(i) for i in ids], batch_size=8, seed=3, window=2)
    return LabelledBatches(features, {"labels": labels}, order, parts=parts)


class Run:
    """A run in a folder, ready to be interrupted and begun again."""

    def __init__(self, folder: Path, *, dropout: float = 0.2, parts: int = 1, **schedule: Any) -> None:
        seed_torch(1)
        self.folder = folder
        self.objective: Objective = ExampleLoss(Tiny(dropout))
        self.optimizer: torch.optim.Optimizer = adamw(self.objective, learning_rate=0.05)
        self.batches: Callable[[int], list[Batch]] = batches(parts)
        defaults: dict[str, Any] = {"steps": 20, "evaluate_at": {5, 10, 15, 20}, "metric": "accuracy", "seed": 7}
        self.schedule = TrainingSchedule(**{**defaults, **schedule})
        self.recorded: list[tuple[int, bool]] = []
        self.written: list[tuple[str, float, int]] = []

    def evaluate(self) -> Mapping[str, float]:
        assert not self.objective.training
        with torch.inference_mode():
            (batch,) = batches()(0)
            loss = self.objective.model(**{k: torch.from_numpy(v) for k, v in batch.items()}).loss.item()
        return {"accuracy": math.sin(100 * loss), "loss": loss}

    def record(self, state: State) -> None:
        self.recorded.append((state.step, state.best(self.schedule.metric) is state.history[-1]))

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.written.append((tag, scalar_value, global_step))

    def go(self) -> State:
        return train(
            self.objective, self.optimizer, self.batches, self.schedule, rate=lambda step: 1 - step / 20,
            evaluate=self.evaluate, on_evaluation=self.record, folder=self.folder / "checkpoints",
            progress=Progress(self.schedule.steps), writer=self,
        )  # fmt: skip

    def result(self) -> list[Tensor]:
        moments = [s[key] for _, s in sorted(self.optimizer.state_dict()["state"].items()) for key in sorted(s)]
        return [*self.objective.state_dict().values(), *moments]


def same(a: Run, b: Run) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.result(), b.result(), strict=True))


def kill_at(run: Run, step: int, how: BaseException | int) -> None:
    """Arrange that `run` ends while the batch of `step` is made."""
    make = run.batches

    def killing(t: int) -> list[Batch]:
        if t == step and isinstance(how, BaseException):
            raise how
        if t == step:
            os.kill(os.getpid(), how)  # type: ignore[arg-type]
        return make(t)

    run.batches = killing


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, State]:
    run = Run(tmp_path_factory.mktemp("unbroken"))
    return run, run.go()


@pytest.mark.learning
def test_it_learns_and_is_reproducible(tmp_path: Path, unbroken: tuple[Run, State]) -> None:
    run = Run(tmp_path)
    assert run.go() == unbroken[1]
    assert same(run, unbroken[0])
    losses = [value for tag, value, _ in run.written if tag == "train/loss"]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_killed_at_any_step_and_resumed(tmp_path: Path, unbroken: tuple[Run, State], every: float) -> None:
    for step in (0, 1, 4, 5, 7, 19) if every == 0.0 else range(20):
        folder = tmp_path / str(step)
        broken = Run(folder, save_seconds=every)
        kill_at(broken, step, MemoryError())  # nothing catches this: as good as SIGKILL for what is on the disk
        with pytest.raises(MemoryError):
            broken.go()
        resumed = Run(folder, save_seconds=every)
        assert resumed.go() == unbroken[1]
        assert same(resumed, unbroken[0])


def test_killed_again_and_again(tmp_path: Path, unbroken: tuple[Run, State]) -> None:
    for step in (3, 4, 9, 10, 18):
        run = Run(tmp_path, save_seconds=0.0)
        kill_at(run, step, MemoryError())
        with pytest.raises(MemoryError):
            run.go()
        newest = latest_state(tmp_path / "checkpoints")
        assert newest is not None
        assert newest.name == f"step-{step:08d}"
    final = Run(tmp_path)
    assert final.go() == unbroken[1]
    assert same(final, unbroken[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_step_save_and_say_how_to_resume(
    tmp_path: Path, unbroken: tuple[Run, State], number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    run = Run(tmp_path)
    kill_at(run, 12, number)
    with pytest.raises(TrainingInterrupted, match=rf"{number.name} after step 13 of 20.*--resume") as error:
        run.go()
    assert error.value.signal == number
    assert signal.getsignal(number) is before
    assert latest_state(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000013"
    resumed = Run(tmp_path)
    assert resumed.go() == unbroken[1]
    assert same(resumed, unbroken[0])


def test_a_signal_during_an_evaluation_does_not_wait_for_it(tmp_path: Path, unbroken: tuple[Run, State]) -> None:
    run = Run(tmp_path)

    def evaluate() -> Mapping[str, float]:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the evaluation went on")

    run.evaluate = evaluate  # type: ignore[method-assign]
    with pytest.raises(TrainingInterrupted, match="after step 5 of 20"):
        run.go()
    assert run.recorded == []
    resumed = Run(tmp_path)
    assert resumed.go() == unbroken[1]
    assert same(resumed, unbroken[0])
    assert resumed.recorded[0] == (5, True)


def test_a_second_signal_does_not_wait_for_the_step(tmp_path: Path) -> None:
    run = Run(tmp_path)
    make = run.batches

    def twice(t: int) -> list[Batch]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return make(t)

    run.batches = twice
    with pytest.raises(KeyboardInterrupt):
        run.go()


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, unbroken: tuple[Run, State]) -> None:
    Run(tmp_path).go()
    again = Run(tmp_path)
    assert again.go() == unbroken[1]
    assert again.recorded == []
    assert same(again, unbroken[0])


def test_early_stopping_also_when_resumed(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=20, evaluate_at=range(1, 21), patience=3)
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    run.evaluate = lambda: {"accuracy": next(values)}  # type: ignore[method-assign]
    assert run.go().step == 5
    assert run.recorded == [(1, True), (2, True), (3, False), (4, False), (5, False)]
    again = Run(tmp_path, steps=20, evaluate_at=range(1, 21), patience=3)
    assert again.go().step == 5
    assert again.recorded == []


def test_accumulation_changes_nothing_but_memory(tmp_path: Path) -> None:
    runs = [Run(tmp_path / str(parts), dropout=0.0, parts=parts) for parts in (1, 3, 8)]
    for run in runs:
        run.go()
    for run in runs[1:]:
        for a, b in zip(runs[0].result(), run.result(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_unequal_units_are_weighted(tmp_path: Path) -> None:
    """A mean over words, of which every micro-batch has another number."""

    class Words(Objective):
        def units(self, batch: Batch) -> dict[str, int]:
            return {"examples": len(batch["input_ids"]), "words": int(batch["attention_mask"].sum())}

        def forward(self, batch: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
            squares = self.model.words(batch["input_ids"]).square().sum(-1) * batch["attention_mask"]  # type: ignore[operator]
            return {"loss": squares.sum() / totals["words"], "words": squares.detach().new_tensor(1.0)}

    runs = [Run(tmp_path / str(parts), dropout=0.0, parts=parts, steps=1, evaluate_at={1}) for parts in (1, 4)]
    for run in runs:
        run.objective = Words(run.objective.model)
        run.go()
    whole, parts = (dict((tag, value) for tag, value, _ in run.written) for run in runs)
    assert whole["train/loss"] == pytest.approx(parts["train/loss"], rel=1e-6)
    assert whole["train/gradient_norm"] == pytest.approx(parts["train/gradient_norm"], rel=1e-5)
    assert (whole["train/words"], parts["train/words"]) == (1.0, 4.0)


def test_clipping_and_rates(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=3, evaluate_at={3}, clip=None)
    run.go()
    rates = [value for tag, value, _ in run.written if tag == "train/learning_rate"]
    assert rates == pytest.approx([0.05, 0.0475, 0.045])
    norms = [value for tag, value, _ in run.written if tag == "train/gradient_norm"]
    clipped = Run(tmp_path / "clipped", steps=1, evaluate_at={1}, clip=norms[0] / 2)
    clipped.optimizer = torch.optim.SGD([{"params": list(clipped.objective.parameters()), "peak_lr": 1.0}], lr=1.0)
    before = [p.detach().clone() for p in clipped.objective.parameters()]
    clipped.go()
    moved = sum((p - b).square().sum().item() for p, b in zip(clipped.objective.parameters(), before, strict=True))
    assert math.sqrt(moved) == pytest.approx(norms[0] / 2, rel=1e-4)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    run = Run(tmp_path, save_seconds=0.0)
    make = run.batches

    def poisoned(t: int) -> list[Batch]:
        if t == 6:
            with torch.no_grad():
                next(run.objective.parameters()).fill_(math.nan)
        return make(t)

    run.batches = poisoned
    with pytest.raises(TrainingError, match="loss is nan at step 7, batch 6; the last training state is kept"):
        run.go()
    assert latest_state(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000006"


@pytest.mark.parametrize("evaluate_at", [{20}, {7, 20}])
def test_weights_that_are_no_numbers_are_neither_saved_nor_recorded(tmp_path: Path, evaluate_at: set[int]) -> None:
    """The last step was made from a loss that was one."""
    run = Run(tmp_path, save_seconds=0.0, evaluate_at=evaluate_at)
    steps = iter(range(1, 21))

    def ruin(*_: object) -> None:
        if next(steps) == 7:
            next(run.objective.parameters()).data.fill_(math.inf)

    run.optimizer.register_step_post_hook(ruin)
    with pytest.raises(
        TrainingError, match="weights are not finite after step 7, batch 6; the last training state is kept"
    ):
        run.go()
    assert run.recorded == []
    assert latest_state(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000006"


def test_bf16_computes_in_bf16_and_keeps_fp32_weights(tmp_path: Path) -> None:
    run = Run(tmp_path, bf16=True)
    seen: list[torch.dtype] = []
    run.objective.model.classes.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))  # type: ignore[union-attr]
    run.go()
    assert torch.bfloat16 in seen
    assert all(p.dtype == torch.float32 for p in run.objective.parameters())


def test_the_callers_randomness_is_left_alone(tmp_path: Path) -> None:
    run = Run(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run.go()
    assert torch.equal(torch.rand(3), expected)


def test_lines_where_there_is_no_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pocketbert"):
        Run(tmp_path).go()
    lines = [record.message for record in caplog.records]
    assert len(lines) == 4
    assert lines[0].startswith("step 5 of 20: accuracy ")
    assert lines[0].endswith(" · best so far")
