"""MobileBERT's transfer: every term against its formula, every stage against what it says that it learns."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.packed import IB_BERT, MOBILEBERT, packed, split
from pocketbert.configs import BertConfig
from pocketbert.errors import ConfigError
from pocketbert.models.auto import AutoModelForPreTraining
from pocketbert.training.settings import TransferWeights
from pocketbert.training.transfer import Stage, Transfer, layer_of, statistics_losses

BATCH = packed(np.random.default_rng(5), [9, 16, 4], [2, 3, 1])
TENSORS = {name: torch.from_numpy(array) for name, array in BATCH.items()}


def transfer(*stages: Stage, terms: TransferWeights | None = None) -> Transfer:
    torch.manual_seed(3)
    student, teacher = (AutoModelForPreTraining.from_config(config) for config in (MOBILEBERT, IB_BERT))
    with torch.no_grad():  # a fresh model's attention is all but uniform, and its layers all but alike
        for parameter in [*student.parameters(), *teacher.parameters()]:
            parameter.add_(0.2 * torch.randn_like(parameter))
    objective = Transfer(student, teacher, terms or TransferWeights(), stages)
    objective.train()
    return objective


def shares(objective: Transfer) -> dict[str, Tensor]:
    return objective(TENSORS, objective.units(BATCH))


def _note(computed: list[int], number: int, *_: object) -> None:
    computed.append(number)


def one_by_one(model: torch.nn.Module) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Hidden states [N, H] and attention [heads, N, N] of each example, by the model's own ordinary pass."""
    found = []
    for one in split(BATCH, [1, 2]):
        output = model.base_model(  # type: ignore[operator]
            torch.from_numpy(one["input_ids"])[None], None, torch.from_numpy(one["token_type_ids"])[None],
            output_hidden_states=True, output_attentions=True,
        )  # fmt: skip
        states = [state[0].detach().double().numpy() for state in output.hidden_states]
        found.append((states, [weights[0].detach().double().numpy() for weights in output.attentions]))
    return found


@pytest.mark.parametrize("layers", [(1,), (3,), (1, 2, 3)])
def test_the_terms_against_their_formulas(layers: tuple[int, ...]) -> None:
    objective = transfer(Stage(steps=1, layers=layers))
    expected = {"feature": 0.0, "mean": 0.0, "variance": 0.0, "attention": 0.0}
    tokens = len(BATCH["input_ids"])
    pairs = zip(one_by_one(objective.model), one_by_one(objective.teachers[0]), strict=True)
    for (mine, my_weights), (theirs, their_weights) in pairs:
        for layer in layers:
            for x, y in zip(mine[layer], theirs[layer], strict=True):
                a, b = ((v - v.mean()) / np.sqrt(v.var() + 1e-5) for v in (x, y))
                expected["feature"] += ((a - b) ** 2).mean()
                expected["mean"] += (x.mean() - y.mean()) ** 2
                expected["variance"] += abs(x.var() - y.var())
            p, q = my_weights[layer - 1], their_weights[layer - 1]
            expected["attention"] += (q * np.log(q / p)).sum(-1).mean(0).sum()
    found = shares(objective)
    for name, value in expected.items():
        assert value > 0
        assert found[name].item() == pytest.approx(value / tokens / 3, rel=1e-3)
    terms = TransferWeights()
    loss = sum(getattr(terms, f"{name}_weight") * value / tokens / 3 for name, value in expected.items())
    assert found["loss"].item() == pytest.approx(loss, rel=1e-3)


def test_a_stage_computes_and_moves_what_it_says() -> None:
    """The layer in question and, if they have a rate, those below; embeddings, heads and layers above rest."""
    for lower_rate, moving in ((0.1, {1, 2}), (0.0, {2})):
        objective = transfer(Stage(steps=1, layers=(2,), rate=3.0, lower_rate=lower_rate))
        computed: list[int] = []
        for number, layer in enumerate(objective.model.base_model.layers, start=1):  # type: ignore[union-attr, arg-type]
            layer.register_forward_hook(partial(_note, computed, number))
        shares(objective)["loss"].backward()
        assert computed == [1, 2]
        assert {layer_of(name) for name, p in objective.named_parameters() if p.grad is not None} == moving
        assert [objective.layer_rate(layer) for layer in (0, 1, 2, 3)] == [0.0, lower_rate, 3.0, 0.0]
    assert not any(p.requires_grad for p in objective.teachers[0].parameters())
    assert not any("teacher" in name for name, _ in objective.named_parameters())


