"""Distillation of tags, answers and choices against plain NumPy: what counts, and what never does."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pocketbert.configs import BertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.data.batches import BatchOrder, LabelledBatches
from pocketbert.features import IGNORED, Features
from pocketbert.models.auto import model_class
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.training import teachers
from pocketbert.training.distillation import Distillation, logits_of
from pocketbert.training.settings import DistillationWeights
from pocketbert.training.teachers import BatchesWithTeacher, TeacherCache, inputs_of

Array = npt.NDArray[np.float64]
Tensors = dict[str, torch.Tensor]

SMALL: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "initializer_range": 0.4,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 16,
}  # fmt: skip
TEACHER = BertConfig(**SMALL, num_hidden_layers=2)
STUDENT = SqueezeBertConfig(**{**SMALL, "hidden_size": 8, "embedding_size": 8}, num_hidden_layers=1)
HEADS = ["ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice"]
PAIRS = ((0, 0), (1, 2))
TERMS = DistillationWeights(alpha=0.4, temperature=3.0, hidden_weight=0.5, attention_weight=0.2)


def model(config: PreTrainedConfig, head: str, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    if head == "ForTokenClassification":
        config = config.replace(id2label={0: "O", 1: "B-X", 2: "I-X"})
    built: PreTrainedModel = model_class(config, head)(config)
    return built.eval()


def examples(head: str, count: int, seed: int = 0) -> tuple[list[Features] | list[list[Features]], dict[str, Any]]:
    """Inputs of unequal lengths, and what is right."""
    random = np.random.default_rng(seed)

    def one(length: int) -> Features:
        return Features(random.integers(1, 40, length, dtype=np.int32), np.zeros(length, dtype=np.int32))

    lengths = random.integers(3, 12, size=count).tolist()
    if head == "ForMultipleChoice":
        choices = [[one(int(length)) for length in random.integers(3, 12, size=3)] for _ in lengths]
        return choices, {"labels": random.integers(0, 3, size=count)}
    features = [one(length) for length in lengths]
    if head == "ForQuestionAnswering":
        starts = np.array([random.integers(0, length) for length in lengths])
        ends = np.array([random.integers(start, length) for start, length in zip(starts, lengths, strict=True)])
        return features, {"start_positions": starts, "end_positions": ends}
    labels = [np.where(random.random(n) < 0.5, random.integers(0, 3, n), IGNORED) for n in lengths]
    return features, {"labels": labels}


def batches(head: str, count: int = 5, parts: int = 1, size: int = 5) -> LabelledBatches:
    features, targets = examples(head, count)
    lengths = [len(one) if isinstance(one, Features) else max(map(len, one)) for one in features]
    return LabelledBatches(features, targets, BatchOrder(lengths, batch_size=size, seed=0), parts=parts)


def tensors(batch: dict[str, Any]) -> Tensors:
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def objective(head: str, terms: DistillationWeights = TERMS) -> Distillation:
    student = model(STUDENT, head, 5)
    torch.manual_seed(6)
    teach = [model(TEACHER, head, seed) for seed in (1, 2)]
    return Distillation(student, terms, pairs=[PAIRS, PAIRS], widths=[16, 16], teachers=teach)


def cost(one: Distillation, parts: list[dict[str, Any]]) -> tuple[dict[str, float], list[torch.Tensor]]:
    """The terms of a batch in parts, and the gradients."""
    one.zero_grad()
    totals: dict[str, int] = {}
    for part in parts:
        for unit, count in one.units(part).items():
            totals[unit] = totals.get(unit, 0) + count
    sums: dict[str, float] = {}
    for part in parts:
        shares = one(tensors(part), totals)
        shares["loss"].backward()
        for name, value in shares.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return sums, [p.grad.clone() for p in one.parameters() if p.grad is not None]


def rows(head: str, logits: Array, batch: Tensors) -> tuple[list[Array], list[int]]:
    """The logits of each decision, without any padding, and what is right; written without `decisions`."""
    found, right = [], []
    for i in range(len(logits)):
        if head == "ForMultipleChoice":
            found.append(logits[i])
            right.append(int(batch["labels"][i]))
        elif head == "ForQuestionAnswering":
            length = int(batch["attention_mask"][i].sum())
            for side, name in enumerate(("start_positions", "end_positions")):
                found.append(logits[i, :length, side])
                right.append(int(batch[name][i]))
        else:
            for token, label in enumerate(batch["labels"][i].tolist()):
                if label != IGNORED:
                    found.append(logits[i, token])
                    right.append(label)
    return found, right


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


@pytest.mark.parametrize("head", HEADS)
def test_labels_and_soft_targets(head: str) -> None:
    one, [batch] = objective(head), batches(head)(0)
    sums, _ = cost(one, [batch])
    asked = tensors({name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    with torch.no_grad():
        mine = logits_of(one.model(**asked)).double().numpy()
        theirs = [logits_of(teacher(**asked)).double().numpy() for teacher in one.teachers]
    own, right = rows(head, mine, tensors(batch))
    said = [rows(head, logits, tensors(batch))[0] for logits in theirs]
    hard = np.mean([-np.log(softmax(x)[label]) for x, label in zip(own, right, strict=True)])
    soft = []
    for place, x in enumerate(own):
        p, q = np.mean([softmax(one[place] / 3) for one in said], axis=0), softmax(x / 3)
        soft.append(9 * (p * np.log(p / q)).sum())
    assert sums["hard"] == pytest.approx(hard, rel=1e-4)
    assert sums["soft"] == pytest.approx(np.mean(soft), rel=1e-4)
    assert sums["loss"] == pytest.approx(
        0.6 * sums["hard"] + 0.4 * sums["soft"] + 0.5 * sums["hidden"] + 0.2 * sums["attention"], rel=1e-5
    )


@pytest.mark.parametrize("head", HEADS)
def test_the_labels_alone_are_what_fine_tuning_learns(head: str) -> None:
    """Where nothing is padded; over padding a model's own loss of answers goes as well, as it was published."""
    one = objective(head, DistillationWeights(alpha=0.0, hidden_weight=1.0))
    whole = batches(head)
    equal = [(x if isinstance(x, Features) else x[0]) for x in whole.features]
    cut = [Features(x.input_ids[:3], x.token_type_ids[:3]) for x in equal]
    whole.features = [[x, x, x] for x in cut] if head == "ForMultipleChoice" else cut
    whole.targets = {
        name: [row[:3] for row in values] if isinstance(values, list) else np.minimum(values, 2)
        for name, values in whole.targets.items()
    }
    [batch] = whole(0)
    with torch.no_grad():
        own = one.model(**tensors(batch)).loss.item()
    assert cost(one, [batch])[0]["hard"] == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_padding_and_unlabelled_tokens_count_nowhere(head: str) -> None:
    one, [batch] = objective(head), batches(head)(0)
    sums, gradients = cost(one, [batch])
    random = np.random.default_rng(3)
    ids = batch["input_ids"]
    garbage = np.where(batch["attention_mask"] == 1, ids, random.integers(1, 40, ids.shape))
    others, theirs = cost(one, [{**batch, "input_ids": garbage}])
    assert others == pytest.approx(sums, rel=1e-4)
    for a, b in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    if head == "ForTokenClassification":  # what is said of a token without a label does not matter
        only = DistillationWeights(alpha=1.0, temperature=2.0)
        student, teacher = model(STUDENT, head, 5), model(TEACHER, head, 1)
        silent = Distillation(student, only, pairs=[PAIRS], widths=[16])
        with torch.no_grad():
            asked = tensors({name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
            said = teacher(**asked).logits.numpy()
        noise = np.where(batch["labels"][..., None] == IGNORED, random.normal(size=said.shape) * 9, said)
        told = [{**batch, "teacher_logits": x[:, None].astype(np.float32)} for x in (said, noise)]
        assert cost(silent, [told[0]])[0] == cost(silent, [told[1]])[0]


@pytest.mark.parametrize("head", HEADS)
def test_the_division_of_a_batch_does_not_matter(head: str) -> None:
    one = objective(head)
    (whole, gradients), (parts, others) = cost(one, batches(head)(0)), cost(one, batches(head, parts=3)(0))
    assert parts == pytest.approx(whole, rel=1e-4)
    for a, b in zip(gradients, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_what_was_kept_is_what_would_be_said(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "SHARD", 7)
    labelled = batches(head, count=11, parts=2, size=4)
    teacher, terms = model(TEACHER, head, 1), DistillationWeights(alpha=0.5, temperature=2.0, hidden_weight=1.0)
    cache = TeacherCache(tmp_path, teacher, inputs_of(labelled.features), [0, 2], bf16=False)
    cache.fill()
    cache.open()
    taught = BatchesWithTeacher(labelled, [(cache, [0, 2])])
    student = model(STUDENT, head, 5)
    torch.manual_seed(0)
    from_disk = Distillation(student, terms, pairs=[PAIRS], widths=[16])
    live = Distillation(student, terms, pairs=[PAIRS], widths=[16], teachers=[teacher])
    live.projections.load_state_dict(from_disk.projections.state_dict())
    for step in range(3):
        kept, asked = taught(step), labelled(step)
        assert len(kept) == len(asked) == 2
        a, b = cost(from_disk, kept)[0], cost(live, asked)[0]
        for name, value in a.items():
            assert value == pytest.approx(b[name], rel=2e-3), name
