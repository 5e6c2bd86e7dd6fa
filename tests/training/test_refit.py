"""Students fitted by least squares: the closed form, the assignment to groups, and what a student gains by both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from helpers.corpora import build, documents
from helpers.seeds import SEED
from pocketbert import MPNetConfig
from pocketbert.configs import BertConfig, MobileBertConfig, SqueezeBertConfig
from pocketbert.corpus.calibration_text import calibration_text
from pocketbert.errors import ConfigError, DataError
from pocketbert.models.bert import BertModel
from pocketbert.models.init_from_teacher import init_from_teacher
from pocketbert.models.mobilebert import MobileBertModel
from pocketbert.models.mpnet import MPNetModel
from pocketbert.models.squeezebert import SqueezeBertModel
from pocketbert.training.pretraining import packing_of
from pocketbert.training.refit.bert_layers import bert_layers
from pocketbert.training.refit.groups import assign
from pocketbert.training.refit.least_squares import Moments
from pocketbert.training.refit.refit import refit_from_teacher, source_layers

SHAPE: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 24, "num_attention_heads": 6, "intermediate_size": 48,
    "max_position_embeddings": 32, "initializer_range": 0.3,
}  # fmt: skip
GROUPS = ("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups")

Batches = list[dict[str, Tensor]]


def text(seed: int, examples: int = 300) -> Batches:
    """Packed batches of made-up text: a token decides about its neighbours, so that activations have a structure."""
    random = np.random.default_rng(seed)
    batches = []
    for _ in range(4):
        lengths = random.integers(3, 24, examples // 4)
        ids = [5 + (random.integers(45) + random.integers(1, 4) * np.arange(length)) % 45 for length in lengths]
        arrays = {
            "input_ids": np.concatenate(ids),
            "token_type_ids": np.zeros(lengths.sum(), np.int64),
            "position_ids": np.concatenate([np.arange(length) for length in lengths]),
            "starts": np.cumsum([0, *lengths]),
        }
        batches.append({name: torch.from_numpy(array) for name, array in arrays.items()})
    return batches


def teacher(layers: int = 2, **changes: Any) -> BertModel:
    model = BertModel(BertConfig(**{**SHAPE, "num_hidden_layers": layers, **changes})).eval()
    torch.manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter) * 0.3
            parameter.copy_(1 + noise if "LayerNorm.weight" in name else noise)
    return model


def student(layers: int = 2, groups: int = 2, **changes: Any) -> SqueezeBertModel:
    torch.manual_seed(SEED + 1)
    shape = {**SHAPE, "embedding_size": 24, "num_hidden_layers": layers, "post_attention_groups": 1}
    return SqueezeBertModel(SqueezeBertConfig(**{**shape, **dict.fromkeys(GROUPS, groups), **changes}))


@torch.no_grad()
def states(model: Any, batches: Batches) -> list[Tensor]:
    """The hidden states after each layer, [tokens, width], normalised."""
    model.eval()
    outputs = [
        model(
            input_ids=batch["input_ids"][None], attention_mask=packing_of(batch),
            position_ids=batch["position_ids"][None], output_hidden_states=True,
        ).hidden_states
        for batch in batches
    ]  # fmt: skip
    return [F.layer_norm(torch.cat(layer, 1)[0], layer[0].shape[-1:]) for layer in zip(*outputs, strict=True)]


def errors(model: Any, of: Any, batches: Batches, pairs: list[tuple[int, int]]) -> list[float]:
    """The squared difference of hidden states for each pair of layers."""
    own, other = states(model, batches), states(of, batches)
    return [float((own[a] - other[b]).square().mean()) for a, b in pairs]


# ── the closed form ──


@pytest.mark.parametrize("groups", [1, 3])
def test_least_squares_as_numpy_solves_them(groups: int) -> None:
    random = np.random.default_rng(SEED)
    x = random.normal(size=(500, 12)) @ random.normal(size=(12, 12)) + random.normal(size=12)
    y = np.tanh(x @ random.normal(size=(12, 6))) + random.normal(size=6)
    prior, ridge = random.normal(size=(6, 12 // groups)), 0.03
    moments = Moments(12, 6, groups)
    for part in np.array_split(np.arange(500), 7):
        moments.add(torch.from_numpy(x[part]), torch.from_numpy(y[part]))
    weight, bias = moments.covariance("here").solve(torch.from_numpy(prior), ridge)
    for g in range(groups):
        columns, rows = np.arange(12 // groups) + g * 12 // groups, np.arange(6 // groups) + g * 6 // groups
        centred = x[:, columns] - x[:, columns].mean(0)
        scale = np.sqrt(ridge * np.trace(centred.T @ centred) / len(columns))
        wanted = y[:, rows] - y[:, rows].mean(0)
        # Ridge regression towards the prior is a regression with further rows.
        a = np.concatenate([centred, scale * np.eye(len(columns))])
        b = np.concatenate([wanted, scale * prior[rows].T])
        solution = np.linalg.lstsq(a, b, rcond=None)[0].T
        np.testing.assert_allclose(weight[rows], solution, atol=1e-9)
        np.testing.assert_allclose(bias[rows], y[:, rows].mean(0) - solution @ x[:, columns].mean(0), atol=1e-9)


def test_what_a_group_leaves_unexplained() -> None:
    random = np.random.default_rng(SEED)
    x = random.normal(size=(2000, 8))
    y = np.stack([x[:, 0] - x[:, 3], x[:, 5] + 2 * x[:, 6], x[:, 1] + x[:, 7], random.normal(size=2000)], axis=1)
    moments = Moments(8, 4)
    moments.add(torch.from_numpy(x), torch.from_numpy(y))
    covariance = moments.covariance("here")
    left = covariance.unexplained(2, 1e-9).numpy()
    for g in range(2):
        inputs = np.concatenate([x[:, 4 * g : 4 * g + 4], np.ones((2000, 1))], axis=1)
        residual = y - inputs @ np.linalg.lstsq(inputs, y, rcond=None)[0]
        np.testing.assert_allclose(left[:, g], residual.var(0), atol=1e-6)
    assert left[0, 0] < 1e-6 < left[0, 1]
    assert left[1, 1] < 1e-6 < left[1, 0]


def test_regressions_without_an_answer() -> None:
    random = torch.Generator().manual_seed(SEED)
    few = Moments(8, 2)
    few.add(torch.randn(15, 8, generator=random), torch.randn(15, 2, generator=random))
    with pytest.raises(DataError, match=r"15 tokens are too few to fit a layer of 8 inputs \(layer 3\): at least 16"):
        few.covariance("layer 3")
    for x, message in ((torch.ones(50, 8), "hardly vary"), (torch.full((50, 8), torch.nan), "not finite")):
        moments = Moments(8, 2)
        moments.add(x, torch.randn(50, 2, generator=random))
        with pytest.raises(DataError, match=f"layer 3 {'are ' if 'not' in message else ''}{message}"):
            moments.covariance("layer 3").solve(torch.zeros(2, 8), 1e-3)
    # A channel that repeats another is no obstacle.
    x = torch.randn(50, 7, generator=random)
    moments = Moments(8, 2)
    moments.add(torch.cat([x, x[:, :1]], 1), x[:, :2])
    weight, _ = moments.covariance("layer 3").solve(torch.zeros(2, 8), 1e-6)
    torch.testing.assert_close(weight[0, [0, 7]], torch.full((2,), 0.5, dtype=torch.float64), atol=1e-3, rtol=0)


# ── the assignment ──


def test_no_assignment_is_cheaper() -> None:
    random = np.random.default_rng(SEED)
    for _ in range(40):
        capacity = random.integers(0, 9, random.integers(1, 6))
        items = int(capacity.sum())
        if not items:
            continue
        cost = random.normal(size=(items, len(capacity)))
        if random.integers(2):
            cost = cost.round()  # ties
        chosen = assign(cost, capacity)
        assert (np.bincount(chosen, minlength=len(capacity)) == capacity).all()
        whole = np.repeat(cost, capacity, axis=1)
        assert cost[np.arange(items), chosen].sum() == pytest.approx(whole[linear_sum_assignment(whole)].sum())


# ── students ──


def test_without_groups_the_student_is_the_teacher() -> None:
    of, to = teacher(), student(groups=1)
    refit_from_teacher(to, of, [1, 2], text(0))
    assert to.training  # as it was
    for own, other in zip(states(to, text(1)), states(of, text(1)), strict=True):
        torch.testing.assert_close(own, other, atol=2e-4, rtol=1e-4)


def test_half_of_the_layers_of_a_bert() -> None:
    torch.manual_seed(SEED)
    of, to = teacher(4), BertModel(BertConfig(**{**SHAPE, "num_hidden_layers": 2}))
    copied = BertModel(BertConfig(**{**SHAPE, "num_hidden_layers": 2}))
    init_from_teacher(copied, of, [(1, 2), (2, 4)])
    refit_from_teacher(to, of, [2, 4], text(0))
    pairs = [(1, 2), (2, 4)]
    assert sum(errors(to, of, text(1), pairs)) < 0.8 * sum(errors(copied, of, text(1), pairs))


@pytest.mark.parametrize("depth", [2, 4])
def test_a_student_with_groups_is_nearer_than_copied_blocks(depth: int) -> None:
    of, to, copied = teacher(), student(depth), student(depth)
    sources = source_layers(None, depth, 2)
    pairs = [(depth // 2, 1), (depth, 2)]
    init_from_teacher(copied, of, list(enumerate(sources, start=1)))
    refit_from_teacher(to, of, sources, text(0, 1200))
    before, after = errors(copied, of, text(1), pairs), errors(to, of, text(1), pairs)
    assert after[0] < 0.7 * before[0]
    assert after[1] < 0.8 * before[1]


@pytest.mark.slow
def test_a_second_layer_mends_what_the_first_one_left() -> None:
    of, single, double = teacher(1), student(1), student(2)
    refit_from_teacher(single, of, [1], text(0, 1200))
    refit_from_teacher(double, of, [1, 1], text(0, 1200))
    assert errors(double, of, text(1), [(2, 1)])[0] < 0.95 * errors(single, of, text(1), [(1, 1)])[0]


def hidden_blocks(groups: int) -> BertModel:
    """A teacher whose heads and units read and write one group each, in another order than a student has them."""
    random, of = np.random.default_rng(SEED), teacher(1)
    [layer] = bert_layers(of)
    heads = np.repeat(np.arange(groups), 6 // groups)
    units = np.repeat(np.arange(groups), 48 // groups)
    random.shuffle(heads), random.shuffle(units)
    channel = torch.arange(24) * groups // 24
    with torch.no_grad():
        for module in (layer.query, layer.key, layer.value):
            module.weight *= torch.from_numpy(np.repeat(heads, 4))[:, None] == channel  # type: ignore[operator]
        layer.intermediate.weight *= torch.from_numpy(units)[:, None] == channel  # type: ignore[operator]
        layer.output.weight *= channel[:, None] == torch.from_numpy(units)  # type: ignore[operator]
    return of


@pytest.mark.parametrize("groups", [2, 3])
def test_the_assignment_finds_hidden_blocks(groups: int) -> None:
    of, to, copied = hidden_blocks(groups), student(1, groups), student(1, groups)
    init_from_teacher(copied, of, [(1, 1)])
    refit_from_teacher(to, of, [1], text(0))
    assert errors(copied, of, text(1), [(1, 1)])[0] > 0.05
    assert errors(to, of, text(1), [(1, 1)])[0] < 1e-6


@pytest.mark.slow
def test_the_same_bits_again() -> None:
    of = teacher()
    for make, sources in ((student, [1, 2]), (mobile, [1, 1, 1, 2, 2, 2])):
        first, second = make(), make()
        with torch.no_grad():
            for parameter in second.parameters():
                parameter.normal_()  # nothing of it may remain
        for to in (first, second):
            refit_from_teacher(to, of, sources, text(0))
        others = dict(second.named_parameters())
        assert all(torch.equal(parameter, others[name]) for name, parameter in first.named_parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 48, "embedding_size": 48}, "the teacher's hidden_size: 24, not 48"),
        ({"num_attention_heads": 12}, "the teacher's num_attention_heads: 6, not 12"),
        ({"intermediate_size": 96}, "the teacher's intermediate_size: 48, not 96"),
        ({"hidden_act": "relu"}, "the teacher's hidden_act: gelu, not relu"),
    ],
)
def test_shapes_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        refit_from_teacher(student(**changes), teacher(), [1, 2], text(0))


def test_texts_that_decide_nothing() -> None:
    [first, *_] = text(0)
    end = int(first["starts"][2])
    short = {"starts": first["starts"][:3], **{name: first[name][:end] for name in first if name != "starts"}}
    with pytest.raises(DataError, match="tokens are too few"):
        refit_from_teacher(student(), teacher(), [1, 2], [short])
    same = {**first, "input_ids": torch.full_like(first["input_ids"], 7), "position_ids": 0 * first["position_ids"]}
    with pytest.raises(DataError, match="hardly vary"):
        refit_from_teacher(student(), teacher(), [1, 2], [same])


def test_layers_of_the_teacher() -> None:
    assert source_layers(None, 6, 6) == [1, 2, 3, 4, 5, 6]
    assert source_layers(None, 4, 12) == [3, 6, 9, 12]
    assert source_layers(None, 12, 6) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert source_layers(((0, 0), (3, 1), (6, 2)), 6, 2) == [1, 1, 1, 2, 2, 2]
    assert source_layers(((2, 3), (4, 6)), 5, 6) == [3, 3, 6, 6, 6]
    for pairs in (((0, 0),), ((1, 4), (2, 3)), ((1, 0), (2, 3))):
        with pytest.raises(ConfigError, match="--layers"):
            source_layers(pairs, 2, 6)


# ── MobileBERT ──


def mobile(parts: int = 3, **changes: Any) -> MobileBertModel:
    torch.manual_seed(SEED + 2)
    shape = {
        **SHAPE, "num_hidden_layers": 2 * parts, "num_attention_heads": 6 // parts, "intermediate_size": 48 // parts,
        "intra_bottleneck_size": 24 // parts, "embedding_size": 24, "num_feedforward_networks": 2,
        "normalization_type": "layer_norm", "hidden_act": "gelu", "mask_aware_trigram": True,
    }  # fmt: skip
    return MobileBertModel(MobileBertConfig(**{**shape, **changes}))


@pytest.mark.parametrize(
    ("parts", "changes"),
    [(3, {}), (2, {"num_feedforward_networks": 1}), (3, {"embedding_size": 12}), (2, {"trigram_input": False})],
)
def test_a_mobilebert_whose_layers_are_parts_of_a_layer(parts: int, changes: dict[str, Any]) -> None:
    of, to = teacher(), mobile(parts, **changes)
    pairs = [(0, 0), (parts, 1), (2 * parts, 2)]
    before = errors(to, of, text(1), pairs)
    refit_from_teacher(to, of, source_layers(None, 2 * parts, 2), text(0, 1200))
    after = errors(to, of, text(1), pairs)
    assert after[0] < (0.2 if "embedding_size" in changes else 1e-6)
    assert max(after[1:]) < 0.3
    assert min(before[1:]) > 1.0


def test_one_part_is_a_whole_layer() -> None:
    of, to = teacher(2), mobile(1)
    refit_from_teacher(to, of, [1, 2], text(0, 1200))
    assert max(errors(to, of, text(1), [(1, 1), (2, 2)])) < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 4}, "needs num_attention_heads=2, not 4"),
        ({"intra_bottleneck_size": 12}, "of 24 channels, 6 heads and 48 units needs intra_bottleneck_size=8, not 12"),
        ({"intermediate_size": 24}, "needs intermediate_size=16, not 24"),
        ({"hidden_size": 32}, "needs hidden_size=24, not 32"),
        ({"hidden_act": "relu"}, "needs hidden_act=gelu, not relu"),
        ({"normalization_type": "no_norm"}, "needs normalization_type=layer_norm, not no_norm"),
        ({"num_hidden_layers": 5}, "5 layers are not a multiple of 2"),
    ],
)
def test_a_mobilebert_of_another_shape(changes: dict[str, Any], message: str) -> None:
    to = mobile(**changes)
    with pytest.raises(ConfigError, match=message):
        refit_from_teacher(to, teacher(), source_layers(None, to.config.num_hidden_layers, 2), text(0))


def test_a_mobilebert_is_no_teacher() -> None:
    with pytest.raises(ConfigError, match="not of MobileBertModel"):
        refit_from_teacher(mobile(), mobile().eval(), [1, 2, 3, 4, 5, 6], text(0))


def test_layers_that_read_more_than_states_are_refused() -> None:
    config = MPNetConfig(**{**SHAPE, "num_hidden_layers": 2, "pad_token_id": 1})
    with pytest.raises(ConfigError, match="those of a MPNetModel have more"):
        refit_from_teacher(MPNetModel(config), teacher(), [1, 2], text(0))


# ── the text ──


def test_text_of_a_corpus(tmp_path: Path) -> None:
    corpus = build(tmp_path / "corpus", documents(40), documents(60, seed=1), held_out=documents(3, seed=2))
    batches = calibration_text(corpus, 24, 9000, SEED)
    again = calibration_text(corpus, 24, 9000, SEED)
    tokens = sum(len(batch["input_ids"]) for batch in batches)
    assert 9000 <= tokens < 9000 + 2 * 24
    stored = {tuple(shard.tokens[i : i + 3].tolist()) for shard in corpus.shards for i in range(len(shard.tokens) - 2)}
    mask, lengths = corpus.tokenizer.mask_token_id, []
    for batch, other in zip(batches, again, strict=True):
        assert all(np.array_equal(batch[name], other[name]) for name in batch)
        assert mask not in batch["input_ids"]
        for first, end in zip(batch["starts"][:-1], batch["starts"][1:], strict=True):
            ids = batch["input_ids"][first:end]
            assert (ids[0], ids[-1]) == (corpus.tokenizer.cls_token_id, corpus.tokenizer.sep_token_id)
            assert batch["position_ids"][first:end].tolist() == list(range(end - first))
            assert {tuple(ids[i : i + 3].tolist()) for i in range(1, len(ids) - 3)} <= stored
            lengths.append(end - first)
    assert max(lengths) == 24
    assert sum(length for length in lengths if length < 12) > 500
    assert lengths == sorted(lengths)
    with pytest.raises(DataError, match="lower --init-tokens"):
        calibration_text(corpus, 24, corpus.tokens + 1, SEED)
