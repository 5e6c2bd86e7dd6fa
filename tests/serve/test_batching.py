import asyncio
import random
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pocketbert.bundles import BUNDLED, SENTIMENT
from pocketbert.features import Features
from pocketbert.serve.admission import LATE, TICKET, Admission
from pocketbert.serve.batching import LONGEST, STRETCH, Queue, Request, ServerBusyError, TooSlowError, Worker
from pocketbert.serve.models import load


def sequence(length: int) -> Features:
    return Features(np.ones(length, np.int32), np.zeros(length, np.int32))


def request(*lengths: int, arrived: float = 0.0) -> Request:
    return Request([sequence(n) for n in lengths], arrived)


class Slow:
    """A predictor that records its batches, and waits until it is released."""

    def __init__(self, *, hold: bool = False, log: list[int] | None = None) -> None:
        self.batches, self.log, self.busy, self.go = list[list[int]](), log, threading.Event(), threading.Event()
        if not hold:
            self.go.set()

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        self.batches.append([len(one) for one in inputs])
        if self.log is not None:
            self.log.append(len(inputs[0]))
        self.busy.set()
        assert self.go.wait(300)
        return [{"length": np.array(len(one))} for one in inputs]


def waiting(*requests: Request, tokens: int = 256) -> Queue:
    return filled(Queue(Slow(), tokens), *requests)


def filled(queue: Queue, *requests: Request) -> Queue:
    for one in requests:
        queue.add(one)
    return queue


def stopped(*queues: Queue) -> Worker:
    """A worker whose thread has ended, so that requests stay in the queues."""
    worker = Worker(queues)
    worker.stop()
    return worker


def take(queue: Queue, now: float) -> list[list[int]]:
    """Batches until nothing waits, as lengths."""
    batches = []
    while queue.waiting:
        batches.append([len(one.sequences[index]) for one, index in queue.take(now)])
    return batches


# ── order ──


def test_shortest_first_within_the_budget() -> None:
    queue = waiting(request(90), request(10), request(30), request(60), tokens=100)
    assert take(queue, now=0.1) == [[10, 30, 60], [90]]


def test_one_text_does_not_wait_for_a_thousand() -> None:
    queue = waiting(request(*[10] * 1000), request(50), tokens=100)
    first = queue.take(0.1)
    assert len(first[0][0].sequences) == 1
    assert len(first) == 6  # and the rest of the batch is from the long request


def test_a_longer_text_than_the_budget_goes_alone() -> None:
    queue = waiting(request(500), request(7), tokens=10)
    assert take(queue, now=0.1) == [[7], [500]]


def test_no_request_starves() -> None:
    """A long text among short ones that never end is taken when it is due."""
    long = request(80)
    queue = Queue(Slow(), tokens=100)
    queue.pace = 0.001
    queue.add(long)
    for step in range(1000):
        now = step * 0.01
        for _ in range(20):
            queue.add(request(10, arrived=now))
        queue.take(now)
        if long.next:
            break
    # It is due so much later than short ones, which come twice as fast as they are taken.
    assert now == pytest.approx(2 * STRETCH * (80 - 10) * 0.001, abs=0.03)
    assert queue.due(7.0, 10**6) == 7 + LONGEST


def test_an_eighth_of_a_batch_stays_with_the_shortest() -> None:
    queue = waiting(request(*[10] * 50), request(5, arrived=9.9), tokens=100)
    batch = [(len(one.sequences), index) for one, index in queue.take(10.0)]
    assert batch == [*((50, i) for i in range(8)), (1, 0), (50, 8)]


def test_what_cannot_be_done_in_time_is_given_up() -> None:
    """At once where the pace is known, after the first batch where it was not."""
    errors = list[Exception | None]()
    slow = Request([sequence(50)] * 4, 0.0, None, 10.0, lambda one: errors.append(one.error))
    fine = Request([sequence(50)] * 4, 0.0, None, 30.0, lambda one: errors.append(one.error))
    queue = Queue(Slow(), tokens=100)
    worker = stopped(queue)
    filled(queue, fine, slow)
    assert len(queue.take(0.0)) == 2
    queue.pace = 0.1
    assert {id(one) for one, _ in queue.take(5.0)} == {id(fine)}
    assert [str(error) for error in errors] == [
        "the request would take 20 s, more than the limit of 10 s: send at most 100 tokens per request"
    ]
    with pytest.raises(TooSlowError, match="at most 100 tokens"):
        worker.submit(queue, Request([sequence(50)] * 4, 0.0, None, 10.0), 99.0)
    assert not queue.waiting


