"""Sharded weights in a group of one process: the same steps, and states that know nothing of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from helpers.packed import IB_BERT, MOBILEBERT, SQUEEZEBERT, packed
from pocketbert.models.auto import AutoModelForPreTraining
from pocketbert.training.distributed import is_sharded, shard, whole
from pocketbert.training.optim import build_optimizer, clip_gradients
from pocketbert.training.pretraining import Pretraining
from pocketbert.training.settings import TransferWeights
from pocketbert.training.state import Saver, State, load_state
from pocketbert.training.transfer import Stage, Transfer, layer_of

CPU = torch.device("cpu")
STAGES = [Stage(steps=2, layers=(2,), lower_rate=0.1), Stage(steps=2, distils=True)]


@pytest.fixture
def _group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def objective(kind: str) -> Pretraining:
    torch.manual_seed(0)
    if kind == "squeezebert":
        return Pretraining(AutoModelForPreTraining.from_config(SQUEEZEBERT), pairs=False)
    student, teacher = (AutoModelForPreTraining.from_config(config) for config in (MOBILEBERT, IB_BERT))
    return Transfer(student, teacher, TransferWeights(), STAGES)


def take_steps(one: Pretraining, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    norms = []
    for step in steps:
        batch = packed(np.random.default_rng(step), [9, 16, 4], [2, 3, 1])
        one.begin(step)
        optimizer.zero_grad()
        one({n: torch.from_numpy(a) for n, a in batch.items()}, one.units(batch))["loss"].backward()
        norms.append(clip_gradients(one.parameters(), 0.3).item())
        optimizer.step()
    return norms


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("kind", ["squeezebert", "transfer"])
@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_sharded_weights_take_the_same_steps(kind: str, name: str, tmp_path: Path) -> None:
    plain, divided, later, alone = (objective(kind) for _ in range(4))
    for one in (divided, later):
        shard(one, one.model.base_model.layers, CPU, methods=["shares"])  # type: ignore[union-attr, arg-type]
    assert all(is_sharded(parameter) for parameter in divided.parameters())
    optimizers = [
        build_optimizer(name, one, learning_rate=0.01, layer_of=layer_of) for one in (plain, divided, later, alone)
    ]
    norms = [take_steps(one, optimizer, range(4)) for one, optimizer in zip((plain, divided), optimizers, strict=False)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert min(norms[0]) > 0.3, "nothing was clipped"
    expected = dict(plain.named_parameters())
    for parameter, tensor in divided.named_parameters():
        torch.testing.assert_close(whole(tensor.detach()), expected[parameter].detach(), atol=1e-4, rtol=1e-3)

    # Evaluations ask for `shares`; between passes the parameters are the parts.
    batch = packed(np.random.default_rng(9), [9, 16, 4], [2, 3, 1])
    tensors = {n: torch.from_numpy(a) for n, a in batch.items()}
    with torch.no_grad():
        losses = [one.shares(tensors, one.units(batch))["loss"].item() for one in (plain, divided)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert all(is_sharded(parameter) for parameter in divided.parameters())

    # A state of sharded weights continues sharded ones bit for bit, and whole ones just as well.
    with Saver(tmp_path) as saver:
        saver.save(State(step=4), divided, optimizers[1])
    for one, optimizer in ((later, optimizers[2]), (alone, optimizers[3])):
        load_state(tmp_path / "step-00000004", one, optimizer)
    for one, optimizer in zip((divided, later, alone), optimizers[1:], strict=True):
        take_steps(one, optimizer, range(4, 6))
    for one, same in ((later, torch.equal), (alone, torch.allclose)):
        others = dict(one.named_parameters())
        assert all(same(whole(tensor), whole(others[name])) for name, tensor in divided.named_parameters())


def test_clipping_is_pytorchs() -> None:
    layers = [nn.Linear(5, 7), nn.Linear(5, 7)]
    for layer in layers:
        torch.manual_seed(1)
        for parameter in layer.parameters():
            parameter.grad = torch.randn_like(parameter)
    assert torch.equal(
        clip_gradients(layers[0].parameters(), 0.7), torch.nn.utils.clip_grad_norm_(layers[1].parameters(), 0.7)
    )
    for mine, theirs in zip(*(layer.parameters() for layer in layers), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)
    before = layers[0].weight.grad
    clip_gradients(layers[0].parameters(), None)
    assert layers[0].weight.grad is before
