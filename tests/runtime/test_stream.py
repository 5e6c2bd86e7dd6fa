"""The stream against one input at a time: the same answers in the same order, and nothing read too early."""

from __future__ import annotations

import sqlite3
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.errors import InputError
from pocketbert.features import Features
from pocketbert.pipelines import pipeline
from pocketbert.runtime import stream
from pocketbert.runtime.stream import PAUSE, Job, answers


def sequences(one: list[int]) -> list[Features]:
    """A sequence for every number of an input, as long as the number says."""
    return [Features(np.full(n, n, np.int32), np.zeros(n, np.int32)) for n in one]


class Model:
    """Gives every sequence its sum, and remembers what ran together."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        self.runs.append([len(one) for one in inputs])
        return [{"sum": one.input_ids.sum()} for one in inputs]


def job(**limits: int) -> Job:
    return Job(
        lambda inputs: [sequences(one) for one in inputs],
        lambda one, features, outputs: (one, [int(output["sum"]) for output in outputs]),
        **limits,
    )


@settings(max_examples=60)
@given(
    inputs=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), max_size=300),
    pauses=st.sets(st.integers(0, 300), max_size=5),
    window=st.integers(1, 200),
    characters=st.integers(1, 100),
    tokens=st.integers(1, 90),
)
def test_any_inputs_in_any_windows(
    inputs: list[list[int]], pauses: set[int], window: int, characters: int, tokens: int
) -> None:
    def source() -> Iterator[Any]:
        for number, one in enumerate(inputs):
            if number in pauses:
                yield PAUSE
            yield one

    model = Model()
    got = list(answers(source(), job(inputs=window, characters=characters, tokens=tokens), model))
    assert [answer.value for answer in got] == [(one, [n * n for n in one]) for one in inputs]
    assert [[len(one) for one in answer.features] for answer in got] == inputs
    for run in model.runs:
        assert run == sorted(run, reverse=True)
        assert len(run) == 1 or len(run) * run[0] <= tokens


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 191, 192, 193, 5000])
def test_around_the_ends_of_windows(count: int) -> None:
    inputs = [[1 + n % 5] for n in range(count)]
    assert [answer.value[0] for answer in answers(inputs, job(), Model())] == inputs


def test_windows_are_bounded_in_number_and_in_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    limits = job(inputs=1000, characters=10_000)
    short = [len(window) for window in stream._windows(iter(["a"] * 5000), limits)]
    assert short[:5] == [64, 128, 256, 512, 1000]
    assert sum(short) == 5000
    long = [{"text": "x" * 3000, "pair": ["y" * 900, "z" * 100]}] * 20
    assert [len(window) for window in stream._windows(iter(long), limits)] == [3] * 6 + [2]


def test_one_window_is_read_ahead_and_no_more() -> None:
    taken = 0

    def source() -> Iterator[list[int]]:
        nonlocal taken
        for n in range(500):
            taken += 1
            yield [1 + n % 9]

    for done, _ in enumerate(answers(source(), job(inputs=10), Model()), start=1):
        assert taken - done < 20
    assert taken == 500


def test_what_is_there_is_answered_before_a_pause_and_before_an_error() -> None:
    told: list[Any] = []

    def source() -> Iterator[Any]:
        for n in range(1, 4):
            yield [n]
            told.append(f"{n} was read")
            yield PAUSE
        yield [4]
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        told.extend(answer.value[0][0] for answer in answers(source(), job(), Model()))
    assert told == ["1 was read", 1, "2 was read", 2, "3 was read", 3, 4]


def test_slow_inputs_do_not_wait_for_their_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def source() -> Iterator[Any]:
        nonlocal now
        for n in range(1, 100):
            now += 0.06  # the third of them finds that the first has waited for over 0.1
            yield [n]

    sizes = [len(window) for window in stream._windows(source(), job())]
    assert sizes == [3, 0] * 33


def test_an_input_that_cannot_be_read_ends_the_stream_in_its_place() -> None:
    def encode(inputs: list[Any]) -> list[list[Features]]:
        for position, one in enumerate(inputs):
            if 0 in one:
                raise InputError("nothing to read", position)
        return [sequences(one) for one in inputs]

    for bad in (0, 1, 63, 64, 500):
        inputs = [[1]] * 1000
        inputs[bad] = [0]
        got = answers(inputs, Job(encode, lambda one, features, outputs: one), Model())
        for _ in range(bad):
            next(got)
        with pytest.raises(InputError, match=f"^input {bad}: nothing to read$"):
            next(got)


def test_inputs_are_read_in_the_thread_of_the_caller() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("create table t (n integer)")
    database.executemany("insert into t values (?)", [(1 + n % 9,) for n in range(1000)])
    rows = (list(row) for row in database.execute("select n from t"))
    assert len(list(answers(rows, job(inputs=64), Model()))) == 1000
    database.close()


def test_a_stream_that_is_left_leaves_no_thread() -> None:
    before = threading.active_count()
    got = answers(([1] for _ in range(10_000)), job(), Model())
    for _ in range(200):
        next(got)
    assert threading.active_count() == before + 1
    got.close()  # type: ignore[attr-defined] # a generator
    assert threading.active_count() == before


def test_the_same_text_has_the_same_bits_alone_and_among_others() -> None:
    """In two windows, of which the first takes two runs."""
    draws = np.random.default_rng(0)
    words = ["the", "a", "film", "movie", "is", "was", "not", "very", "good", "bad", "great", "dull", "funny"]
    texts = [" ".join(draws.choice(words, draws.integers(0, 150))) for _ in range(80)]
    classify = pipeline("text-classification", top_k=None)
    streamed = list(classify(iter(texts)))
    assert streamed == classify(texts)
    assert streamed == [one for text in texts for one in classify(text)]


def test_memory_does_not_grow_with_the_number_of_inputs() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            inputs = ([5, n % 40 + 1] for n in range(count))
            assert sum(1 for _ in answers(inputs, job(inputs=200), Model())) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    class Model:
        def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
            return [{"sum": one.input_ids.sum()} for one in inputs]

    assert peak(10_000) < 1.5 * peak(2000)