def test_what_waits_is_refused_while_there_is_a_debt() -> None:
    load = Admission(1.0, lambda: 0.0)
    errors = list[Exception | None]()
    first, last = (
        Request([sequence(10)], at, load.enter(9), on_done=lambda one: errors.append(one.error)) for at in (0.0, LATE)
    )
    assert first.ticket
    assert last.ticket
    last.ticket.arrived = LATE
    queue = waiting(first, last, tokens=100)
    load.debt = 0.1
    assert [one for one, _ in queue.take(LATE + 0.01)] == [last]
    assert [type(error) for error in errors] == [ServerBusyError]
    filled(queue, *(Request([sequence(40)], 0.01 * n, load.enter(9)) for n in range(5)))
    batch = queue.take(9.0)  # all are late: the last ones that fill a batch are computed all the same
    assert [round(one.arrived, 2) for one, _ in batch] == [0.03, 0.04]
    assert not queue.waiting
    filled(queue, Request([sequence(10)], 0.0, load.enter(9)))
    load.debt = 0.0
    assert len(queue.take(9.0)) == 1


def test_tokens_replace_the_estimate_of_a_request() -> None:
    load = Admission(1.0)
    queue = Queue(Slow())
    worker = Worker([queue])

    async def ask() -> None:
        TICKET.set(load.enter(4000))
        await worker.run(queue, [sequence(9), sequence(3)], 9.0)

    before = load.work
    asyncio.run(ask())
    worker.stop()
    assert load.work - before == 16 + 12


def test_cancelled_requests_are_not_computed() -> None:
    cancelled, active = request(5), request(6)
    queue = waiting(cancelled, active)
    cancelled.cancelled = True
    assert take(queue, 0.0) == [[6]]
    assert queue.tokens == 0


def test_every_sequence_is_taken_once() -> None:
    for seed in range(20):
        goes_once(seed)


def goes_once(seed: int) -> None:
    draws = random.Random(seed)
    queue, taken = Queue(Slow(), tokens=draws.randint(1, 200)), list[tuple[int, int]]()
    everything, now = list[Request](), 0.0
    while len(everything) < 30 or queue.waiting:
        now += draws.random() * 0.1
        if len(everything) < 30:
            lengths = [draws.randint(1, 120) for _ in range(draws.randint(1, 9))]
            everything.append(request(*lengths, arrived=now))
            queue.add(everything[-1])
        batch = queue.take(now)
        assert len(batch) == 1 or sum(len(one.sequences[i]) for one, i in batch) <= queue.budget
        taken += [(id(one), index) for one, index in batch]
        assert queue.tokens == sum(len(s) for one in queue.waiting for s in one.sequences[one.next :])
    assert sorted(taken) == sorted((id(one), i) for one in everything for i in range(len(one.sequences)))


# ── expected wait ──


def test_shorter_requests_go_first() -> None:
    queue = Queue(Slow())
    worker = stopped(queue)
    queue.running, queue.pace = 50, 0.5
    filled(queue, request(100), request(10, 10), request(30))
    assert [worker.expected_wait(queue, tokens, 0.0) for tokens in (5, 20, 30, 500)] == [25, 35, 50, 100]
    assert worker.backlog == 100


def test_other_models_have_one_turn_per_batch() -> None:
    """A thousand texts for one model do not block another."""
    one, two = Queue(Slow(), tokens=10), Queue(Slow(), tokens=10)
    one.pace = two.pace = 1.0
    worker = stopped(one, two)
    filled(two, request(*[10] * 1000))
    assert worker.expected_wait(one, 5, 0.0) == 10  # a batch of the other model
    one.add(request(5))
    assert worker.expected_wait(one, 5, 0.0) == 5 + 15
    assert worker.expected_wait(two, 7, 0.0) == 0 + 5
    assert worker.backlog == 10_005


