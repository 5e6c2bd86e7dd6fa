"""The terms of distillation on raw text against plain NumPy, and where gradients flow."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from helpers.families import CONFIGS as ALL_CONFIGS
from pocketbert.configs import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.errors import ConfigError
from pocketbert.models.auto import model_class
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.runtime.engine import native_core
from pocketbert.training.distillation import attention_loss, pair_layers
from pocketbert.training.encoder_distillation import EncoderDistillation, mean_pool, sentence_loss
from pocketbert.training.engine_teachers import engine_teachers
from pocketbert.training.pretraining import packing_of
from pocketbert.training.settings import EncoderWeights, LayerPairs
from pocketbert.training.transfer import run_layers

Array = npt.NDArray[np.float64]
SMALL: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 16,
}  # fmt: skip
GROUPS: dict[str, Any] = {"q_groups": 2, "k_groups": 2, "v_groups": 2, "intermediate_groups": 4, "output_groups": 4}
CONFIGS: dict[str, PreTrainedConfig] = {
    "teacher": BertConfig(**SMALL, num_hidden_layers=4),
    "same": SqueezeBertConfig(**SMALL, **GROUPS, embedding_size=24, num_hidden_layers=4),
    "narrow": SqueezeBertConfig(
        **{**SMALL, **GROUPS, "hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 2}
    ),
    "mobile": MobileBertConfig(
        **{**SMALL, "embedding_size": 8, "intra_bottleneck_size": 16, "num_hidden_layers": 4,
           "num_feedforward_networks": 1}
    ),
}  # fmt: skip
STUDENTS = ("same", "narrow", "mobile")
ALL = EncoderWeights(
    hidden_weight=0.7, attention_weight=0.3, relation_weight=0.4, relation_heads=4, sentence_weight=0.5, word_weight=0.2
)


def model(name: str, head: str = "Model", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    built: PreTrainedModel = model_class(CONFIGS[name], head)(CONFIGS[name])
    return built


def batch(lengths: tuple[int, ...], seed: int, copies: int = 0) -> dict[str, torch.Tensor]:
    """A packed batch of random tokens, with masked copies of its first examples."""
    random = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = random.integers(5, 40, size=starts[-1])
    arrays = {
        "input_ids": ids, "token_type_ids": np.zeros_like(ids), "starts": starts,
        "position_ids": np.concatenate([np.arange(length) for length in lengths]),
    }  # fmt: skip
    if copies:
        end = starts[copies]
        positions = np.sort(random.choice(end, size=max(1, end // 4), replace=False))
        copied = ids[:end].copy()
        copied[positions] = 4
        arrays |= {"copy_ids": copied, "copy_starts": starts[: copies + 1]}
        arrays |= {"masked_positions": positions, "masked_labels": ids[positions]}
    return {name: torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)) for name, array in arrays.items()}


def objective(student: str, weights: EncoderWeights = ALL, teachers: int = 1, **options: Any) -> EncoderDistillation:
    taught = model(student, "ForMaskedLM" if weights.word_weight else "Model")
    teach = [model("teacher", seed=i + 1) for i in range(teachers)]
    pairs = [pair_layers(taught.config.num_hidden_layers, 4) for _ in teach]
    torch.manual_seed(9)
    return EncoderDistillation(taught, weights, pairs=pairs, teachers=teach, **options)


def cost(one: EncoderDistillation, *parts: dict[str, torch.Tensor]) -> tuple[dict[str, float], list[torch.Tensor]]:
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


def normalised(x: Array) -> Array:
    return np.asarray((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5))


def states_of(of: PreTrainedModel, ids: list[int]) -> tuple[list[Array], list[torch.Tensor]]:
    """Hidden states [tokens, H] and attention of one example by itself, without padding or packing."""
    with torch.no_grad():
        output = of.base_model(torch.tensor([ids]), output_hidden_states=True, output_attentions=True)
    return [state[0].double().numpy() for state in output.hidden_states], list(output.attentions)


def projections_of(of: PreTrainedModel, ids: list[int]) -> list[Array]:
    """Queries, keys and values [tokens, width] of the last layer for one example by itself."""
    outputs: list[Array] = []
    [*_, last] = of.base_model.layers
    named = [(name, module) for name, module in last.named_modules() if name.endswith(("query", "key", "value"))]
    hooks = [
        module.register_forward_hook(lambda _m, _i, output: outputs.append(output[0].double().numpy()))
        for _, module in sorted(named, key=lambda item: ("query", "key", "value").index(item[0].rpartition(".")[2]))
    ]
    with torch.no_grad():
        of.base_model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    assert len(outputs) == 3
    return outputs


def divergence(mine: Array, theirs: Array, heads: int) -> float:
    """KL of relations, a mean over heads, summed over tokens."""
    total = 0.0
    for own, other in zip(np.split(mine, heads, axis=-1), np.split(theirs, heads, axis=-1), strict=True):
        q, p = (x @ x.T / np.sqrt(x.shape[-1]) for x in (own, other))
        q, p = (z - np.logaddexp.reduce(z, axis=-1, keepdims=True) for z in (q, p))
        total += float((np.exp(p) * (p - q)).sum()) / heads
    return total


def examples_of(part: dict[str, torch.Tensor], ids: str = "input_ids", starts: str = "starts") -> list[list[int]]:
    edges = part[starts].tolist()
    return [part[ids][a:b].tolist() for a, b in pairwise(edges)]


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("teachers", [1, 2])
def test_every_term_against_numpy(student: str, teachers: int) -> None:
    one = objective(student, teachers=teachers)
    part = batch((5, 3, 7, 6), seed=1, copies=2)
    sums, _ = cost(one, part)
    tokens, hidden, attention, sentence, relation = 21, [], [], [], []
    for teacher, pairs, projection in zip(one.teachers, one.pairs, one.projections, strict=True):
        matrix = getattr(projection, "weight", torch.eye(teacher.config.hidden_size)).detach().double().numpy()
        distances, divergences, cosines, relations = np.zeros(len(pairs)), np.zeros(len(pairs)), 0.0, 0.0
        for ids in examples_of(part):
            mine, own_maps = states_of(one.model, ids)  # type: ignore[arg-type]
            theirs, maps = states_of(teacher, ids)
            for i, (here, there) in enumerate(pairs):
                distances[i] += ((normalised(mine[here] @ matrix.T) - normalised(theirs[there])) ** 2).mean(-1).sum()
                if there:
                    real = torch.ones(1, len(ids), dtype=torch.bool)
                    divergences[i] += attention_loss(own_maps[here - 1], maps[there - 1], real).item()
            for own, other in zip(projections_of(one.model, ids), projections_of(teacher, ids), strict=True):  # type: ignore[arg-type]
                relations += divergence(own, other, 4) / 3
            a, b = mine[-1].mean(0) @ matrix.T, theirs[-1].mean(0)
            cosines += 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        hidden.append(distances.mean() / tokens)
        attention.append(divergences[1:].mean() / tokens)
        sentence.append(cosines / 4)
        relation.append(relations / tokens)
    assert sums["relation"] == pytest.approx(np.mean(relation), rel=1e-4)
    assert sums["hidden"] == pytest.approx(np.mean(hidden), rel=1e-4)
    assert sums["attention"] == pytest.approx(np.mean(attention), rel=1e-4)
    assert sums["sentence"] == pytest.approx(np.mean(sentence), rel=1e-4)

    losses, right, at = [], [], 0
    labels = dict(zip(part["masked_positions"].tolist(), part["masked_labels"].tolist(), strict=True))
    for ids in examples_of(part, "copy_ids", "copy_starts"):
        with torch.no_grad():
            scores = one.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        for position in range(len(ids)):
            if (label := labels.get(at + position)) is not None:
                losses.append(-scores[position, label].item())
                right.append(scores[position].argmax().item() == label)
        at += len(ids)
    assert len(losses) == len(labels)
    assert sums["masked"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert sums["masked_accuracy"] == pytest.approx(np.mean(right))
    wanted = 0.7 * sums["hidden"] + 0.3 * sums["attention"] + 0.4 * sums["relation"] + 0.5 * sums["sentence"]
    wanted += 0.2 * sums["masked"]
    assert sums["loss"] == pytest.approx(wanted, rel=1e-5)


def test_everything_but_the_pooler_is_trained() -> None:
    one = objective("narrow", EncoderWeights(hidden_weight=0.5, attention_weight=2.0))
    sums, _ = cost(one, batch((5, 3, 7), seed=8))
    assert sums.keys() == {"loss", "hidden", "attention"}
    assert {name for name, p in one.named_parameters() if p.grad is None} == {
        name for name, _ in one.named_parameters() if "pooler" in name
    }


@pytest.mark.parametrize("student", STUDENTS)
def test_masked_copies_change_no_other_term(student: str) -> None:
    one = objective(student)
    part = batch((5, 3, 7), seed=2, copies=2)
    with_copies, _ = cost(one, part)
    without, _ = cost(one, {name: part[name] for name in ("input_ids", "token_type_ids", "position_ids", "starts")})
    assert without.keys() == {"loss", "hidden", "attention", "relation", "sentence"}
    for name in without.keys() - {"loss"}:
        assert with_copies[name] == pytest.approx(without[name], rel=1e-5)


def split(part: dict[str, torch.Tensor], first: int, last: int, copies: int) -> dict[str, torch.Tensor]:
    """The examples `first` to `last`, of which the first have masked copies."""
    a, b = part["starts"][[first, last]].tolist()
    end = part["starts"][first + copies].item()
    inside = (part["masked_positions"] >= a) & (part["masked_positions"] < end)
    return {
        **{name: part[name][a:b] for name in ("input_ids", "token_type_ids", "position_ids")},
        "starts": part["starts"][first : last + 1] - a,
        "copy_ids": part["copy_ids"][a:end],
        "copy_starts": part["starts"][first : first + copies + 1] - a,
        "masked_positions": part["masked_positions"][inside] - a,
        "masked_labels": part["masked_labels"][inside],
    }


def test_the_division_of_a_batch_does_not_matter() -> None:
    one = objective("narrow")
    whole = batch((5, 3, 9, 2, 7), seed=3, copies=5)
    parts = [split(whole, 0, 1, 1), split(whole, 1, 3, 2), split(whole, 3, 5, 2)]
    (a, gradients), (b, others) = cost(one, whole), cost(one, *parts)
    assert b == pytest.approx(a, rel=1e-4)
    for x, y in zip(gradients, others, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lengths", [(4, 4, 4), (5, 1, 6)])
def test_the_mean_of_each_example(lengths: tuple[int, ...]) -> None:
    part, random = batch(lengths, seed=4), np.random.default_rng(4)
    hidden = random.normal(size=(sum(lengths), 8))
    tensor = torch.from_numpy(hidden).requires_grad_()
    means = mean_pool(tensor, packing_of(part))
    edges = np.concatenate([[0], np.cumsum(lengths)])
    wanted = [hidden[a:b].mean(0) for a, b in pairwise(edges)]
    np.testing.assert_allclose(means.detach().numpy(), wanted, atol=1e-6)
    other = random.normal(size=(len(lengths), 8))
    loss = sentence_loss(means, torch.from_numpy(other))
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(wanted, other, strict=True)]
    assert loss.item() == pytest.approx(len(lengths) - sum(cosines), rel=1e-5)
    loss.backward()
    assert tensor.grad is not None
    assert tensor.grad.isfinite().all()


def test_a_student_that_is_the_teacher_has_nothing_to_learn() -> None:
    weights = EncoderWeights(hidden_weight=1.0, attention_weight=1.0, relation_weight=1.0, sentence_weight=1.0)
    one = objective("teacher", weights)
    one.model.load_state_dict(one.teachers[0].state_dict())
    assert cost(one, batch((5, 3, 9), seed=4))[0]["loss"] == pytest.approx(0.0, abs=1e-5)


def test_teachers_are_neither_trained_nor_saved() -> None:
    one = objective("narrow")
    one.train()
    assert not one.teachers[0].training
    assert not {id(p) for p in one.teachers[0].parameters()} & {id(p) for p in one.parameters()}
    assert [name for name in one.state_dict() if "projections" in name] == ["projections.0.weight"]
    cost(one, batch((5, 3), seed=5, copies=1))
    assert all(p.grad is None for p in one.teachers[0].parameters())


@pytest.mark.parametrize(
    "name", ["hidden_weight", "attention_weight", "relation_weight", "sentence_weight", "word_weight"]
)
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_weights_that_make_no_sense(name: str, value: float) -> None:
    weights: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=name):
        EncoderWeights(**weights)


# ── layer-local ──

HIDDEN = EncoderWeights(hidden_weight=2.0)


def local(pairs: LayerPairs, student: str = "same") -> EncoderDistillation:
    return EncoderDistillation(
        model(student), HIDDEN, pairs=[pairs], teachers=[model("teacher", seed=1)], layer_local=True
    )


PAIRS: list[LayerPairs] = [((0, 0), (1, 1), (2, 2), (3, 3), (4, 4)), ((2, 1), (4, 3)), ((0, 0), (1, 2), (4, 4))]


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("student", ["same", "mobile"])
def test_each_part_reads_the_teachers_states(pairs: LayerPairs, student: str) -> None:
    one = local(pairs, student)
    part = batch((5, 3, 7), seed=6)
    sums, _ = cost(one, part)
    distances = np.zeros(len(pairs))
    for ids in examples_of(part):
        alone = batch((len(ids),), seed=0) | {"input_ids": torch.tensor(ids)}
        theirs, _ = states_of(one.teachers[0], ids)
        done = read = 0
        for i, (own, other) in enumerate(pairs):
            x = torch.from_numpy(theirs[read]).float()[None]
            with torch.no_grad():
                if own == 0:
                    x = torch.from_numpy(states_of(one.model, ids)[0][0])[None]  # type: ignore[arg-type]
                for layer in one.model.base_model.layers[done:own]:  # type: ignore[union-attr,index]
                    x, _ = layer(x, packing_of(alone), False)
            distances[i] += ((normalised(x[0].double().numpy()) - normalised(theirs[other])) ** 2).mean(-1).sum()
            done, read = own, other
    assert sums["hidden"] == pytest.approx(distances.mean() / 15, rel=1e-4)
    assert sums["loss"] == pytest.approx(2 * sums["hidden"], rel=1e-5)


def test_no_gradient_goes_from_layer_to_layer() -> None:
    """The gradient of each layer is that of its own loss, whatever the other layers are."""
    pairs = PAIRS[0]
    one, part = local(pairs), batch((5, 3, 7), seed=7)
    cost(one, part)
    names = [name for name, _ in one.named_parameters()]
    before = {name: p.grad.clone() for name, p in one.named_parameters() if p.grad is not None}
    assert {name for name in names if "pooler" not in name} == before.keys()
    with torch.no_grad():
        for parameter in one.model.base_model.layers[2].parameters():  # type: ignore[union-attr,index]
            parameter.add_(0.5)
    cost(one, part)
    for name, parameter in one.named_parameters():
        if name in before:
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, before[name]) == (".layers.2." not in name), name


@pytest.mark.parametrize("name", ["bert", "distilbert", "electra", "roberta", "mpnet"])
def test_layers_of_every_family_read_what_they_need(name: str) -> None:
    """MPNet's layers read a bias by distance, ELECTRA's first layer wider embeddings: packed as alone."""
    config = ALL_CONFIGS[name]
    torch.manual_seed(3)
    one, other = (model_class(config, "Model")(config).eval() for _ in range(2))
    part = batch((5, 3, 9), seed=5)
    found = run_layers(one, part, packing_of(part), config.num_hidden_layers, with_attention=False).states
    for ids, rows in zip(examples_of(part), pairwise(part["starts"].tolist()), strict=True):
        for state, alone in zip(found, states_of(one, ids)[0], strict=True):
            np.testing.assert_allclose(state[0, slice(*rows)].detach().numpy(), alone, atol=1e-5)
    pairs: LayerPairs = tuple((layer, layer) for layer in range(config.num_hidden_layers + 1))
    same = EncoderDistillation(one, HIDDEN, pairs=[pairs], teachers=[other], layer_local=True)
    assert cost(same, part)[0]["loss"] > 1e-3
    one.load_state_dict(other.state_dict())
    assert cost(same, part)[0]["loss"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("student", "pairs", "message"),
    [
        ("narrow", ((0, 0), (1, 2), (2, 4)), "as wide as its teacher: 16 and 24"),
        ("same", ((0, 0), (1, 1), (2, 1)), r"0:0,1:1,2:1 do not: name others with --layers"),
        ("same", ((2, 2), (1, 1)), r"layers that increase"),
    ],
)
def test_what_layer_local_training_refuses(student: str, pairs: LayerPairs, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        local(pairs, student)
    teachers = [model("teacher"), model("teacher")]
    with pytest.raises(ConfigError, match="inputs of one teacher, not of 2"):
        EncoderDistillation(model("same"), HIDDEN, pairs=[PAIRS[0]] * 2, teachers=teachers, layer_local=True)


def test_relation_heads_divide_all_widths() -> None:
    with pytest.raises(ConfigError, match=r"--relation-heads 3 must divide .* which is 16 in a SqueezeBertModel"):
        objective("narrow", EncoderWeights(relation_weight=1.0, relation_heads=3))
    with pytest.raises(ConfigError, match=r"--relation-heads 16 must divide .* which is 24 in a BertModel"):
        objective("narrow", EncoderWeights(relation_weight=1.0, relation_heads=16))


# ── teachers on the engine ──


@pytest.mark.skipif(native_core() is None, reason="the native core was not built")
def test_teachers_on_the_engine() -> None:
    weights = EncoderWeights(hidden_weight=0.7, sentence_weight=0.5, word_weight=0.2)
    one = objective("narrow", weights, teachers=2)
    part = batch((5, 3, 7, 6), seed=1, copies=2)
    expected, gradients = cost(one, part)
    one.engines = engine_teachers(one.teachers, [4, 4])
    sums, others = cost(one, part)
    assert sums == pytest.approx(expected, rel=0.02, abs=0.02)  # int8
    assert sums["masked"] == expected["masked"]
    assert sums["hidden"] != expected["hidden"]
    a, b = (torch.cat([gradient.flatten() for gradient in each]) for each in (gradients, others))
    assert F.cosine_similarity(a, b, dim=0) > 0.99


def test_a_family_without_states_between_layers_stays_in_pytorch() -> None:
    assert engine_teachers([model("teacher"), model("mobile")], [4, 4]) == []
