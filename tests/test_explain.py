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

from pocketbert.decode import AGGREGATIONS, softmax
from pocketbert.errors import InputError
from pocketbert.features import encode_tokens
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


def added_up(found: dict[str, Any]) -> float:
    return float(found["base"] + sum(word["score"] for word in found["words"]))


@pytest.mark.parametrize("strategy", AGGREGATIONS)
def test_words_of_entities(models: dict[str, Path], strategy: str) -> None:
    pipe = pipeline("token-classification", models["tag"], aggregation_strategy=strategy, ignore_labels=())
    plain, found = pipe(TEXT), pipe(TEXT, explain=True)
    assert [{name: entity[name] for name in one} for one, entity in zip(plain, found, strict=True)] == plain
    assert found[0].keys() - plain[0].keys() == {"base", "words"}
    for entity in found:
        assert [word["word"] for word in entity["words"]] == TEXT.split()
        assert added_up(entity) == pytest.approx(entity["score"], abs=1e-6)
    assert pipe(["dull", TEXT, "marie , warsaw"] * 3, explain=True)[4] == found  # to the bit, whatever else is asked


def test_entities_without_a_word(models: dict[str, Path]) -> None:
    """Against texts in which the word is [MASK]."""
    pipe = pipeline("token-classification", models["tag"], ignore_labels=())
    text = "marie curie was born in warsaw"
    for token in pipe(text, explain="occlusion"):
        for number, word in enumerate(token["words"]):
            count = len(pipe.tokenizer.tokenize(word["word"]))
            words = text.split()
            words[number] = " ".join(["[MASK]"] * count)
            [output] = pipe.predictor(encode_tokens(pipe.tokenizer, [" ".join(words)]))
            label = next(i for i, name in pipe.config.id2label.items() if name == token["entity"])
            without = softmax(output["logits"])[token["index"], label]
            assert word["score"] == pytest.approx(token["score"] - without, abs=1e-6)


@pytest.mark.parametrize("method", ["shapley", "occlusion"])
def test_words_of_answers(models: dict[str, Path], method: str) -> None:
    pipe = pipeline("question-answering", models["answer"])
    one = {"question": "  who is great ?", "context": TEXT}
    options: dict[str, Any] = {"top_k": 3, "handle_impossible_answer": True}
    plain, found = pipe(one, **options), pipe(one, **options, explain=method)
    assert [{name: answer[name] for name in plain[0]} for answer in found] == plain
    for answer in found:
        asked = [word for word in answer["words"] if "question" in word]
        assert [word["word"] for word in asked] == ["who", "is", "great", "?"]
        assert all(one["question"][word["start"] : word["end"]] == word["word"] for word in asked)
        assert [word["word"] for word in answer["words"] if "question" not in word] == TEXT.split()
        if method == "shapley":
            assert added_up(answer) == pytest.approx(answer["score"], abs=1e-6)
    assert pipe([{"question": "dull ?", "context": "warsaw"}, one], **options, explain=method)[1] == found
    if method == "occlusion":
        hidden = {**one, "context": TEXT.replace("warsaw", "[MASK]")}
        best, word = found[0], next(word for word in found[0]["words"] if word["word"] == "warsaw")
        [same] = [
            answer
            for answer in pipe(hidden, **options | {"top_k": 500})
            if (answer["start"], answer["end"]) == (best["start"], best["end"])
        ]
        assert word["score"] * (same["score"] - best["score"]) <= 0  # its score falls where the word speaks for it


def test_questions_keep_their_words_in_long_passages(models: dict[str, Path]) -> None:
    from pocketbert.features import encode_questions
    from pocketbert.pipelines.explain import hidden_in_question

    tokenizer = copy.copy(pipeline("question-answering", models["answer"]).tokenizer)
    tokenizer.model_max_length = 512
    question, context = "who is great ?", " ".join(["great", "dull"] * 60)
    [[window]] = encode_questions(tokenizer, [question], [context], max_length=300)
    whole, *rest = hidden_in_question(tokenizer, question, context, window, "occlusion")
    assert isinstance(whole, Whole)
    assert [word.end - word.start for word in whole.words if word.other] == [3, 2, 5, 1]
    assert [context[word.start : word.end] for word in whole.words if not word.other] == ["great dull"] * 60
    mask = tokenizer.mask_token_id
    assert [int((one.input_ids == mask).sum()) for one in rest] == [3, 1, 1, 1] + [2] * 60 + [126]


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
    tag, answer = pipeline("token-classification", models["tag"]), pipeline("question-answering", models["answer"])
    with pytest.raises(InputError, match="input 1: explain works within the model's maximum length, 64 tokens"):
        tag([TEXT, TEXT * 9], explain=True)
    with pytest.raises(InputError, match="leave is_split_into_words out"):
        tag([TEXT.split()], explain=True, is_split_into_words=True)
    with pytest.raises(InputError, match="explain the part of the passage in question"):
        answer({"question": "who ?", "context": TEXT * 9}, explain=True)


def test_shell_and_service(models: dict[str, Path], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    from helpers.service import Inside
    from pocketbert import cli
    from pocketbert.bulk.columns import entities, form_of

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            cli.app([*arguments, "--explain"])
        return capsysbinary.readouterr().out.decode()

    [label] = pipeline("text-classification", models["classify"])(TEXT, explain=True)
    tagger = pipeline("token-classification", models["tag"], aggregation_strategy="first")
    found = entities(TEXT, tagger(TEXT, explain=True))
    question = {"question": "who ?", "context": TEXT}
    answer = pipeline("question-answering", models["answer"])(question, explain=True)
    classify = ("classify", "--model", str(models["classify"]), TEXT)
    tag = ("tag", "--model", str(models["tag"]), TEXT)
    ask = ("answer", "who ?", "--model", str(models["answer"]), "--context", TEXT)
    assert json.loads(run(*classify, "--json")) == {"text": TEXT, **label}
    assert json.loads(run(*tag, "--json")) == {"text": TEXT, "entities": found}
    assert json.loads(run(*ask, "--json")) == {"question": "who ?", **answer}
    for arguments, one in ((classify, label), (tag, found[0]), (ask, answer)):
        strongest = max(one["words"], key=lambda word: abs(word["score"]))
        table = run(*arguments, "--table")
        assert "contributions" in table.lower()
        assert f"{strongest['word']} {strongest['score']:+.2f}" in " ".join(table.split())
    assert form_of("token-classification", {"explain": True}).values(TEXT, tagger(TEXT, explain=True)) == {
        "entities": found
    }
    assert form_of("question-answering", {"explain": True}).values(None, answer) == answer
    named = [(name, models[name]) for name in ("classify", "tag", "answer")]
    with Inside(*named) as service:

        def results(path: str, **body: Any) -> Any:
            return asyncio.run(service.ask(path, {**body, "explain": True})).json["results"][0]

        assert results("/v1/classify", inputs=TEXT, top_k=1) == [label]
        assert results("/v1/tag", inputs=TEXT) == found
        assert results("/v1/answer", inputs=question) == [answer]
        body = {"inputs": TEXT, "top_k": 1, "explain": True, "labels": ["x"]}
        refused = asyncio.run(service.ask("/v1/classify", body)).json
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
