"""The terms of distillation against plain NumPy, and what must not matter: padding, the division of a batch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pocketbert.configs import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.errors import ConfigError
from pocketbert.features import IGNORED
from pocketbert.models.auto import model_class
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.training.distillation import (
    Distillation,
    attention_loss,
    check_pairs,
    hard_loss,
    hidden_loss,
    pair_layers,
    soft_loss,
)
from pocketbert.training.settings import DistillationWeights

Array = npt.NDArray[np.float64]
SMALL: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 16,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SMALL, num_hidden_layers=4),
    "squeezebert": SqueezeBertConfig(
        **{**SMALL, "hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 2, "q_groups": 2, "k_groups": 2,
           "v_groups": 2, "intermediate_groups": 4, "output_groups": 4}
    ),
    "mobilebert": MobileBertConfig(
        **{**SMALL, "embedding_size": 8, "intra_bottleneck_size": 16, "num_hidden_layers": 3,
           "num_feedforward_networks": 1}
    ),
}  # fmt: skip


def model(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = CONFIGS[family].replace(**changes)
    built: PreTrainedModel = model_class(config, "ForSequenceClassification")(config)
    return built


def batch(lengths: tuple[int, ...], seed: int, garbage: int = 0, classes: int = 2) -> dict[str, torch.Tensor]:
    """A batch whose padding holds any ids, decided by `garbage`."""
    random = np.random.default_rng(seed)
    shape = len(lengths), max(lengths)
    ids, mask = random.integers(1, 40, size=shape), np.arange(shape[1]) < np.array(lengths)[:, None]
    ids = np.where(mask, ids, np.random.default_rng(garbage).integers(1, 40, size=shape))
    labels = random.integers(0, classes, size=shape[0])
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        "token_type_ids": torch.zeros(shape, dtype=torch.long),
        "labels": torch.from_numpy(labels),
    }


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


# ── each term against NumPy ──


@pytest.mark.parametrize("teachers", [1, 3])
def test_soft_targets(teachers: int) -> None:
    random = np.random.default_rng(teachers)
    for temperature in (0.5, 1.0, 4.0):
        mine, theirs = random.normal(size=(5, 3)), random.normal(size=(teachers, 5, 3)) * 2
        target = softmax(theirs / temperature).mean(0)
        wanted = temperature**2 * (target * np.log(target / softmax(mine / temperature))).sum()
        logits = torch.from_numpy(mine).requires_grad_()
        loss = soft_loss(logits, list(torch.from_numpy(theirs)), temperature, "single_label_classification")
        assert loss.item() == pytest.approx(wanted, rel=1e-5)
        loss.backward()
        assert logits.grad is not None
        # d/dz of T² KL is T (q - p).
        np.testing.assert_allclose(logits.grad.numpy(), temperature * (softmax(mine / temperature) - target), atol=1e-5)


def test_the_gradient_keeps_its_size_when_the_temperature_is_high() -> None:
    random = np.random.default_rng(0)
    mine, theirs = torch.from_numpy(random.normal(size=(50, 4))), torch.from_numpy(random.normal(size=(50, 4)))
    sizes = []
    for temperature in (10.0, 100.0):
        logits = mine.clone().requires_grad_()
        soft_loss(logits, [theirs], temperature, "single_label_classification").backward()
        assert logits.grad is not None
        sizes.append(logits.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
    # In the limit it is that of the squared difference of centred logits over the number of classes (Hinton 2015).
    difference = (mine - mine.mean(-1, keepdim=True)) - (theirs - theirs.mean(-1, keepdim=True))
    assert sizes[1] == pytest.approx((difference / 4).norm().item(), rel=0.02)


def test_numbers_and_several_labels() -> None:
    random = np.random.default_rng(2)
    mine, theirs = random.normal(size=(6, 1)), random.normal(size=(2, 6, 1))
    loss = soft_loss(torch.from_numpy(mine), list(torch.from_numpy(theirs)), 3.0, "regression")
    assert loss.item() == pytest.approx(((mine - theirs.mean(0)) ** 2).sum(), rel=1e-5)

    mine, theirs = random.normal(size=(6, 3)), random.normal(size=(2, 6, 3))
    p, q = (1 / (1 + np.exp(-theirs / 2))).mean(0), 1 / (1 + np.exp(-mine / 2))
    wanted = 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(-1).sum()
    loss = soft_loss(torch.from_numpy(mine), list(torch.from_numpy(theirs)), 2.0, "multi_label_classification")
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


def test_an_example_without_a_label_adds_nothing() -> None:
    random = np.random.default_rng(3)
    logits = torch.from_numpy(random.normal(size=(4, 3)))
    labels = torch.tensor([2, IGNORED, 0, IGNORED])
    wanted = -np.log(softmax(logits.numpy())[[0, 2], [2, 0]]).sum()
    assert hard_loss(logits, labels, "single_label_classification").item() == pytest.approx(wanted)
    nothing = torch.full((4,), IGNORED)
    assert hard_loss(logits, nothing, "single_label_classification").item() == 0.0

    numbers = torch.tensor([1.0, np.nan, 2.0, np.nan], dtype=torch.float64)
    wanted = ((logits[:, :1].numpy()[[0, 2], 0] - np.array([1.0, 2.0])) ** 2).sum()
    assert hard_loss(logits[:, :1], numbers, "regression").item() == pytest.approx(wanted)
    marked = torch.tensor([[1, 0, 1], [IGNORED] * 3, [0, 0, 0], [1, 1, 1]])
    q = 1 / (1 + np.exp(-logits.numpy()))
    each = -np.where(marked.numpy() == 1, np.log(q), np.log(1 - q)).mean(-1)
    loss = hard_loss(logits, marked, "multi_label_classification")
    assert loss.item() == pytest.approx(each[[0, 2, 3]].sum())


def test_hidden_states() -> None:
    random = np.random.default_rng(4)
    mine, theirs = random.normal(size=(7, 5)) * 1000, random.normal(size=(7, 5)) * 1e7

    def normalised(x: Array) -> Array:
        return np.asarray((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5))

    wanted = ((normalised(mine) - normalised(theirs)) ** 2).mean(-1).sum()
    assert hidden_loss(torch.from_numpy(mine), torch.from_numpy(theirs)).item() == pytest.approx(wanted, rel=1e-4)
    assert hidden_loss(torch.from_numpy(theirs), 3 * torch.from_numpy(theirs)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("heads", [(2, 2), (2, 3)])
def test_attention_maps(heads: tuple[int, int]) -> None:
    random = np.random.default_rng(5)
    lengths = np.array([4, 2])
    real = np.arange(4) < lengths[:, None]
    maps = [softmax(np.where(real[:, None, None], random.normal(size=(2, h, 4, 4)) * 2, -np.inf)) for h in heads]
    mine, theirs = maps if heads[0] == heads[1] else [m.mean(1, keepdims=True) for m in maps]
    wanted = 0.0
    for row, length in enumerate(lengths):
        for head in range(mine.shape[1]):
            p, q = theirs[row, head, :length, :length], mine[row, head, :length, :length]
            wanted += (p * np.log(p / q)).sum() / mine.shape[1]
    a, b = (torch.from_numpy(m).requires_grad_() for m in maps)
    loss = attention_loss(a, b.detach(), torch.from_numpy(real))
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    loss.backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert not a.grad[1, :, 2:].any()


# ── the objective ──

ALL = DistillationWeights(alpha=0.4, temperature=2.0, hidden_weight=0.7, attention_weight=0.3)


def objective(student: str, teachers: tuple[str, ...], terms: DistillationWeights = ALL) -> Distillation:
    taught = model(student)
    teach = [model(family, seed=i + 1) for i, family in enumerate(teachers)]
    pairs = [pair_layers(taught.config.num_hidden_layers, t.config.num_hidden_layers) for t in teach]
    torch.manual_seed(9)
    widths = [t.config.hidden_size for t in teach]
    return Distillation(taught, terms, pairs=pairs, widths=widths, teachers=teach)


def cost(one: Distillation, *parts: dict[str, torch.Tensor]) -> tuple[dict[str, float], list[torch.Tensor]]:
    """The terms of a batch in these parts, and the gradients."""
    one.zero_grad()
    totals: dict[str, int] = {}
    for part in parts:
        for unit, count in one.units({name: tensor.numpy() for name, tensor in part.items()}).items():
            totals[unit] = totals.get(unit, 0) + count
    sums: dict[str, float] = {}
    for part in parts:
        shares = one(part, totals)
        shares["loss"].backward()
        for name, value in shares.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return sums, [p.grad.clone() for p in one.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    ("student", "teachers"),
    [("squeezebert", ("bert",)), ("bert", ("bert", "squeezebert")), ("squeezebert", ("mobilebert", "bert"))],
)
def test_the_loss_is_made_of_its_terms(student: str, teachers: tuple[str, ...]) -> None:
    one = objective(student, teachers)
    part = batch((5, 3, 7), seed=1)
    sums, _ = cost(one, part)
    assert sums["loss"] == pytest.approx(
        0.6 * sums["hard"] + 0.4 * sums["soft"] + 0.7 * sums["hidden"] + 0.3 * sums["attention"], rel=1e-5
    )
    inputs = {name: part[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    asked = {**inputs, "output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        mine = one.model(**asked)
        real = part["attention_mask"].bool()
        hidden, attention = [], []
        for teacher, pairs, projection in zip(one.teachers, one.pairs, one.projections, strict=True):
            theirs = teacher(**asked)
            for here, there in pairs:
                states = projection(mine.hidden_states[here][real])
                hidden.append(hidden_loss(states, theirs.hidden_states[there][real]) / 15)
                if there:
                    maps = mine.attentions[here - 1], theirs.attentions[there - 1]
                    attention.append(attention_loss(*maps, real) / 15)
        wanted = torch.nn.functional.cross_entropy(mine.logits, part["labels"])
    assert sums["hard"] == pytest.approx(wanted.item(), rel=1e-5)
    assert sums["hidden"] == pytest.approx(np.mean(hidden), rel=1e-5)
    assert sums["attention"] == pytest.approx(np.mean(attention), rel=1e-5)


@pytest.mark.parametrize("student", ["squeezebert", "bert"])
def test_padding_counts_nowhere(student: str) -> None:
    one = objective(student, ("bert", "squeezebert"))
    sums, gradients = cost(one, batch((5, 3, 9), seed=2, garbage=1))
    for garbage in (2, 3):
        others, theirs = cost(one, batch((5, 3, 9), seed=2, garbage=garbage))
        assert others == pytest.approx(sums, rel=1e-5)
        # Padding's own embeddings are read, and their gradient is zero: whichever they are.
        for a, b in zip(gradients, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    longer = {
        name: torch.nn.functional.pad(tensor, (0, 4)) if tensor.ndim == 2 else tensor
        for name, tensor in batch((5, 3, 9), seed=2).items()
    }
    assert cost(one, longer)[0] == pytest.approx(sums, rel=1e-4)


def test_the_division_of_a_batch_does_not_matter() -> None:
    one = objective("squeezebert", ("bert",))
    whole = batch((5, 3, 9, 2, 7), seed=3)
    whole["labels"][1] = IGNORED
    parts = [{name: tensor[rows] for name, tensor in whole.items()} for rows in (slice(0, 1), slice(1, 3), slice(3, 5))]
    (a, gradients), (b, others) = cost(one, whole), cost(one, *parts)
    assert b == pytest.approx(a, rel=1e-5)
    for x, y in zip(gradients, others, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def test_a_student_that_is_the_teacher_has_nothing_to_learn() -> None:
    terms = DistillationWeights(alpha=1.0, temperature=3.0, hidden_weight=1.0, attention_weight=1.0)
    one = objective("bert", ("bert",), terms)
    one.model.load_state_dict(one.teachers[0].state_dict())
    sums, _ = cost(one, batch((5, 3, 9), seed=4))
    assert "hard" not in sums
    assert sums["loss"] == pytest.approx(0.0, abs=1e-6)


def test_teachers_are_neither_trained_nor_saved() -> None:
    one = objective("squeezebert", ("bert",))
    one.train()
    assert not one.teachers[0].training
    assert not any(name.startswith("teacher") for name in one.state_dict())
    teacher = {id(p) for p in one.teachers[0].parameters()}
    assert not teacher & {id(p) for p in one.parameters()}
    assert [name for name in one.state_dict() if "projections" in name] == ["projections.0.weight"]


def test_pairs_of_layers() -> None:
    assert pair_layers(2, 6) == ((0, 0), (1, 3), (2, 6))
    assert pair_layers(3, 12) == ((0, 0), (1, 4), (2, 8), (3, 12))
    assert pair_layers(4, 2) == ((0, 0), (1, 1), (2, 1), (3, 1), (4, 2))
    for wrong in ((3, 1), (1, 7), (0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ConfigError, match=f"{wrong[0]}:{wrong[1]}"):
            check_pairs((wrong,), 2, 6)


@pytest.mark.parametrize(
    "wrong", [{"alpha": 1.5}, {"alpha": -0.1}, {"temperature": 0.0}, {"hidden_weight": -1.0}, {"alpha": np.nan}]
)
def test_weights_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        DistillationWeights(**wrong)
