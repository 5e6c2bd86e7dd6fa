"""Logits → answers, on arrays made by hand and against slow, obvious versions of the same."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from pocketbert import decode
from pocketbert.errors import InputError
from pocketbert.features import Tokens, Window

# ── probabilities and labels ──


def test_probabilities_are_safe_for_any_logits() -> None:
    x = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0], [-np.inf, 0.0, -1e30]], np.float32)
    third = 1 / 3
    np.testing.assert_allclose(decode.softmax(x), [[1.0, 0.0, 0.0], [third, third, third], [0.0, 1.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(decode.softmax(x, axis=0)[:, 0], [1, 0, 0])
    shares = decode.sigmoid(np.array([-1e4, -1.0, 0.0, 1.0, 1e4]))
    np.testing.assert_allclose(shares, [0, 0.268941, 0.5, 0.731059, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("problem_type", "count", "expected"),
    [
        ("regression", 1, [3.0]),
        (None, 1, [1 / (1 + np.exp(-3.0))]),
        ("multi_label_classification", 2, [1 / (1 + np.exp(-3.0)), 0.5]),
        ("single_label_classification", 2, [np.exp(3) / (np.exp(3) + 1), 1 / (np.exp(3) + 1)]),
        (None, 2, [np.exp(3) / (np.exp(3) + 1), 1 / (np.exp(3) + 1)]),
    ],
)
def test_scores_follow_the_kind_of_problem(problem_type: str | None, count: int, expected: list[float]) -> None:
    logits = np.array([3.0, 0.0])[:count]
    np.testing.assert_allclose(decode.label_scores(logits, problem_type=problem_type), expected)
    np.testing.assert_allclose(decode.label_scores(logits, problem_type=problem_type, function_to_apply="none"), logits)


def test_unknown_function_is_refused() -> None:
    with pytest.raises(InputError, match="'sigmoid'"):
        decode.label_scores(np.zeros(2), function_to_apply="relu")


def test_labels_come_best_first_and_ties_in_order() -> None:
    scores = np.array([0.2, 0.5, 0.2, 0.1])
    names = dict(enumerate("abcd"))
    assert [one["label"] for one in decode.labels(scores, names)] == ["b", "a", "c", "d"]
    assert decode.labels(scores, names, 2) == [{"label": "b", "score": 0.5}, {"label": "a", "score": 0.2}]
    assert len(decode.labels(scores, names, 9)) == 4
    assert type(decode.labels(scores.astype(np.float32), names, 1)[0]["score"]) is float


def test_entailment() -> None:
    logits = np.array([[2.0, 0.0, -1.0], [1.0, 5.0, 1.0]])
    np.testing.assert_allclose(decode.entailment(logits, 0), decode.softmax(np.array([2.0, 1.0])))
    np.testing.assert_allclose(decode.entailment(logits, 0, 2), [1 / (1 + np.exp(-3.0)), 0.5])


def test_choices() -> None:
    found = decode.choices(np.array([0.0, np.log(3.0)]), ["no", "yes"])
    yes, no = {"choice": "yes", "index": 1}, {"choice": "no", "index": 0}
    assert found == [{**yes, "score": pytest.approx(0.75)}, {**no, "score": pytest.approx(0.25)}]


def test_fills() -> None:
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
    assert [i for i, _ in decode.fills(logits, 3)] == [1, 3, 2]
    ids, shares = zip(*decode.fills(logits, 5, targets=[2, 0]), strict=True)
    assert ids == (2, 0)
    np.testing.assert_allclose(shares, [0.2, 0.1])


def test_pooling() -> None:
    hidden = np.array([[3.0, 0.0], [3.0, 8.0]])
    np.testing.assert_allclose(decode.pool(hidden, "mean"), [3.0, 4.0])
    np.testing.assert_allclose(decode.pool(hidden, "cls"), [3.0, 0.0])
    np.testing.assert_allclose(decode.pool(hidden, "mean", normalize=True), [0.6, 0.8])
    np.testing.assert_allclose(decode.pool(hidden * 0, "mean", normalize=True), [0.0, 0.0])
    np.testing.assert_allclose(decode.pool(hidden, "max"), [3.0, 8.0])
    np.testing.assert_allclose(decode.pool(hidden, "lasttoken"), [3.0, 8.0])
    np.testing.assert_allclose(decode.pool(hidden, "mean_sqrt_len_tokens"), np.array([6.0, 8.0]) / np.sqrt(2))
    np.testing.assert_allclose(decode.pool(hidden, "weightedmean"), [3.0, 16 / 3])
    np.testing.assert_allclose(decode.pool(hidden, ["max", "cls"]), [3.0, 8.0, 3.0, 0.0])
    three = np.array([[9.0, 9.0], *hidden])  # the first is a prompt's
    for how in decode.POOLINGS:
        if how != "weightedmean":
            np.testing.assert_array_equal(decode.pool(three, how, skip=1), decode.pool(hidden, how))
    np.testing.assert_allclose(decode.pool(three, "weightedmean", skip=1), [3.0, 8.0 * 3 / 5])
    with pytest.raises(InputError, match="pooling='sum'"):
        decode.pool(hidden, "sum")


# ── entities ──


NAMES = {0: "O", 1: "B-PER", 2: "I-PER"}
# "Ann Lee-s ran": two words of one token, then one of two.
TOKENS = Tokens(
    np.arange(6, dtype=np.int32),
    np.zeros(6, np.int32),
    offsets=np.array([[0, 0], [0, 3], [4, 7], [7, 9], [10, 13], [0, 0]], np.int32),
    word_ids=np.array([-1, 0, 1, 1, 2, -1], np.int32),
    words=4,
)
SHARES = np.array(
    [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6], [0.9, 0.1, 0.0], [0.6, 0.2, 0.2], [0.8, 0.1, 0.1]]
)
WORDS = ["[CLS]", "ann", "lee", "##s", "ran", "[SEP]"]


def _entities(**options: Any) -> list[dict[str, Any]]:
    with np.errstate(divide="ignore"):
        found = decode.entities(np.log(SHARES), TOKENS, WORDS, NAMES, **options)
    return [{key: round(value, 6) if key == "score" else value for key, value in one.items()} for one in found]


def test_entities_of_tokens() -> None:
    first = {"entity": "B-PER", "score": 0.7, "index": 1, "word": "ann", "start": 0, "end": 3}
    assert _entities() == [first, {"entity": "I-PER", "score": 0.6, "index": 2, "word": "lee", "start": 4, "end": 7}]
    assert len(_entities(ignore_labels=())) == 4
    assert _entities(ignore_labels=["O", "I-PER"]) == [first]


@pytest.mark.parametrize(
    ("strategy", "score", "word", "end"),
    [
        ("simple", 0.65, "ann lee", 7),
        ("first", 0.65, "ann lee ##s", 9),
        ("average", 0.7, "ann", 3),
        ("max", 0.7, "ann", 3),
    ],
)
def test_entities_of_groups(strategy: str, score: float, word: str, end: int) -> None:
    found = _entities(aggregation_strategy=strategy)
    assert found == [{"entity_group": "PER", "score": score, "word": word, "start": 0, "end": end}]
    with_others = _entities(aggregation_strategy=strategy, ignore_labels=())
    assert [one["entity_group"] for one in with_others] == ["PER", "O"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("O", "B", "I"), [("_", "ann lee ##s")]),
        (("O", "B-O", "I-O"), [("O", "ann lee ##s")]),
        (("X", "B-PER", "I-PER"), [("PER", "ann lee ##s"), ("X", "ran")]),
        (("O", "S", "NN"), [("S", "ann"), ("NN", "lee ##s")]),  # parts of speech: no letter is a prefix
    ],
)
def test_schemes_of_groups(names: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    with np.errstate(divide="ignore"):
        found = decode.entities(np.log(SHARES), TOKENS, WORDS, dict(enumerate(names)), aggregation_strategy="first")
    assert [(one["entity_group"], one["word"]) for one in found] == expected


def test_entities_of_nothing_and_of_an_unknown_strategy() -> None:
    empty = Tokens(TOKENS.input_ids[:2], TOKENS.token_type_ids[:2], TOKENS.offsets[:2], TOKENS.word_ids[[0, -1]], 0)
    for strategy in decode.AGGREGATIONS:
        assert decode.entities(np.zeros((2, 3)), empty, ["[CLS]", "[SEP]"], NAMES, aggregation_strategy=strategy) == []
    with pytest.raises(InputError, match="aggregation_strategy='best'"):
        _entities(aggregation_strategy="best")


def test_word_tags_read_first_tokens_and_miss_what_was_cut() -> None:
    assert decode.word_tags(SHARES, TOKENS, NAMES) == ["B-PER", "I-PER", "O", "O"]


# ── spans ──


def _window(tokens: int, begin: int, max_context: list[bool], question: int = 2) -> Window:
    """A window on tokens "begin…" of a context whose token i is the characters 3i and 3i + 1."""
    size = question + tokens + 3
    starts = 3 * np.arange(begin, begin + tokens)
    return Window(
        np.zeros(size, np.int32),
        np.zeros(size, np.int32),
        context=slice(question + 2, question + 2 + tokens),
        offsets=np.stack([starts, starts + 2], axis=1).astype(np.int32).reshape(-1, 2),
        max_context=np.array(max_context, bool),
        seen=(0, 99),
    )


def _slow(windows: list[Window], outputs: list[dict[str, Any]], longest: int) -> list[tuple[float, int, int]]:
    found = []
    for window, output in zip(windows, outputs, strict=True):
        places = range(window.context.start, window.context.stop)
        for i, j in product(range(len(places)), repeat=2):
            if i <= j < i + longest and window.max_context[i]:
                logit = float(output["start_logits"][places[i]] + output["end_logits"][places[j]])
                found.append((logit, int(window.offsets[i, 0]), int(window.offsets[j, 1])))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_spans_as_by_trying_all(longest: int) -> None:
    rng = np.random.default_rng(longest)
    windows = [_window(6, 0, [True] * 4 + [False] * 2), _window(5, 3, [False] + [True] * 4), _window(0, 8, [])]
    outputs = [{name: rng.normal(size=len(window)) for name in ("start_logits", "end_logits")} for window in windows]
    expected = _slow(windows, outputs, longest)
    found = decode.spans(windows, outputs, n_best=100, max_answer_length=longest)
    assert [(span.logit, span.start, span.end) for span in found] == expected
    assert decode.spans(windows, outputs, n_best=3, max_answer_length=longest) == found[:3]
    # No characters twice, though two tokens are in both windows.
    assert len({(span.start, span.end) for span in found}) == len(found)


def test_answers_without_impossible_ones() -> None:
    found = [decode.Span(0, 2, 1.5, 0.5), decode.Span(3, 5, 0.0, 1.0)]
    best = decode.answers(found, "ab cd")
    assert best == [{"score": pytest.approx(np.exp(2) / (np.exp(2) + np.exp(1))), "start": 0, "end": 2, "answer": "ab"}]
    assert [one["answer"] for one in decode.answers(found, "ab cd", top_k=5)] == ["ab", "cd"]
    assert decode.answers([], "") == [{"score": 0.0, "start": 0, "end": 0, "answer": ""}]


@pytest.mark.parametrize(
    ("null", "threshold", "order"),
    [(1.5, 0.0, "ab,,cd"), (2.5, 0.0, ",ab,cd"), (2.0, 0.0, "ab,,cd"), (2.5, 1.0, "ab,,cd"), (1.5, -1.0, ",ab,cd")],
)
def test_answers_with_impossible_ones(null: float, threshold: float, order: str) -> None:
    found = [decode.Span(0, 2, 1.5, 0.5), decode.Span(3, 5, 0.0, 1.0)]
    ranked = decode.answers(found, "ab cd", top_k=None, null=null, null_threshold=threshold)
    assert ",".join(one["answer"] for one in ranked) == order
    assert sum(one["score"] for one in ranked) == pytest.approx(1.0)
    assert decode.answers([], "", null=null) == [{"score": 1.0, "start": 0, "end": 0, "answer": ""}]


def test_null_is_the_least_over_the_windows() -> None:
    outputs = [{"start_logits": np.array([s, 9.0]), "end_logits": np.array([1.0, 9.0])} for s in (3.0, -2.0, 0.0)]
    assert decode.null_logit(outputs) == -1.0
