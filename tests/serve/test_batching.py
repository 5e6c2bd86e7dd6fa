import asyncio
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pocketbert.features import Features
from pocketbert.pipelines import pipeline
from pocketbert.serve.batching import PATIENCE, Busy, Queue, Request, Worker


def sequence(length: int) -> Features:
    return Features(np.ones(length, np.int32), np.zeros(length, np.int32))


def request(*lengths: int, arrived: float = 0.0) -> Request:
    return Request([sequence(n) for n in lengths], arrived)


class Slow:
    """A predictor that notes its batches and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.batches, self.busy = seconds, list[list[int]](), threading.Event()

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        self.batches.append([len(one) for one in inputs])
        self.busy.set()
        time.sleep(self.seconds)
        return [{"length": np.array(len(one))} for one in inputs]


def take(queue: Queue, now: float) -> list[list[int]]:
    """Batches until nothing waits, as lengths."""
    batches = []
    while queue.waiting:
        batches.append([len(one.sequences[index]) for one, index in queue.take(now)])
    return batches


# ── who goes next ──


def test_shortest_first_within_the_budget() -> None:
    queue = Queue(Slow(), tokens=100)
    queue.waiting = [request(90), request(10), request(30), request(60)]
    assert take(queue, now=0.1) == [[10, 30, 60], [90]]


def test_one_text_does_not_wait_for_a_thousand() -> None:
    queue = Queue(Slow(), tokens=100)
    queue.waiting = [request(*[10] * 1000), request(50)]
    first = queue.take(0.1)
    assert len(first[0][0].sequences) == 1
    assert len(first) == 6  # and the rest of the batch is theirs


def test_a_longer_text_than_the_budget_goes_alone() -> None:
    queue = Queue(Slow(), tokens=10)
    queue.waiting = [request(500), request(7)]
    assert take(queue, now=0.1) == [[7], [500]]


def test_nobody_starves() -> None:
    """A long text among short ones that never end is taken as soon as its patience is over."""
    queue = Queue(Slow(), tokens=100)
    long = request(80)
    queue.waiting = [long]
    for step in range(1000):
        now = step * 0.01
        queue.waiting += [request(10, arrived=now) for _ in range(20)]
        queue.take(now)
        if long.next:
            break
    assert now == pytest.approx(PATIENCE, abs=0.011)


def test_half_of_a_batch_stays_with_the_shortest() -> None:
    queue = Queue(Slow(), tokens=100)
    queue.waiting = [request(*[10] * 50), request(5, arrived=9.9)]
    batch = [(len(one.sequences), index) for one, index in queue.take(10.0)]
    assert batch == [(50, 0), (50, 1), (50, 2), (50, 3), (50, 4), (1, 0), (50, 5), (50, 6), (50, 7), (50, 8)]


def test_who_has_gone_is_not_computed() -> None:
    queue = Queue(Slow())
    gone, there = request(5), request(6)
    gone.given_up = True
    queue.waiting = [gone, there]
    assert take(queue, 0.0) == [[6]]


@pytest.mark.parametrize("seed", range(20))
def test_every_sequence_goes_once(seed: int) -> None:
    draws = random.Random(seed)
    queue, taken = Queue(Slow(), tokens=draws.randint(1, 200)), list[tuple[int, int]]()
    everything, now = list[Request](), 0.0
    while len(everything) < 30 or queue.waiting:
        now += draws.random() * 0.1
        if len(everything) < 30:
            lengths = [draws.randint(1, 120) for _ in range(draws.randint(1, 9))]
            queue.waiting.append(request(*lengths, arrived=now))
            everything.append(queue.waiting[-1])
        batch = queue.take(now)
        assert len(batch) == 1 or sum(len(one.sequences[i]) for one, i in batch) <= queue.budget
        taken += [(id(one), index) for one, index in batch]
        assert queue.tokens == sum(len(s) for one in queue.waiting for s in one.sequences[one.next :])
    assert sorted(taken) == sorted((id(one), i) for one in everything for i in range(len(one.sequences)))


# ── the thread ──


def test_a_request_alone_starts_at_once_and_others_gather() -> None:
    model = Slow(0.1)
    queue = Queue(model)
    worker = Worker([queue])

    async def ask() -> None:
        first = asyncio.create_task(worker.run(queue, [sequence(9)], 9.0))
        await asyncio.to_thread(model.busy.wait)
        others = [worker.run(queue, [sequence(n)], 9.0) for n in (30, 10, 20)]
        found = await asyncio.gather(first, *others)
        assert [int(one.outputs[0]["length"]) for one in found] == [9, 30, 10, 20]
        assert found[0].started - found[0].arrived < 0.1

    asyncio.run(ask())
    worker.stop()
    assert model.batches == [[9], [10, 20, 30]]


def test_too_long_a_queue_is_refused_with_a_time() -> None:
    model = Slow(0.2)
    queue = Queue(model, tokens=10)
    queue.pace = 0.1
    worker = Worker([queue])

    async def ask() -> None:
        waiting = [asyncio.create_task(worker.run(queue, [sequence(10)], 5.0)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Busy) as refusal:
            await worker.run(queue, [sequence(10)], 2.5)
        assert refusal.value.seconds == pytest.approx(4.0)
        await asyncio.gather(*waiting)

    asyncio.run(ask())
    worker.stop()


def test_models_take_turns() -> None:
    one, two = Queue(Slow(0.01), tokens=10), Queue(Slow(0.01), tokens=10)
    worker = Worker([one, two])

    async def ask() -> None:
        await asyncio.gather(*(worker.run(queue, [sequence(10)], 9.0) for _ in range(5) for queue in (one, two)))

    asyncio.run(ask())
    worker.stop()
    assert len(one.predictor.batches) == len(two.predictor.batches) == 5  # type: ignore[attr-defined]


def test_a_failure_reaches_those_who_wait_and_no_others(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Slow):
        def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
            if any(len(one) == 13 for one in inputs):
                raise RuntimeError("broken")
            return super().__call__(inputs)

    queue = Queue(Broken(), tokens=15)
    worker = Worker([queue])

    async def ask() -> None:
        with pytest.raises(RuntimeError, match="broken"):
            await worker.run(queue, [sequence(n) for n in (5, 13, 5)], 9.0)
        assert len((await worker.run(queue, [sequence(4)], 9.0)).outputs) == 1

    asyncio.run(ask())
    worker.stop()
    assert "a batch of" in caplog.text


def test_who_gives_up_is_left_out() -> None:
    model = Slow(0.05)
    queue = Queue(model)
    worker = Worker([queue])

    async def ask() -> None:
        first = asyncio.create_task(worker.run(queue, [sequence(1)], 9.0))
        await asyncio.to_thread(model.busy.wait)
        gone = asyncio.create_task(worker.run(queue, [sequence(2)], 9.0))
        last = asyncio.create_task(worker.run(queue, [sequence(3)], 9.0))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(first, last)
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(ask())
    worker.stop()
    assert model.batches == [[1], [3]]


# ── the same bits ──


def test_answers_have_the_same_bits_as_alone() -> None:
    """Random texts from random numbers of clients at random moments, against each text alone."""
    draws = random.Random(0)
    words = ["a", "the", "film", "plot", "was", "not", "very", "dull", "great", "bad", "but", "7", ",", "unbelievably"]
    pipe = pipeline("text-classification", top_k=None)
    texts = [" ".join(draws.choices(words, k=draws.choice((1, 3, 10, 40, 200)))) for _ in range(120)]
    job = pipe.job()
    sequences = [job.encode([text])[0][0] for text in texts]
    alone = [pipe.predictor([one])[0]["logits"].tobytes() for one in sequences]
    queue = Queue(pipe.predictor, tokens=300)
    worker, sizes = Worker([queue]), list[int]()
    queue.observe = lambda report: sizes.append(report.sequences)

    async def client(numbers: list[int]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        while numbers:
            some = [numbers.pop() for _ in range(min(len(numbers), draws.choice((1, 1, 2, 7))))]
            outputs = (await worker.run(queue, [sequences[n] for n in some], 99.0)).outputs
            found.update(zip(some, (output["logits"].tobytes() for output in outputs), strict=True))
            await asyncio.sleep(draws.random() * 0.002)
        return found

    async def ask() -> None:
        for clients in (1, 3, 30):
            order = draws.sample(range(len(texts)), len(texts))
            found: dict[int, bytes] = {}
            for part in await asyncio.gather(*(client(order[start::clients]) for start in range(clients))):
                found |= part
            assert [found[n] for n in range(len(texts))] == alone

    asyncio.run(ask())
    worker.stop()
    assert max(sizes) > 8
