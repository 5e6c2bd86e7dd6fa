"""The native core against the interpreter of the same plan, on random plans and batches; and what it refuses."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.families import CONFIGS, each_in_turn, our_class, randomise
from helpers.pairs import pairwise
from helpers.plans import draw, run, tensors
from pocketbert.errors import ConfigError, InputError
from pocketbert.runtime import reference
from pocketbert.runtime.engine import Engine, native_core, usable_threads
from pocketbert.runtime.lowering import lower
from pocketbert.runtime.plan import Attention, Columns, Gather, LayerNorm, Linear, Lookup, Plan, Rows, Step
from pocketbert.runtime.quantize import quantize, quantize_rows

pytestmark = pytest.mark.skipif(native_core() is None, reason="the native core was not built")


def _kernels() -> list[str]:
    """Of the core, what this processor has."""
    if native_core() is None:
        return ["portable"]
    from pocketbert.runtime.core import available_kernels

    return available_kernels()


@pytest.fixture(params=_kernels())
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    monkeypatch.setenv("POCKETBERT_KERNEL", name)
    return name


def capabilities_of(name: str) -> Any:
    from pocketbert.runtime.core import capabilities

    return capabilities(name)


def as_run_by(name: str, plan: Plan) -> Plan:
    """The plan as it is where the kernels have no bfloat16, and run attention in fp32."""
    if name and capabilities_of(name).bf16_attention:
        return plan
    stages = (replace(s, bfloat16=False) if isinstance(s, Attention) else s for s in plan.stages)
    return replace(plan, stages=tuple(stages))


def close(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    assert got.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(got / scale, expected / scale, atol=tolerance)


def random_plan(seed: int, widths: list[int], groups: int, heads: int, activation: str, int8: bool) -> Plan:
    """Every kind of step: lookups, a norm in place, grouped products with and without residual, attention.

    Of odd seeds, positions leave out a word, and attention has a bias by distance.
    """
    draws = np.random.default_rng(seed)

    def tensor(*shape: int) -> np.ndarray:
        return (draws.normal(size=shape) / np.sqrt(shape[-1] if len(shape) == 2 else 1)).astype(np.float32)

    width, inner, out = widths
    x, y, z = Columns("x", width), Columns("y", inner), Columns("z", out)
    q, k, v = (Columns("qkv", width, i * width) for i in range(3))
    context = Columns("context", width)
    kept = {
        "words": tensor(11, width), "positions": tensor(601, width), "segments": tensor(2, width),
        "distances": 3 * tensor(heads, 2 * (seed % 9) + 1),
        "norm.w": tensor(width), "norm.b": tensor(width),
        "in.w": tensor(inner, width // groups), "in.b": tensor(inner),
        "back.w": tensor(width, inner // groups), "back.b": tensor(width), "back.s": tensor(width),
        "q.w": tensor(width, width), "k.w": tensor(width, width), "v.w": tensor(width, width),
        "qkv.b": tensor(width), "z.w": tensor(out, width), "z.b": tensor(out),
    }  # fmt: skip
    steps: tuple[Step, ...] = (
        Lookup(x, "words", "word"),
        Lookup(x, "words", "next word", add=True),
        Lookup(x, "words", "previous word", add=True),
        Lookup(x, "positions", "position", add=True, uncounted=3 if seed % 2 else None),
        Lookup(x, "segments", "segment", add=True),
        LayerNorm(x, x, "norm.w", "norm.b", 1e-5),
        Linear(x, y, "in.w", "in.b", groups=groups, activation=activation),
        Linear(y, x, "back.w", "back.b", groups=groups, residual=x, residual_scale="back.s"),
        *(Linear(x, target, f"{name}.w", "qkv.b") for name, target in (("q", q), ("k", k), ("v", v))),
    )
    last = Linear(context, z, "z.w", "z.b", activation="tanh")
    attention = Attention(q, k, v, context, heads, bias="distances" if seed % 2 else None)
    plan = Plan((Rows(steps), attention, Rows((last,))), kept, {"z": z, "x": x}, 600)
    return quantize(plan, smallest=0) if int8 else plan


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    unit=st.integers(1, 23),
    groups=st.sampled_from([1, 2, 3, 4]),
    inner=st.integers(1, 9),
    out=st.integers(1, 70),
    activation=st.sampled_from(["gelu", "gelu_new", "relu", "relu6", "silu", "tanh"]),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    threads=st.integers(1, 3),
    name=st.sampled_from(_kernels()),
    int8=st.booleans(),
)
def test_random_plans(
    seed: int, unit: int, groups: int, inner: int, out: int, activation: str, lengths: list[int], threads: int,
    name: str, int8: bool,
) -> None:  # fmt: skip
    plan = random_plan(seed, [unit * groups, inner * groups * 3, out], groups, groups, activation, int8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETBERT_KERNEL", name)
        engine = Engine(plan, threads)
    ids = np.random.default_rng(seed).integers(0, 11, sum(lengths))
    starts = np.cumsum([0, *lengths])
    got = engine.run(ids, ids % 2, starts)
    for key, expected in reference.run(as_run_by(name, plan), ids, ids % 2, starts).items():
        # In int8 a difference in the last bit may round a few values to the next whole number.
        close(got[key], expected, 0.1 if int8 else 1e-4)


def test_lengths(kernels: str) -> None:
    for length, int8 in product((1, 2, 47, 48, 49, 63, 64, 65, 128, 384, 512), (False, True)):
        plan = as_run_by("", random_plan(length, [64, 96, 3], 2, 2, "gelu", int8))
        ids = np.random.default_rng(0).integers(0, 11, length + 5)
        starts = np.array([0, 3, 3 + length, length + 5])
        got = Engine(plan, 2).run(ids, ids % 2, starts)
        for key, expected in reference.run(plan, ids, ids % 2, starts).items():
            close(got[key], expected, 0.1 if int8 else 1e-4)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    depth=st.sampled_from([1, 2, 3, 16, 31, 32, 33, 48, 63, 64, 65, 96, 130]),
    heads=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=3),
    name=st.sampled_from(_kernels()),
)
def test_attention_in_bfloat16(seed: int, depth: int, heads: int, lengths: list[int], name: str) -> None:
    width = depth * heads
    draws = np.random.default_rng(seed)
    x, out = Columns("x", 3 * width), Columns("y", width)
    query, key, value = (Columns("x", width, i * width) for i in range(3))
    table = draws.normal(size=(sum(lengths), 3 * width)).astype(np.float32)
    table[:, :width] *= np.float32(draws.choice([0.1, 1, 3]) / np.sqrt(depth))
    stages = (Rows((Lookup(x, "t", "word"),)), Attention(query, key, value, out, heads, bfloat16=True))
    plan = Plan(stages, {"t": table}, {"y": out}, 512)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETBERT_KERNEL", name)
        engine = Engine(plan, 2)
    ids, starts = np.arange(len(table)), np.cumsum([0, *lengths])
    got, expected, fp32 = (
        run(ids, ids * 0, starts)["y"]
        for run in (
            engine.run,
            partial(reference.run, as_run_by(name, plan)),
            partial(reference.run, as_run_by("", plan)),
        )
    )
    close(got, expected, capabilities_of(name).attention_tolerance)  # a few exponentials round to the next of 8 bits
    # Besides, one exponential may round so in a batch of few: that moves one row of one head.
    one = 2**-8 * np.abs(table[:, 2 * width :]).max() * depth / got.size
    assert np.abs(got - expected).mean() < 2e-4 * max(1, np.abs(expected).max()) + one
    # As near as 8 bits are: a score is off by as much of its products, and the exponentials and values themselves.
    q, k, v = (np.abs(part).reshape(-1, heads, depth) for part in np.split(table, 3, axis=1))
    score = 2**-8 * float(np.einsum("qhd,khd->hqk", q, k).max())
    assert np.abs(got - fp32).max() <= (np.expm1(2 * score) + 2**-7) * v.max()
    if depth > 3:  # with fewer products, none of them averages out
        close(got, fp32, 3e-2)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(32, 300),
    out=st.integers(1, 150),
    spread=st.sampled_from([0.0, 1.0, 3.0, 8.0]),
    tokens=st.integers(1, 100),
    name=st.sampled_from(_kernels()),
)
def test_what_stands_out_is_multiplied_in_fp32(
    seed: int, width: int, out: int, spread: float, tokens: int, name: str
) -> None:
    draws = np.random.default_rng(seed)
    x, y = Columns("x", width), Columns("y", out)
    table = draws.normal(size=(tokens, width)) * np.exp(spread * draws.normal(size=(tokens, width)))
    table[draws.random(tokens) < 0.1] = 0
    weight = draws.normal(size=(out, width)).astype(np.float32)
    whole, scales = quantize_rows(weight)
    kept: dict[str, np.ndarray] = {
        "t": table.astype(np.float32),
        "w": whole,
        "s": scales,
        "e": weight,
        "b": draws.normal(size=out).astype(np.float32),
    }
    program = Rows((Lookup(x, "t", "word"), Linear(x, y, "w", "b", "s", "e")))
    plan = Plan((program,), kept, {"y": y}, 512)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETBERT_KERNEL", name)
        engine = Engine(plan, 2)
    ids, starts = np.arange(tokens), np.array([0, tokens])
    got, expected = (run(ids, ids * 0, starts)["y"] for run in (engine.run, partial(reference.run, plan)))
    size = np.abs(kept["t"]) @ np.abs(weight).T + 1  # a sum may cancel, what its order rounds does not
    np.testing.assert_allclose(got / size, expected / size, atol=1e-5)
    # Near the product in fp32, as plain int8 is not where a row has orders of magnitude in it.
    exact = kept["t"] @ weight.T + kept["b"]
    length = np.linalg.norm(kept["t"], axis=1, keepdims=True) + 1e-6
    assert np.abs((got - exact) / length).max() < 0.2


def test_not_a_number_does_not_hide_among_what_stands_out(kernels: str) -> None:
    x, y = Columns("x", 64), Columns("y", 3)
    table = np.ones((4, 64), np.float32)
    table[0, 5], table[1, 6], table[2, 7] = np.nan, np.inf, 1e30
    kept: dict[str, np.ndarray] = {
        "t": table,
        "w": np.ones((3, 64), np.int8),
        "s": f(3) + 1,
        "e": f(3, 64) + 1,
        "b": f(3),
    }
    program = Rows((Lookup(x, "t", "word"), Linear(x, y, "w", "b", "s", "e")))
    plan = Plan((program,), kept, {"y": y}, 512)
    got = Engine(plan).run(np.arange(4), np.zeros(4, int), np.array([0, 4]))["y"]
    assert np.isnan(got[:2]).all()
    np.testing.assert_allclose(got[2:], np.array([[1e30] * 3, [64.0] * 3]), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "head", "kernels"),
    [(*case, name) for case, name in zip(each_in_turn(), cycle(_kernels()))],
    indirect=["kernels"],
)
def test_every_model_and_head(name: str, head: str, kernels: str) -> None:
    """Every one of both, every kernel with each family.

    Kernels know neither configurations nor heads, but steps, of which random plans have every kind in every size.
    """
    model = our_class(CONFIGS[name], head)(CONFIGS[name])
    randomise(model, 0)
    plan = lower(CONFIGS[name], tensors(model), head)
    inputs = draw([1, 40, 7, 2, 23])
    expected = run(plan, inputs)
    lengths = [len(x.input_ids) for x in inputs]
    for i, result in enumerate(Engine(plan)(inputs)):
        assert set(result) == set(expected)
        for key, array in result.items():
            rows = expected[key]
            mine = rows[sum(lengths[:i]) : sum(lengths[: i + 1])] if len(rows) == sum(lengths) else rows[i]
            close(array, mine)


@pytest.mark.parametrize(
    ("name", "head", "kernels"),
    pairwise(
        ["squeezebert", "mobilebert"],
        ["ForMaskedLM", "ForPreTraining", "ForTokenClassification", "ForQuestionAnswering", "Model"],
        _kernels(),
        together=[(0, 1), (0, 2)],  # a head asks, whatever kernels then compute
    ),
    indirect=["kernels"],
)
def test_only_the_rows_that_are_asked_for(name: str, head: str, kernels: str) -> None:
    """The same bits as among all rows; in any order, twice, and none."""
    model = our_class(CONFIGS[name], head)(CONFIGS[name])
    randomise(model, 0)
    engine, inputs = Engine(lower(CONFIGS[name], tensors(model), head)), draw([5, 40, 1, 17])
    asked = [[4, 0], [], [0, 0, 0], list(range(17))]
    some = [replace(x, rows=np.array(rows, np.int32)) for x, rows in zip(inputs, asked, strict=True)]
    pooled = {"pooler_output", "seq_relationship_logits"}
    for mixed in ([*some], [some[0], inputs[1], some[2], inputs[3]], [some[1]]):
        whole = engine([replace(x, rows=None) for x in mixed])
        for one, found, every in zip(mixed, engine(mixed), whole, strict=True):
            for key, array in every.items():
                rows = slice(None) if one.rows is None or key in pooled else one.rows
                assert np.array_equal(found[key], array[rows]), key


def test_rows_asked_for_against_the_interpreter(kernels: str) -> None:
    plan = random_plan(5, [32, 48, 9], 2, 2, "gelu", int8=False)
    *stages, last = plan.stages
    picked = Columns("picked", 32)
    assert isinstance(last, Rows)
    steps = tuple(replace(step, source=picked) for step in last.steps if isinstance(step, Linear))
    plan = replace(plan, stages=(*stages, Gather(Columns("context", 32), picked, True), Rows(steps)))
    ids, starts = np.arange(9) % 7, np.array([0, 4, 9])
    engine = Engine(plan, 2)
    for rows in (np.array([], np.int64), np.array([0]), np.array([6, 2, 2]), None):
        got = engine.run(ids, ids % 2, starts, rows)
        for key, expected in reference.run(plan, ids, ids % 2, starts, rows).items():
            close(got[key], expected)


@pytest.mark.parametrize(
    ("name", "int8", "kernels"),
    pairwise(["bert", "squeezebert", "mobilebert"], [False, True], _kernels()),
    indirect=["kernels"],
)
def test_the_same_bits_whatever_the_batch_and_the_threads(name: str, int8: bool, kernels: str) -> None:
    model = our_class(CONFIGS[name], "Model")(CONFIGS[name])
    randomise(model, 0)
    plan = lower(CONFIGS[name], tensors(model), "Model")
    plan = quantize(plan, smallest=0) if int8 else plan
    inputs = draw([5, 40, 1, 17, 23, 8, 40, 2])
    alone = [Engine(plan, 1)([x])[0] for x in inputs]
    order = np.random.default_rng(1).permutation(len(inputs))
    for threads in (1, 2, 3, 5):
        engine = Engine(plan, threads)
        for _ in range(3):
            for i, result in zip(order, engine([inputs[j] for j in order]), strict=True):
                for key, array in result.items():
                    assert np.array_equal(array, alone[i][key]), key


@pytest.mark.parametrize(
    ("name", "int8", "kernels"),
    pairwise(["bert", "squeezebert", "mobilebert"], [False, True], _kernels()),
    indirect=["kernels"],
)
def test_how_far_kernels_agree(name: str, int8: bool, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32 to the order of sums; in int8, where sums are exact, to a few values that round the other way.

    Attention in bfloat16 makes all of them a little different.
    """
    model = our_class(CONFIGS[name], "Model")(CONFIGS[name])
    randomise(model, 0)
    plan = lower(CONFIGS[name], tensors(model), "Model")
    plan = quantize(plan, smallest=0) if int8 else plan
    inputs = draw([5, 40, 1, 33])
    results = Engine(plan, 1)(inputs)
    monkeypatch.setenv("POCKETBERT_KERNEL", "portable")
    capabilities = capabilities_of(kernels)
    tolerance = (5e-2 if capabilities.bf16_attention else 1e-2) if int8 else capabilities.tolerance
    for got, expected in zip(results, Engine(plan, 1)(inputs), strict=True):
        for key, array in expected.items():
            close(got[key], array, tolerance)


