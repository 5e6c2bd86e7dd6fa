"""Which words decided: values against their definition, against integrated gradients, and everywhere the same."""

import asyncio
import copy
import json
import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketbert.errors import InputError
from pocketbert.pipelines import pipeline
from pocketbert.pipelines.arguments import Reading
from pocketbert.pipelines.explain import Whole, make_design, variants

TEXT = "the film is great , and marie curie was born in warsaw , not dull ."


def game(seed: int, count: int) -> Any:
    """A function of sets of words with interactions."""
    rng = np.random.default_rng(seed)
    weights, pairs = rng.normal(size=count), rng.normal(size=(count, count))
    return lambda kept: float(weights @ kept + kept @ pairs @ kept + (kept.sum() > 2))


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_shapley_values_of_all_sets(count: int) -> None:
    value = game(count, count)
    design = make_design(count, "shapley")
    assert design.sets[0].all()
    assert not design.sets[-1].any()
    found = design.contributions(np.array([value(kept) for kept in design.sets.astype(float)]))
    wanted = np.zeros(count)
    orders = list(permutations(range(count))) if count < 8 else []
    for order in orders:
        kept = np.zeros(count)
        for word in order:
            before = value(kept)
            kept[word] = 1
            wanted[word] += (value(kept) - before) / math.factorial(count)
    if orders:
        assert found == pytest.approx(wanted)
    assert found.sum() == pytest.approx(value(np.ones(count)) - value(np.zeros(count)))


@pytest.mark.parametrize("count", [9, 33, 64])
def test_sampled_orders_add_up_and_need_few_runs(count: int) -> None:
    value = game(count, count)
    design = make_design(count, "shapley")
    scores = np.array([value(kept) for kept in design.sets.astype(float)])
    assert design.contributions(scores).sum() == pytest.approx(scores[0] - scores[-1])
    assert len(design.sets) <= 200
    assert len({kept.tobytes() for kept in design.sets}) == len(design.sets)
    linear = np.random.default_rng(0).normal(size=count)
    assert design.contributions(design.sets @ linear + 3.0) == pytest.approx(linear)
    assert np.array_equal(make_design(count, "shapley").sets, design.sets)


def test_occlusion() -> None:
    value = game(3, 6)
    design = make_design(6, "occlusion")
    found = design.contributions(np.array([value(kept) for kept in design.sets.astype(float)]))
    for word in range(6):
        assert found[word] == pytest.approx(value(np.ones(6)) - value(np.arange(6) != word))


@pytest.mark.parametrize("explain", [True, "occlusion"])
def test_words_of_a_text(models: dict[str, Path], explain: bool | str) -> None:
    pipe = pipeline("text-classification", models["classify"])
    [plain], [found] = pipe(TEXT), pipe(TEXT, explain=explain)
    assert {name: found[name] for name in plain} == plain
    assert found["base"] == next(one["score"] for one in pipe("", top_k=None) if one["label"] == plain["label"])
    assert [word["word"] for word in found["words"]] == TEXT.split()
    assert all(TEXT[word["start"] : word["end"]] == word["word"] for word in found["words"])
    if explain is True:
        assert found["base"] + sum(word["score"] for word in found["words"]) == pytest.approx(found["score"], abs=1e-6)
    else:
        without = pipe(TEXT.replace("great ", ""), top_k=None)
        rest = next(one["score"] for one in without if one["label"] == found["label"])
        [great] = [word["score"] for word in found["words"] if word["word"] == "great"]
        assert great == pytest.approx(found["score"] - rest, abs=1e-6)
    # To the bit, whatever else is asked, and of every label.
    others = pipe(["dull", TEXT, "marie , warsaw"] * 9, explain=explain)
    assert others[1] == others[-2] == found
    ranked = pipe(TEXT, explain=explain, top_k=None)
    assert ranked[0] == found
    first, second = (np.array([word["score"] for word in one["words"]]) for one in ranked)
    assert first == pytest.approx(-second, abs=1e-6)  # two probabilities add up to 1