def test_stages_follow_each_other() -> None:
    stages = [Stage(steps=2, layers=(1,)), Stage(steps=3, layers=(2,)), Stage(steps=4, distils=True)]
    objective = transfer(*stages)
    found = []
    for step in range(9):
        objective.begin(step)
        found.append(objective.stage)
    assert found == [stages[0]] * 2 + [stages[1]] * 3 + [stages[2]] * 4


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_pretraining_distillation(alpha: float) -> None:
    """Alpha 1 without temperature has the gradient of the cross entropy against what the teacher says."""
    objective = transfer(Stage(steps=1, distils=True), terms=TransferWeights(alpha=alpha))
    found = shares(objective)
    hard = found["masked_loss"].item()
    loss = hard + found["pair_loss"].item()
    if alpha:
        mine: list[Tensor] = []
        theirs: list[Tensor] = []
        for model, into in ((objective.model, mine), (objective.teachers[0], theirs)):
            for one in split(BATCH, [1, 2]):
                ids, types = torch.from_numpy(one["input_ids"])[None], torch.from_numpy(one["token_type_ids"])[None]
                logits = model(ids, token_type_ids=types).prediction_logits[0]
                into.append(logits[torch.from_numpy(one["masked_positions"])].log_softmax(-1))
        p, q = torch.cat(mine), torch.cat(theirs)
        soft = (q.exp() * (q - p)).sum(-1).mean().item()
        assert found["soft_loss"].item() == pytest.approx(soft, rel=1e-3)
        loss += alpha * (soft - hard)
    assert found["loss"].item() == pytest.approx(loss, rel=1e-4)
    found["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters())
    assert objective.layer_rate(0) == objective.layer_rate(3) == 1.0


def test_all_at_once() -> None:
    objective = transfer(Stage(steps=1, layers=(1, 2, 3), distils=True))
    found = shares(objective)
    assert {"feature", "mean", "variance", "attention", "masked_loss", "soft_loss", "pair_loss"} < found.keys()
    parts = [Stage(steps=1, layers=(1, 2, 3)), Stage(steps=1, distils=True)]
    alone = torch.stack([shares(transfer(part))["loss"] for part in parts]).sum()
    assert found["loss"].item() == pytest.approx(alone.item(), rel=1e-4)


def test_statistics_of_equals_are_zero() -> None:
    x = torch.randn(5, 7)
    assert all(value.item() == 0 for value in statistics_losses(x, x.clone()).values())
    shifted = statistics_losses(x, x + 2.0)
    assert shifted["mean"].item() == pytest.approx(20.0, rel=1e-4)
    assert shifted["variance"].item() == pytest.approx(0.0, abs=1e-4)


def test_models_that_do_not_fit_are_refused() -> None:
    student = AutoModelForPreTraining.from_config(MOBILEBERT)
    teacher = AutoModelForPreTraining.from_config(replace(IB_BERT, num_hidden_layers=2))
    with pytest.raises(ConfigError, match="num_hidden_layers is 3 in the student and 2 in its teacher"):
        Transfer(student, teacher, TransferWeights(), [Stage(steps=1, distils=True)])
    with pytest.raises(ConfigError, match="alpha=2"):
        TransferWeights(alpha=2)


def test_a_teacher_of_another_architecture_is_refused() -> None:
    """Its shapes are those that are compared: as many layers and heads, as wide."""
    student = AutoModelForPreTraining.from_config(MOBILEBERT)
    shape = {name: getattr(MOBILEBERT, name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")}
    teacher = AutoModelForPreTraining.from_config(BertConfig(vocab_size=MOBILEBERT.vocab_size, **shape))
    with pytest.raises(ConfigError, match="a MobileBertForPreTraining and its teacher a BertForPreTraining"):
        Transfer(student, teacher, TransferWeights(), [Stage(steps=1, distils=True)])