def test_gelu_is_coarser_only_where_nothing_but_rounding_follows(kernels: str) -> None:
    x, inner, y = Columns("x", 64), Columns("inner", 96), Columns("y", 8)
    draws = np.random.default_rng(0)
    normal = {"t": (50, 64), "up": (96, 64), "b": (96,), "down": (8, 96), "c": (8,)}
    kept: dict[str, np.ndarray] = {name: draws.normal(size=shape).astype(np.float32) for name, shape in normal.items()}
    kept["up"] /= 8
    kept["down"], kept["s"] = quantize_rows(kept["down"])
    up, down = Linear(x, inner, "up", "b", activation="gelu"), Linear(inner, y, "down", "c", "s")
    norm = LayerNorm(inner, Columns("norm", 96), "b", "b", 1e-5)

    def answer(*steps: Step, outputs: dict[str, Columns | tuple[Columns, int]], programs: int = 1) -> np.ndarray:
        plan = Plan((Rows((Lookup(x, "t", "word"),)), *[Rows(steps)] * programs), kept, outputs, 512)
        ids, starts = np.arange(50), np.array([0, 50])
        found, expected = (
            run(ids, ids * 0, starts)["y"] for run in (Engine(plan, 1).run, partial(reference.run, plan))
        )
        close(found, expected, 2e-3)  # a hundredth of the values may be rounded the other way
        return found

    coarser = answer(up, down, outputs={"y": y})
    exact = answer(up, down, outputs={"y": y, "inner": inner})
    assert not np.array_equal(coarser, exact)
    close(coarser, exact, 5e-3)
    assert np.array_equal(answer(up, down, outputs={"y": y}, programs=2), coarser)
    assert np.array_equal(answer(up, norm, down, outputs={"y": y}), exact)
    assert np.array_equal(
        answer(up, replace(down, residual=Columns("inner", 8)), outputs={"y": y, "inner": inner}),
        answer(up, replace(down, residual=Columns("inner", 8)), outputs={"y": y}),
    )
    parts = [replace(up, target=Columns("inner", 48, i), weight=f"up{i}", bias=f"b{i}") for i in (0, 48)]
    for i in (0, 48):
        kept[f"up{i}"], kept[f"b{i}"] = kept["up"][i : i + 48], kept["b"][i : i + 48]
    assert np.array_equal(answer(*parts, down, outputs={"y": y}), coarser)


