import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.data.batches import BatchOrder, LabelledBatches, random_order, random_words
from pocketbert.features import Features

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200)


def features(*lengths: int) -> list[Features]:
    return [Features(np.full(n, i + 1, dtype=np.int32), np.zeros(n, dtype=np.int32)) for i, n in enumerate(lengths)]


def test_random_words_are_the_same_everywhere() -> None:
    # Recorded once: where these differ, a run would not continue as it began.
    assert random_words(42, "test", 0, 2).tolist() == [16877339161171813155, 1247406381118606938]
    streams = [random_words(s, p, i, 4).tolist() for s in (0, 1) for p in ("a", "b") for i in (0, 1)]
    assert len({tuple(s) for s in streams}) == 8
    assert random_words(7, "test", 3, 100)[:5].tolist() == random_words(7, "test", 3, 5).tolist()


@given(LENGTHS, st.integers(1, 40), st.integers(0, 3), st.integers(1, 5), st.booleans())
@settings(max_examples=60)
def test_every_example_exactly_once_an_epoch(
    lengths: list[int], size: int, seed: int, window: int, by_tokens: bool
) -> None:
    order = BatchOrder(lengths, **{"tokens" if by_tokens else "batch_size": size}, seed=seed, window=window)
    for epoch in range(3):
        steps = range(order.batches_before(epoch), order.batches_before(epoch + 1))
        batches = [order[t] for t in steps]
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        for batch in batches:
            inside = [lengths[i] for i in batch]
            assert inside == sorted(inside)
            assert len(batch) * max(inside) <= size or len(batch) == 1 if by_tokens else len(batch) <= size


@given(LENGTHS, st.integers(1, 40), st.lists(st.integers(0, 300), min_size=1, max_size=8), st.booleans())
@settings(max_examples=60)
def test_a_batch_does_not_depend_on_what_was_asked_before(
    lengths: list[int], size: int, steps: list[int], by_tokens: bool
) -> None:
    def fresh() -> BatchOrder:
        return BatchOrder(lengths, **{"tokens" if by_tokens else "batch_size": size}, seed=5, window=2)

    order = fresh()
    assert [order[t].tolist() for t in steps] == [fresh()[t].tolist() for t in steps]


def test_epochs_and_seeds_differ() -> None:
    order = BatchOrder([5] * 64, batch_size=8, seed=1)
    epochs = [np.concatenate([order[t] for t in range(e * 8, e * 8 + 8)]).tolist() for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert BatchOrder([5] * 64, batch_size=8, seed=2)[0].tolist() != order[0].tolist()


def test_one_partial_batch_an_epoch() -> None:
    order = BatchOrder([5] * 1003, batch_size=16, seed=1, window=4)
    sizes = [len(order[t]) for t in range(order.batches_before(1))]
    assert sorted(sizes) == [11] + [16] * 62


def test_like_lengths_leave_little_padding() -> None:
    lengths = np.random.default_rng(0).geometric(0.05, size=10_000) + 2
    order = BatchOrder(lengths, batch_size=32, seed=1)
    slots = sum(len(order[t]) * lengths[order[t]].max() for t in range(order.batches_before(1)))
    assert slots < 1.08 * lengths.sum()
    plain = random_order(1, "plain", 0, 10_000)
    unsorted = sum(32 * lengths[plain[i : i + 32]].max() for i in range(0, 10_000, 32))
    assert unsorted > 2.5 * lengths.sum()


def test_wrong_sizes() -> None:
    for options in ({}, {"batch_size": 1, "tokens": 1}, {"batch_size": 0}, {"tokens": 0}):
        with pytest.raises(ValueError):
            BatchOrder([1], seed=0, **options)
    with pytest.raises(ValueError):
        BatchOrder([], batch_size=1, seed=0)
    with pytest.raises(IndexError):
        BatchOrder([1], batch_size=1, seed=0)[-1]


def test_micro_batches_are_the_batch() -> None:
    labels = np.arange(10)
    order = BatchOrder([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], batch_size=7, seed=0)
    whole = LabelledBatches(features(*order.lengths), {"labels": labels}, order)
    parts = LabelledBatches(features(*order.lengths), {"labels": labels}, order, parts=3, pad_token_id=99)
    for step in range(4):
        (batch,), micro = whole(step), parts(step)
        assert np.concatenate([m["labels"] for m in micro]).tolist() == batch["labels"].tolist()
        for m in micro:
            assert m["input_ids"].shape == m["attention_mask"].shape == m["token_type_ids"].shape
            assert (m["input_ids"][m["attention_mask"] == 0] == 99).all()
            assert m["attention_mask"].sum(axis=1).max() == m["input_ids"].shape[1]


def test_more_parts_than_examples() -> None:
    batches = LabelledBatches(
        features(1, 2), {"labels": np.arange(2)}, BatchOrder([1, 2], batch_size=2, seed=0), parts=5
    )
    assert [len(m["labels"]) for m in batches(0)] == [1, 1]