def test_pairs_long_words_and_long_texts(models: dict[str, Path]) -> None:
    pipe = pipeline("text-classification", models["classify"])
    pair = {"text": "the film", "text_pair": "is great"}
    [found] = pipe([pair], explain=True)
    assert [(word["word"], word.get("text_pair", False)) for word in found["words"]] == [
        ("the", False), ("film", False), ("is", True), ("great", True),
    ]  # fmt: skip
    [joined] = pipe("great" * 7, explain=True)  # longer than a word is
    assert len(joined["words"]) > 1
    many, tokenizer = " ".join(["great", "dull"] * 100), copy.copy(pipe.tokenizer)
    tokenizer.model_max_length = 512
    whole, *rest = variants(Reading(tokenizer, 152), many, None, "occlusion")
    assert isinstance(whole, Whole)
    parts = [many[word.start : word.end] for word in whole.words]
    assert parts == ["great dull great", "dull great dull"] * 25
    assert [len(one) for one in (whole, *rest)] == [152, *[149] * 50, 2]
    [empty] = pipe("", explain=True)
    assert empty["words"] == []
    assert empty["base"] == empty["score"]


def test_what_is_refused(models: dict[str, Path]) -> None:
    from pocketbert.bulk.columns import form_of

    pipe = pipeline("text-classification", models["classify"])
    with pytest.raises(InputError, match="explain='lime' must be True, False or one of 'shapley', 'occlusion'"):
        pipe(TEXT, explain="lime")
    with pytest.raises(InputError, match="leave windows out"):
        pipe(TEXT, explain=True, windows=True)
    with pytest.raises(InputError, match="is not a text"):
        pipe([TEXT, ["a", "b"]], explain=True)
    types = form_of("text-classification", {"explain": True}).types
    assert isinstance(types, dict)
    assert {"label", "score", "base", "words"} <= types.keys()
    assert pipe(TEXT, min_confidence=1.0, explain=True)[0]["label"] is None


def test_shell_and_service(models: dict[str, Path], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    from helpers.service import Inside
    from pocketbert import cli

    [wanted] = pipeline("text-classification", models["classify"])(TEXT, explain=True)

    def run(*flags: str) -> str:
        with pytest.raises(SystemExit):
            cli.app(["classify", "--model", str(models["classify"]), "--explain", *flags, TEXT])
        return capsysbinary.readouterr().out.decode()

    assert json.loads(run("--json")) == {"text": TEXT, **wanted}
    table = run("--table")
    strongest = max(wanted["words"], key=lambda word: abs(word["score"]))
    assert "Because of" in table
    assert f"{strongest['word']} {strongest['score']:+.2f}" in table.replace("\n", "")
    with Inside(("one", models["classify"])) as service:
        body = {"inputs": TEXT, "top_k": 1, "explain": True}
        assert asyncio.run(service.ask("/v1/classify", body)).json["results"] == [[wanted]]
        refused = asyncio.run(service.ask("/v1/classify", {**body, "labels": ["x"]})).json
        assert "explain cannot be combined with labels" in refused["error"]["message"]


@pytest.mark.slow
@pytest.mark.learning
def test_deletion_is_as_steep_as_by_integrated_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On made-up reviews; `benchmarks/explanations.py` measures it on SST-2."""
    pytest.importorskip("captum")
    from helpers.labelled import reviews, write_csv
    from helpers.runs import options_in
    from pocketbert.recipes.finetune import finetune

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from explanations import compare

    data = write_csv(tmp_path / "many.csv", reviews(200))
    folder = finetune(options_in(tmp_path, data=data, epochs=10, learning_rate=5e-3)).folder
    areas = compare(folder, [text for text, _ in reviews(12, seed=9)])
    assert areas["shapley"] <= areas["integrated gradients"] + 0.01
    assert areas["shapley"] < areas["random"] - 0.05