def test_int8_is_near_fp32(kernels: str) -> None:
    for name in ("bert", "squeezebert", "mobilebert"):
        config = CONFIGS[name]
        model = our_class(config, "Model")(config)  # initial weights: a random stream of no_norm grows without bound
        plan = lower(config, tensors(model), "Model")
        exact, rounded = (Engine(p)(draw([30]))[0]["last_hidden_state"] for p in (plan, quantize(plan, smallest=0)))
        cosine = (exact * rounded).sum(-1) / np.linalg.norm(exact, axis=-1) / np.linalg.norm(rounded, axis=-1)
        assert cosine.mean() > 0.999


def test_quantizing_rows() -> None:
    weight = np.random.default_rng(0).normal(size=(9, 33)).astype(np.float32)
    weight[3] = 0
    whole, scale = quantize_rows(weight)
    assert np.abs(whole).max() == 127
    assert (np.abs(whole * scale[:, None] - weight) <= scale[:, None] / 2 + 1e-7).all()
    again, same = quantize_rows(whole * scale[:, None])
    assert np.array_equal(again, whole)
    np.testing.assert_allclose(same, scale, rtol=1e-6)


def test_no_inputs_and_too_long_ones() -> None:
    plan = random_plan(0, [8, 12, 3], 1, 1, "relu", int8=False)
    assert Engine(plan)([]) == []
    with pytest.raises(InputError, match="601 tokens: this model takes 1 to 600"):
        Engine(plan)(draw([601]))


