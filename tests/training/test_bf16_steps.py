"""Steps in bf16 with the core's passes: AdamW against PyTorch's, a resumed run against an uninterrupted one."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketbert.configs import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.models import bf16
from pocketbert.models.auto import model_class
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.training.loop import TrainingSchedule, train
from pocketbert.training.objectives import Batch, ExampleLoss
from pocketbert.training.optim import adamw, clip_and_step
from pocketbert.training.progress import Progress

pytestmark = pytest.mark.skipif(not bf16.is_there(), reason="no kernels here train in bf16")


# ── AdamW ──


class Weights(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        shapes = [(1,), (33,), (5, 7), (64, 96), (300, 129)]
        self.list = nn.ParameterList(torch.randn(*shape, generator=random) for shape in shapes)


def give_gradients(weights: Weights, random: torch.Generator, step: int) -> None:
    for number, weight in enumerate(weights.list):
        weight.grad = None if (number + step) % 4 == 3 else torch.randn(weight.shape, generator=random)


@pytest.mark.parametrize("limit", [None, 1.0, 1e9])
def test_adamw_is_that_of_pytorch(limit: float | None) -> None:
    """Also with weights that miss some steps, and with states that go from one to the other."""
    seed = int(torch.randint(2**31, ()))
    ours, theirs = Weights(seed), Weights(seed)
    optimizers = [adamw(one, learning_rate=0.01, weight_decay=0.1) for one in (ours, theirs)]
    randoms = [torch.Generator().manual_seed(seed) for _ in optimizers]
    for step in range(8):
        if step == 5:
            states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
            optimizers[0].load_state_dict(states[1])
            optimizers[1].load_state_dict(states[0])
        norms = []
        for narrow, weights, optimizer, random in zip((True, False), (ours, theirs), optimizers, randoms, strict=True):
            give_gradients(weights, random, step)
            norms.append(clip_and_step(optimizer, weights.parameters(), limit, narrow=narrow))
        torch.testing.assert_close(*norms)
        for mine, other in zip(ours.list, theirs.list, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
            a, b = optimizers[0].state[mine], optimizers[1].state[other]
            assert a.keys() == b.keys()
            for key in a:
                torch.testing.assert_close(a[key], b[key], rtol=1e-5, atol=1e-7)


def test_copies_follow_their_weights() -> None:
    weight = nn.Parameter(torch.randn(40, 50))
    narrow = bf16.copy_of(weight)
    assert bf16.copy_of(weight) is narrow
    module = nn.ParameterList([weight])
    optimizer = adamw(module, learning_rate=0.1)
    weight.grad = torch.randn(40, 50)
    clip_and_step(optimizer, module.parameters(), None, narrow=True)
    assert bf16.copy_of(weight) is narrow  # written by the step
    assert torch.equal(narrow, weight.detach().bfloat16())
    with torch.no_grad():
        weight.mul_(2)
    assert torch.equal(bf16.copy_of(weight), weight.detach().bfloat16())


# ── models ──

SMALL: dict[str, Any] = {
    "vocab_size": 60, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 32,
    "initializer_range": 0.1,
}  # fmt: skip
CONFIGS: list[PreTrainedConfig] = [
    BertConfig(hidden_size=48, intermediate_size=80, **SMALL),
    SqueezeBertConfig(hidden_size=32, embedding_size=32, intermediate_size=48, **SMALL),
    MobileBertConfig(hidden_size=32, intra_bottleneck_size=16, embedding_size=8, intermediate_size=24, **SMALL),
    MobileBertConfig(
        hidden_size=32, intra_bottleneck_size=16, embedding_size=8, intermediate_size=24, hidden_act="gelu",
        normalization_type="layer_norm", hidden_dropout_prob=0.1, **SMALL,
    ),
]  # fmt: skip
NAMES = ["bert", "squeezebert", "mobilebert", "mobilebert-layer-norm"]


def classifier(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(3)
    return model_class(config, "ForSequenceClassification")(config)


def batch_of(step: int) -> Batch:
    random = np.random.default_rng(step)
    lengths = random.integers(2, 20, size=6)
    ids = random.integers(1, 60, size=(6, 20))
    real = np.arange(20) < lengths[:, None]
    labels = (ids[:, 0] > 30).astype(np.int64)
    return {"input_ids": ids * real, "attention_mask": real.astype(np.int64), "labels": labels}


def gradients(model: PreTrainedModel, *, narrow: bool) -> tuple[float, dict[str, Tensor]]:
    inputs = {name: torch.from_numpy(array) for name, array in batch_of(0).items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        loss = model(**inputs).loss
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_gradients_are_those_of_fp32(config: PreTrainedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout; as near as PyTorch's own operations in bf16 come, which have other roundings."""
    model = classifier(config).eval()
    exact, wanted = gradients(model, narrow=False)
    loss, found = gradients(model, narrow=True)
    with monkeypatch.context() as patched:
        patched.setattr(bf16, "is_there", lambda: False)
        plain, other = gradients(model, narrow=True)
    assert found.keys() == other.keys() == wanted.keys()
    assert abs(loss - exact) < 0.02
    assert abs(loss - plain) > 0 or any(not torch.equal(found[name], other[name]) for name in found)  # passes ran

    def distance(mine: dict[str, Tensor]) -> float:
        squares = [(mine[name] - wanted[name]).square().sum() for name in wanted]
        return float(torch.stack(squares).sum().sqrt())

    size = float(torch.stack([g.square().sum() for g in wanted.values()]).sum().sqrt())
    assert distance(found) < 0.05 * size + 2 * distance(other)
    assert distance(found) < 0.1 * size


class Run:
    """A run in a folder, with dropout and two micro-batches per step."""

    def __init__(self, config: PreTrainedConfig, folder: Path) -> None:
        self.folder = folder
        self.objective = ExampleLoss(classifier(config))
        self.optimizer = adamw(self.objective, learning_rate=3e-3)

    def go(self, steps: int) -> None:
        def evaluate() -> Mapping[str, float]:
            return {"loss": 0.0}

        train(
            self.objective, self.optimizer, lambda step: [batch_of(2 * step), batch_of(2 * step + 1)],
            TrainingSchedule(steps=steps, evaluate_at=[], metric="loss", bf16=True), rate=lambda step: 1.0,
            evaluate=evaluate, on_evaluation=lambda state: None, folder=self.folder, progress=Progress(steps),
        )  # fmt: skip

    def tensors(self) -> list[Tensor]:
        moments = [s[key] for _, s in sorted(self.optimizer.state_dict()["state"].items()) for key in sorted(s)]
        return [*self.objective.state_dict().values(), *moments]


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_a_resumed_run_has_the_same_bits(config: PreTrainedConfig, tmp_path: Path) -> None:
    whole = Run(config, tmp_path / "whole")
    whole.go(6)
    Run(config, tmp_path / "parts").go(3)
    resumed = Run(config, tmp_path / "parts")
    resumed.go(6)
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors(), resumed.tensors(), strict=True))


def test_a_run_learns(tmp_path: Path) -> None:
    """Labels follow from the first token."""
    run = Run(CONFIGS[0], tmp_path)
    run.go(60)
    model = run.objective.model.eval()
    batch = {name: torch.from_numpy(array) for name, array in batch_of(10_000).items()}
    labels = batch.pop("labels")
    with torch.no_grad():
        assert torch.equal(model(**batch).logits.argmax(-1), labels)
