"""The objective of pretraining: against the published loss, divided in any way, at the masked places alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.packed import IB_BERT, MOBILEBERT, SQUEEZEBERT, packed, split
from helpers.seeds import SEED
from pocketbert.data.batches import random_words
from pocketbert.features import IGNORED
from pocketbert.models.auto import AutoModelForPreTraining
from pocketbert.training.distributed import ProcessGroup
from pocketbert.training.objectives import Batch
from pocketbert.training.pretraining import Pretraining, evaluate_pretraining


def tensors(batch: Batch) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def totals(objective: Pretraining, parts: list[Batch]) -> dict[str, int]:
    counts = [objective.units(part) for part in parts]
    return {name: sum(count[name] for count in counts) for name in counts[0]}


@pytest.mark.parametrize("config", [SQUEEZEBERT, MOBILEBERT, IB_BERT], ids=["squeezebert", "mobilebert", "ib-bert"])
def test_against_the_models_own_loss(config: object) -> None:
    """Of one example at a time, unpadded: the mean over masked places plus the mean over pairs."""
    random = np.random.default_rng()
    model = AutoModelForPreTraining.from_config(config).eval()  # type: ignore[arg-type]
    objective = Pretraining(model)
    batch = packed(random, [9, 16, 4, 11], [1, 3, 0, 2])
    words, pairs = [], []
    for one in split(batch, [1, 2, 3]):
        labels = torch.full((1, len(one["input_ids"])), IGNORED)
        labels[0, one["masked_positions"]] = torch.from_numpy(one["masked_labels"])
        ids, types = torch.from_numpy(one["input_ids"])[None], torch.from_numpy(one["token_type_ids"])[None]
        output = model(ids, token_type_ids=types)
        loss = torch.nn.functional.cross_entropy(output.prediction_logits[0], labels[0], reduction="none")
        words += loss[labels[0] != IGNORED].tolist()
        if one["pair_labels"][0] != IGNORED:
            label = torch.from_numpy(one["pair_labels"])
            pairs.append(torch.nn.functional.cross_entropy(output.seq_relationship_logits, label).item())
    shares = objective(tensors(batch), totals(objective, [batch]))
    assert len(words) == 6
    assert len(pairs) == 3
    assert shares["masked_loss"].item() == pytest.approx(np.mean(words), rel=1e-4)
    assert shares["pair_loss"].item() == pytest.approx(np.mean(pairs), rel=1e-4)
    assert shares["loss"].item() == pytest.approx(np.mean(words) + np.mean(pairs), rel=1e-4)
    found = evaluate_pretraining(objective, split(batch, [2]), ProcessGroup())
    assert found["loss"] == pytest.approx(shares["loss"].item(), rel=1e-5)
    assert found["masked_accuracy"] == pytest.approx(shares["masked_accuracy"].item())


@pytest.mark.parametrize("cuts", [[2], [1, 2, 3, 4], [3, 4]])
def test_micro_batches_add_up(cuts: list[int]) -> None:
    """With masked places and pairs distributed as unevenly as may be, none of either in some parts."""
    model = AutoModelForPreTraining.from_config(SQUEEZEBERT)
    objective = Pretraining(model)
    batch = packed(np.random.default_rng(), [7, 16, 5, 3, 12], [5, 1, 0, 0, 2])
    objective(tensors(batch), totals(objective, [batch]))["loss"].backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    parts = split(batch, cuts)
    for part in parts:
        objective(tensors(part), totals(objective, parts))["loss"].backward()
    assert whole.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in whole.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-6, rtol=1e-3)


def test_the_vocabulary_is_scored_at_masked_places_alone() -> None:
    model = AutoModelForPreTraining.from_config(MOBILEBERT)
    objective, rows = Pretraining(model), []
    transform = model.get_submodule("cls.predictions.transform.dense")
    transform.register_forward_hook(lambda _m, inputs, out: rows.append(inputs[0].shape))
    batch = packed(np.random.default_rng(), [8, 16, 10], [2, 1, 4])
    objective(tensors(batch), totals(objective, [batch]))
    assert rows == [(7, 16)]


def test_words_alone() -> None:
    """Without pairs, what reads the first token alone rests."""
    model = AutoModelForPreTraining.from_config(SQUEEZEBERT)
    objective = Pretraining(model, pairs=False)
    batch = packed(np.random.default_rng(), [8, 16], [2, 1])
    del batch["pair_labels"]
    shares = objective(tensors(batch), totals(objective, [batch]))
    assert shares.keys() == {"loss", "masked_loss", "masked_accuracy"}
    shares["loss"].backward()
    resting = {name for name, p in model.named_parameters() if p.grad is None}
    assert resting == {name for name, p in model.named_parameters() if "pooler" in name or "seq_relationship" in name}


@pytest.mark.learning
def test_it_learns() -> None:
    torch.manual_seed(int(random_words(SEED, "weights", 0, 1)[0]))
    objective = Pretraining(AutoModelForPreTraining.from_config(MOBILEBERT))
    batch = packed(np.random.default_rng(1), [16] * 8, [3] * 8)
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective(tensors(batch), totals(objective, [batch]))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