def test_several_threads_of_python_share_an_engine(kernels: str) -> None:
    engine = Engine(random_plan(0, [32, 64, 5], 2, 2, "gelu", int8=True), 2)
    batches = [[x] for x in draw([30, 7, 19, 40])]
    for batch in batches:
        np.remainder(batch[0].input_ids, 11, out=batch[0].input_ids)
    expected = [engine(batch)[0]["z"] for batch in batches]
    wrong: list[int] = []

    def ask(i: int) -> None:
        for _ in range(30):
            if not np.array_equal(engine(batches[i])[0]["z"], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_kernels_can_be_chosen(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = native_core()
    assert core is not None
    assert core(1, kernels).kernels == kernels
    plan = random_plan(0, [8, 12, 3], 1, 1, "relu", int8=False)
    monkeypatch.setenv("POCKETBERT_KERNEL", "mmx")
    with pytest.raises(ConfigError, match=rf"POCKETBERT_KERNEL=mmx: this processor has .*{kernels}"):
        Engine(plan)
    monkeypatch.setenv("POCKETBERT_KERNEL", "")
    Engine(plan)


def test_usable_threads() -> None:
    assert usable_threads() >= 1


# ── what the core refuses ──


@pytest.fixture
def program() -> Any:
    core = native_core()
    assert core is not None
    made = core(1)
    assert [made.buffer(8, False), made.buffer(4, False), made.buffer(8, True)] == [0, 1, 2]
    made.lookup((0, 0, 8), np.zeros((5, 8), np.float32), "word", False)
    return made


def f(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def s8(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int8)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("buffer", (0, False), "needs a width"),
        ("buffer", (2**30, False), "needs a width"),
        ("lookup", ((9, 0, 8), f(5, 8), "word", False), "no such buffer"),
        ("lookup", ((-1, 0, 8), f(5, 8), "word", False), "no such buffer"),
        ("lookup", ((0, 1, 8), f(5, 8), "word", False), "beyond their buffer"),
        ("lookup", ((0, -1, 8), f(5, 8), "word", False), "beyond their buffer"),
        ("lookup", ((0, 2**31 - 4, 8), f(5, 8), "word", False), "beyond their buffer"),
        ("lookup", ((0, 0, 8), f(5, 7), "word", False), "as wide as its target"),
        ("lookup", ((0, 0, 8), f(0, 8), "word", False), "as wide as its target"),
        ("lookup", ((0, 0, 8), f(5, 8), "letter", False), "unknown index"),
        ("lookup", ((1, 0, 4), f(5, 4), "word", True), "before it is written"),
        ("lookup_s8", ((0, 0, 8), s8(5, 8), f(4), "word", False), "a scale for every row"),
        ("lookup_s8", ((0, 0, 8), s8(5, 8), f(6), "word", False), "a scale for every row"),
        ("lookup_s8", ((0, 0, 8), s8(5, 7), f(5), "word", False), "as wide as its target"),
        ("lookup_s8", ((0, 0, 8), s8(0, 8), f(0), "word", False), "as wide as its target"),
        ("lookup_s8", ((9, 0, 8), s8(5, 8), f(5), "word", False), "no such buffer"),
        ("lookup_s8", ((1, 0, 4), s8(5, 4), f(5), "word", True), "before it is written"),
        ("linear", ((1, 0, 4), (0, 0, 8), f(8, 4), f(8), 1, "", None, None), "before it is written"),
        ("linear", ((0, 0, 8), (1, 0, 4), f(4, 7), f(4), 1, "", None, None), "shape of its step"),
        ("linear", ((0, 0, 8), (1, 0, 4), f(4, 8), f(5), 1, "", None, None), "bias"),
        ("linear", ((0, 0, 8), (1, 0, 4), f(4, 8), f(4), 3, "", None, None), "groups must divide"),
        ("linear", ((0, 0, 8), (1, 0, 4), f(4, 8), f(4), 0, "", None, None), "groups must divide"),
        ("linear", ((0, 0, 8), (1, 0, 4), f(4, 8), f(4), 1, "gelu_13", None, None), "unknown activation"),
        ("linear", ((0, 0, 8), (0, 0, 8), f(8, 8), f(8), 1, "", None, None), "cannot replace its source"),
        ("linear", ((0, 0, 8), (1, 0, 4), f(4, 8), f(4), 1, "", (0, 0, 8), None), "residual must be as wide"),
        ("linear", ((0, 0, 8), (1, 0, 4), f(4, 8), f(4), 1, "", (0, 0, 4), f(3)), "scale must be as wide"),
        ("layer_norm", ((0, 0, 8), (1, 0, 4), f(4), f(4), 1e-5), "must keep the width"),
        ("layer_norm", ((0, 0, 8), (0, 0, 8), f(8), f(7), 1e-5), "must keep the width"),
        ("layer_norm", ((0, 0, 8), (0, 0, 8), f(8), f(8), -1.0), "eps"),
        ("linear_s8", ((0, 0, 8), (1, 0, 4), s8(4, 8), f(4), f(4), 2, "", None, None, f(4, 8)), "shape of its step"),
        ("linear_s8", ((0, 0, 8), (1, 0, 4), s8(4, 4), f(4), f(4), 2, "", None, None, f(4, 4)), "one group"),
        (
            "linear_s8",
            ((0, 0, 8), (1, 0, 4), s8(4, 8), f(4), f(4), 1, "", None, None, f(8, 4)),
            "shape of the int8 weights",
        ),
        ("linear_s8", ((0, 0, 8), (1, 0, 4), s8(4, 8), f(3), f(4), 1, "", None, None, None), "every output channel"),
        ("attention", ((0, 0, 4), (0, 0, 4), (0, 4, 4), (1, 0, 4), 3, False), "heads must divide"),
        ("attention", ((0, 0, 4), (0, 0, 4), (0, 4, 4), (0, 0, 4), 1, False), "cannot replace its source"),
        ("attention", ((0, 0, 4), (0, 0, 4), (0, 4, 4), (2, 0, 4), 1, False), "local buffer"),
        ("gather", ((0, 0, 8), (0, 0, 8), False), "another buffer"),
        ("gather", ((0, 0, 8), (2, 0, 8), True), "local buffer"),
    ],
)
def test_a_plan_that_makes_no_sense(program: Any, method: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(program, method)(*arguments)


@pytest.mark.parametrize("array", [np.zeros((4, 8)), f(4, 16)[:, ::2], f(4, 8, 1), np.zeros((4, 8), np.int8), [[0.0]]])
def test_arrays_of_another_type_or_layout(program: Any, array: Any) -> None:
    with pytest.raises(TypeError):
        program.linear((0, 0, 8), (1, 0, 4), array, f(4), 1, "", None, None)


def test_scales_of_another_type(program: Any) -> None:
    for table, scales in ((f(5, 8), f(5)), (s8(5, 8), s8(5)), (s8(5, 8), np.zeros(5)), (s8(5, 8), f(5, 1))):
        with pytest.raises(TypeError):
            program.lookup_s8((0, 0, 8), table, scales, "word", False)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("ids", "segments", "starts", "message"),
    [
        (i(5), i(0), i(0, 1), "outside its table"),
        (i(-1), i(0), i(0, 1), "outside its table"),
        (i(1, 2), i(0), i(0, 2), "needs a segment"),
        (i(1, 2), i(0, 0), i(0, 1), "begin at 0 and end at"),
        (i(1, 2), i(0, 0), i(1, 2), "begin at 0 and end at"),
        (i(1, 2), i(0, 0), i(0, 2, 1, 2), "every sequence must have a token"),
        (i(1, 2), i(0, 0), i(0, 0, 2), "every sequence must have a token"),
        (i(1, 2), i(0, 0), np.zeros(0, np.int32), "one entry more"),
    ],
)
def test_a_batch_that_does_not_fit(program: Any, ids: Any, segments: Any, starts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        program.run(ids, segments, starts, [(0, 0, 8)])
    assert program.run(i(1), i(0), i(0, 1), [(0, 0, 8)])[0].shape == (1, 8)


@pytest.mark.parametrize("asked", [i(2), i(-1), i(0, 1, 2**31 - 1)])
def test_tokens_that_are_not_there_are_asked_for(program: Any, asked: Any) -> None:
    with pytest.raises(ValueError, match="gathers no selected rows"):
        program.run(i(1, 2), i(0, 0), i(0, 2), [(0, 0, 8)], asked)
    fourth = program.buffer(8, False)
    program.gather((0, 0, 8), (fourth, 0, 8), True)
    with pytest.raises(ValueError, match="not a token of the batch"):
        program.run(i(1, 2), i(0, 0), i(0, 2), [(fourth, 0, 8)], asked)
    assert [len(x) for x in program.run(i(1, 2), i(0, 0), i(0, 2), [(0, 0, 8), (fourth, 0, 8)], i(1))] == [2, 1]
    for other in (np.zeros(1, np.int64), np.zeros((1, 1), np.int32), [0]):
        with pytest.raises(TypeError):
            program.run(i(1, 2), i(0, 0), i(0, 2), [(fourth, 0, 8)], other)


def test_picking_twice(program: Any) -> None:
    """The first of each sequence, then what is asked for; either from what has a row a token, and from nothing else."""
    firsts, asked = program.buffer(8, False), program.buffer(8, False)
    program.gather((0, 0, 8), (firsts, 0, 8), False)
    for source, target in (((firsts, 0, 8), (asked, 0, 8)), ((0, 0, 8), (firsts, 0, 8))):
        with pytest.raises(ValueError, match="cannot be mixed"):
            program.gather(source, target, True)
    program.gather((0, 0, 8), (asked, 0, 8), True)
    with pytest.raises(ValueError, match="cannot be mixed"):
        program.layer_norm((firsts, 0, 8), (firsts, 0, 8), f(8), f(8), 1e-5)
    batch = i(1, 2, 3, 4), i(0, 0, 0, 0), i(0, 1, 4)
    whole, first, some = program.run(*batch, [(0, 0, 8), (firsts, 0, 8), (asked, 0, 8)], i(3, 0, 3))
    assert np.array_equal(first, whole[[0, 1]])
    assert np.array_equal(some, whole[[3, 0, 3]])


@pytest.mark.parametrize(("output", "message"), [((9, 0, 1), "no such"), ((0, 0, 9), "beyond"), ((1, 0, 4), "written")])
def test_an_output_that_is_not_there(program: Any, output: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        program.run(i(1), i(0), i(0, 1), [output])


def test_kernels_and_threads_that_are_not_there() -> None:
    core = native_core()
    assert core is not None
    with pytest.raises(ValueError, match=r"no kernels mmx on this processor, which has .*portable"):
        core(1, "mmx")
    for threads in (0, -1, 5000):
        with pytest.raises(ValueError, match="threads"):
            core(threads)


@pytest.mark.parametrize("int8", [False, True])
def test_an_empty_batch(kernels: str, int8: bool) -> None:
    engine = Engine(random_plan(0, [8, 12, 3], 1, 1, "gelu", int8), 2)
    for _ in range(2):
        got = engine.run(np.zeros(0, np.int32), np.zeros(0, np.int32), i(0))
        assert (got["x"].shape, got["z"].shape) == ((0, 8), (0, 3))
        engine.run(i(1, 2), i(0, 0), i(0, 2))