# ── the thread ──


def test_a_request_alone_starts_at_once_and_others_gather() -> None:
    model = Slow(hold=True)
    queue = Queue(model)
    worker = Worker([queue])

    async def ask() -> None:
        first = asyncio.create_task(worker.run(queue, [sequence(9)], 9.0))
        await asyncio.to_thread(model.busy.wait)
        others = [asyncio.create_task(worker.run(queue, [sequence(n)], 9.0)) for n in (30, 10, 20)]
        await asyncio.sleep(0)
        model.go.set()
        found = await asyncio.gather(first, *others)
        assert [int(one.outputs[0]["length"]) for one in found] == [9, 30, 10, 20]

    asyncio.run(ask())
    worker.stop()
    assert model.batches == [[9], [10, 20, 30]]


def test_too_long_a_queue_is_refused_with_a_time() -> None:
    model = Slow(hold=True)
    queue = Queue(model, tokens=10)
    queue.pace = 0.1
    worker = Worker([queue])

    async def ask() -> None:
        there = [asyncio.create_task(worker.run(queue, [sequence(10)], 5.0)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(ServerBusyError) as refusal:
            await worker.run(queue, [sequence(10)], 2.5)
        assert refusal.value.seconds == pytest.approx(1.5)  # of four seconds it may wait so many
        assert queue.tokens == 40
        model.go.set()
        await asyncio.gather(*there)

    asyncio.run(ask())
    worker.stop()


def test_models_take_turns() -> None:
    order = list[int]()
    models = [Slow(hold=True, log=order), Slow(log=order)]
    queues = [Queue(model, tokens=10) for model in models]
    worker = Worker(queues)

    async def ask() -> None:
        long = asyncio.create_task(worker.run(queues[0], [sequence(10)] * 5, 9.0))
        await asyncio.to_thread(models[0].busy.wait)
        others = [asyncio.create_task(worker.run(queues[1], [sequence(9)], 9.0)) for _ in range(2)]
        await asyncio.sleep(0)
        models[0].go.set()
        await asyncio.gather(long, *others)

    asyncio.run(ask())
    worker.stop()
    assert order == [10, 9, 10, 9, 10, 10, 10]  # lengths


def test_a_failure_reaches_the_requests_of_its_batch_only(caplog: pytest.LogCaptureFixture) -> None:
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


def test_cancelled_requests_are_skipped() -> None:
    model = Slow(hold=True)
    queue = Queue(model)
    worker = Worker([queue])

    async def ask() -> None:
        first = asyncio.create_task(worker.run(queue, [sequence(1)], 9.0))
        await asyncio.to_thread(model.busy.wait)
        gone = asyncio.create_task(worker.run(queue, [sequence(2)], 9.0))
        last = asyncio.create_task(worker.run(queue, [sequence(3)], 9.0))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, last)
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(ask())
    worker.stop()
    assert model.batches == [[1], [3]]


# ── the same bits ──


def test_results_have_the_same_bits_as_alone() -> None:
    """Random texts from random numbers of clients at random moments, against each text alone."""
    draws = random.Random(0)
    words = ["a", "the", "film", "plot", "was", "not", "very", "dull", "great", "bad", "7", ",", "unbelievably"]
    pipe = load(str(BUNDLED / SENTIMENT), threads=1)
    texts = [" ".join(draws.choices(words, k=draws.choice((1, 3, 10, 30)))) for _ in range(50)]
    job = pipe.job()
    sequences = [job.encode([text])[0][0] for text in texts]
    alone = [pipe.predictor([one])[0]["logits"].tobytes() for one in sequences]
    queue = Queue(pipe.predictor, tokens=150)
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
        for clients in (3, 25):
            order = draws.sample(range(len(texts)), len(texts))
            found: dict[int, bytes] = {}
            for part in await asyncio.gather(*(client(order[start::clients]) for start in range(clients))):
                found |= part
            assert [found[n] for n in range(len(texts))] == alone

    asyncio.run(ask())
    worker.stop()
    assert max(sizes) > 8
