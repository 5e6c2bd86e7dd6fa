"""Rejected requests and their errors, access, overload, shutdown and log."""

import asyncio
import http.client
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.requests import ClientDisconnect

from helpers.service import Held, Inside, Service, running
from pocketbert.configs import BertConfig
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.serve import server
from pocketbert.serve.admission import LASTING, LATE, MIN_ACTIVE, Admission, Ticket
from pocketbert.serve.app import load_app
from pocketbert.serve.settings import Limits, Settings, named

SECRET = "unrepeatable"
FINE = {"inputs": "the film is great"}


@pytest.fixture(scope="module")
def strict(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with low limits and API keys."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text("# ours\nfirst-key\n\nsecond-key\n")
    limits: list[str | Path] = ["--max-body", "2000", "--max-texts", "4", "--max-tokens", "100"]
    arguments: list[str | Path] = [*limits, "--api-keys", keys, "--cors", "https://pages.example"]
    with running(
        f"nli={models['nli']}", f"choose={models['choose']}", f"fill={models['fill-mask']}", *arguments
    ) as service:
        yield service


def ask(service: Service, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    found = service.ask(path, body, **{"authorization": "Bearer first-key", **headers})
    return found.status, found.headers, found.json


# ── size ──


def test_a_large_body_is_refused_before_it_is_read(strict: Service) -> None:
    status, _, found = ask(strict, "/v1/classify", {"inputs": "a" * 3000})
    assert (status, found["error"]["type"]) == (413, "request_too_large")
    connection = strict.connect()
    connection.putrequest("POST", "/v1/classify")
    connection.putheader("authorization", "Bearer first-key")
    connection.putheader("content-length", "1" + "0" * 12)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_large_body_in_pieces_is_refused_too(strict: Service) -> None:
    connection = strict.connect()
    pieces = iter([b"a" * 900] * 3)
    connection.request("POST", "/v1/classify", pieces, {"authorization": "Bearer first-key"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_long_line_ends_a_stream(strict: Service) -> None:
    found = strict.ask("/v1/classify/lines", b'"a"\n' + b"b" * 3000, authorization="Bearer first-key").lines
    assert [*found[0], *found[1]] == ["index", "result", "index", "error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", {"inputs": ["a"] * 5}),
        ("/v1/classify", {"inputs": ["a"], "labels": ["a", "b", "c", "d", "e"]}),
        ("/v1/choose", {"inputs": [{"prompt": "a", "choices": ["b", "c", "d"]}] * 2}),
        ("/v1/classify", {"inputs": ["the film " * 20] * 4}),
        ("/tokenize", {"inputs": ["a"] * 5}),
    ],
)
def test_too_many_texts_or_tokens(strict: Service, path: str, body: Any) -> None:
    status, _, found = ask(strict, path, body)
    assert status == 413
    assert "the limit is" in json.dumps(found)


def test_too_many_gaps(strict: Service) -> None:
    status, _, found = ask(strict, "/v1/fill-mask", {"inputs": "[MASK] " * 40})
    assert (status, found["error"]["message"]) == (422, "input 0: the text has more than 32 masks")


def test_over_long_texts_are_cut_or_refused(strict: Service) -> None:
    long = {"inputs": "the film is great " * 20}
    status, _, found = ask(strict, "/v1/classify", long)
    assert (status, found["usage"]) == (200, {"tokens": 64, "truncated": [0]})
    status, _, found = ask(strict, "/v1/classify", {**long, "truncate": False})
    assert (status, found["error"]["message"]) == (422, "input 0: the text exceeds the 64 tokens that nli reads")


# ── validation ──


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, ""),
        (b"", 422, "the body is missing"),
        (b"[" * 1900, 400, ""),
        (b"7", 422, "the body must be an object"),
        ({"inputs": 7}, 422, "inputs must be a text, an object or a list"),
        ({"inputs": ["a", 7]}, 422, "inputs.1 must be a text"),
        ({"inputs": [{"text": "a"}]}, 422, "inputs.0.text_pair is missing"),
        ({"inputs": [{"text": "a", "text_pair": "b", "c": "d"}]}, 422, "inputs.0 has a field that is not known"),
        ({"inputs": "a", "top_k": 0}, 422, "top_k must be at least 1"),
        ({"inputs": "a", "truncate": "perhaps"}, 422, "truncate must be true or false"),
        ({"inputs": "a", "topk": 1}, 422, "topk is not a known field"),
        ({"model": "nli", "topk": 1}, 422, "inputs is missing; topk is not a known field"),
        ({"inputs": "a", "model": "other"}, 404, "GET /v1/models"),
        ({"inputs": "a", "model": "fill"}, 422, "fill is a model for fill-mask"),
        (b'{"inputs": "\\ud800"}', 422, "unpaired surrogate"),
        ({"inputs": "a", "labels": ["b"], "template": "no place"}, 422, "{}"),
    ],
)
def test_invalid_bodies(strict: Service, body: Any, status: int, message: str) -> None:
    found, _, answer = ask(strict, "/v1/classify", body)
    assert found == status
    assert message in answer["error"]["message"]
    assert answer["error"].keys() == {"message", "type", "code", "param"}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/models/nli", {"inputs": {"text": "a"}}, "inputs.text_pair is missing"),
        ("/models/nli", {"inputs": "a", "parameters": {"truncation": True}}, "parameters.truncation is not a known"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, "inputs.0 must be a text or may have at most 2"),
        ("/rerank", {"query": "a", "texts": []}, "texts needs at least 1"),
    ],
)
def test_messages_have_no_names_of_pydantic(service: Service, path: str, body: Any, message: str) -> None:
    found = service.ask(path, body)
    assert (found.status, message in found.json["error"]) == (422, True)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain; charset=utf-8", ""])
def test_body_without_its_header(strict: Service, kind: str) -> None:
    """Case 43: what curl sends if it is not told otherwise."""
    status, _, found = ask(strict, "/v1/classify", b'{"inputs": "the film"}', content_type=kind)
    assert (status, "Content-Type: application/json" in found["error"]["message"]) == (422, True)


def test_cases_from_fuzzing(service: Service) -> None:
    half = b'{"inputs": "a [MASK]", "targets": ["film", "\\ud800"]}'
    assert "unpaired surrogate" in service.ask("/v1/fill-mask", half).json["error"]["message"]
    long = {"inputs": "a", "model": "nli", "labels": ["film " * 80, "b"]}
    assert service.ask("/v1/classify", long).status == 422


def test_random_bodies(service: Service) -> None:
    script = Path(__file__).parents[2] / "scripts" / "fuzz_service"
    command = [sys.executable, str(script), "--url", service.url, "--inputs", "150", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no 5xx" in done.stdout


def test_errors_do_not_repeat_what_was_sent(strict: Service) -> None:
    for body in ({"inputs": {SECRET: SECRET}}, {"inputs": [SECRET, 7]}, {SECRET: 1}, f'"{SECRET}'.encode()):
        found = strict.ask("/v1/classify", body, authorization="Bearer first-key")
        assert found.status in (400, 422)
        assert found.body.count(SECRET.encode()) <= (SECRET in dict(body if isinstance(body, dict) else {}))


def test_error_format_of_other_apis(strict: Service) -> None:
    assert ask(strict, "/predict", {"inputs": 7})[2].keys() == {"error", "error_type"}
    assert ask(strict, "/nowhere")[2] == {"error": "Not Found", "error_type": "not_found_error"}
    assert ask(strict, "/models/nli", {"inputs": "a", "parameters": {"top_k": 1, "targets": ["b"]}})[0] == 422
    assert ask(strict, "/models/nli", {"inputs": {"question": "a", "context": "b"}})[0] == 422
    assert ask(strict, "/v1/classify")[0] == 405


# ── access ──


def test_requests_need_a_key(strict: Service) -> None:
    for given in ("", "Bearer", "Bearer third-key", "first-key", "Basic first-key", "Bearer first"):
        found = strict.ask("/v1/classify", FINE, authorization=given)
        assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer"), given
        assert strict.ask("/metrics", authorization=given).status == 401, given


def test_every_key_is_accepted_and_some_routes_need_none(strict: Service) -> None:
    assert ask(strict, "/v1/classify", FINE)[0] == 200
    assert ask(strict, "/v1/classify", FINE, authorization="bearer second-key")[0] == 200
    assert [strict.ask(path).status for path in ("/", "/health", "/live", "/ready")] == [200] * 4


def test_hosts_of_requests(service: Service) -> None:
    """Those of this machine alone: the name of another site may have been made to lead here."""
    for host in ("localhost", "LOCALHOST:9", "127.0.0.1:1", "[::1]:2", ""):
        assert service.ask("/live", host=host).status == 200
    for path in ("/live", "/", "/metrics", "/v1/models"):
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.nip.example", "x:y"):
            found = service.ask(path, host=host)
            assert (found.status, "--allowed-host" in found.body.decode()) == (403, True)


@pytest.mark.parametrize(
    ("host", "allowed", "want"),
    [
        ("127.0.0.1", (), {"localhost", "127.0.0.1", "[::1]"}),
        ("127.3.4.5", (), {"localhost", "127.0.0.1", "[::1]", "127.3.4.5"}),
        ("0.0.0.0", (), None),
        ("models.example", (), None),
        ("127.0.0.1", ("Models.example",), {"models.example"}),
        ("0.0.0.0", ("a", "b"), {"a", "b"}),
        ("::1", ("*",), None),
    ],
)
def test_allowed_hosts(host: str, allowed: tuple[str, ...], want: set[str] | None) -> None:
    assert Settings((("a", "a"),), host=host, allowed_hosts=allowed).hosts == want


def test_cors_only_for_allowed_origins(strict: Service, service: Service) -> None:
    preflight = {"origin": "https://pages.example", "access_control_request_method": "POST"}
    found = strict.ask("/v1/classify", method="OPTIONS", **preflight)
    assert found.headers["access-control-allow-origin"] == "https://pages.example"
    other = strict.ask("/v1/classify", FINE, authorization="Bearer first-key", origin="https://evil.example")
    assert "access-control-allow-origin" not in other.headers
    assert not [h for h in service.ask("/v1/classify", FINE, origin="https://a.example").headers if "access" in h]


def test_responses_do_not_reveal_software_or_paths(strict: Service) -> None:
    for path in ("/", "/nowhere", "/v1/models", "/info", "/openapi.json", "/metrics"):
        found = strict.ask(path, authorization="Bearer first-key")
        everything = " ".join([*found.headers, *found.headers.values()]) + found.body.decode()
        assert not re.search(r"uvicorn|python/|fastapi|/pytest-|/home/|0\.1\.0", everything, re.IGNORECASE), path


def test_request_ids(strict: Service) -> None:
    assert strict.ask("/live", x_request_id="mine-7").headers["x-request-id"] == "mine-7"
    odd = strict.ask("/live", x_request_id='"}{').headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", odd)


# ── time ──


def test_a_body_that_does_not_arrive(models: dict[str, Path]) -> None:
    async def ask() -> None:
        found = await service.ask("/v1/classify", FINE, asyncio.Event().wait)
        assert (found.status, found.headers["connection"]) == (408, "close")
        assert found.json["error"]["message"].startswith("the body took longer than 0.05 s")

    with Inside(("one", models["classify"]), limits=Limits(time=0.05)) as service:
        asyncio.run(ask())


def test_a_client_that_leaves_in_the_middle_of_a_body(strict: Service) -> None:
    def refused() -> float:
        lines = strict.ask("/metrics", authorization="Bearer first-key").body.decode().splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.startswith("pocketbert_requests_total") and '"400"' in x)

    before = refused()
    with socket.create_connection(("127.0.0.1", strict.port)) as connection:
        head = b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer first-key\r\n"
        head += b"content-length: 9\r\n\r\n{"
        connection.sendall(head)
    deadline = time.monotonic() + 300
    while refused() == before:  # until it has noticed
        assert time.monotonic() < deadline
    assert ask(strict, "/v1/classify", FINE)[0] == 200


def test_slow_responses_get_503(models: dict[str, Path]) -> None:
    async def ask() -> None:
        held = service.models["one"].queue.predictor = Held(service.models["one"].queue.predictor)
        found = await service.ask("/v1/classify", FINE)
        assert (found.status, found.headers["retry-after"]) == (503, "1")
        assert (await service.ask("/health")).status == 200
        held.go.set()

    with Inside(("one", models["classify"]), limits=Limits(time=0.05)) as service:
        asyncio.run(ask())


def test_too_many_requests_at_a_time(models: dict[str, Path]) -> None:
    async def ask() -> None:
        queue = service.models["one"].queue
        queue.predictor = held = Held(queue.predictor)
        open_ones = [asyncio.create_task(service.ask("/v1/classify", FINE)) for _ in range(2)]
        await asyncio.to_thread(held.busy.wait)
        found = await service.ask("/v1/classify", FINE)
        assert (found.status, found.headers["retry-after"]) == (429, "1")
        assert (await service.ask("/health")).status == 200
        held.go.set()
        assert [one.status for one in await asyncio.gather(*open_ones)] == [200, 200]
        assert (await service.ask("/v1/classify", FINE)).status == 200

    with Inside(("one", models["classify"]), limits=Limits(queue=2)) as service:
        asyncio.run(ask())


def test_clients_that_do_not_go_on_make_room_for_others(models: dict[str, Path]) -> None:
    async def ask() -> None:
        bodies = asyncio.Event()
        stream = asyncio.create_task(service.ask("/v1/classify/lines", FINE, bodies.wait))
        await asyncio.sleep(0)
        silent = []
        for _ in range(3):
            silent.append(asyncio.create_task(service.ask("/v1/classify", FINE, bodies.wait)))
            for _ in range(10):
                await asyncio.sleep(0)
        found = [await service.ask("/v1/classify", FINE) for _ in range(2)]
        assert [one.status for one in found] == [200, 200]
        assert [(await one).status for one in silent[:2]] == [408, 408]  # the second made room for the last request
        with pytest.raises(ClientDisconnect):
            await stream
        bodies.set()
        assert (await silent[2]).status == 200
        assert not service.guard.reading
        assert not service.guard.in_flight

    with Inside(("one", models["classify"]), limits=Limits(queue=2)) as service:
        asyncio.run(ask())


def test_long_expected_wait_is_rejected(models: dict[str, Path]) -> None:
    """A long request is refused, and says when to ask again; a short one goes first."""
    short, long = {"inputs": "film"}, {"inputs": [" ".join(["film"] * 60)] * 50}

    async def ask() -> None:
        queue = service.models["one"].queue
        queue.predictor = held = Held(queue.predictor)
        queue.pace = 0.001  # seconds per token: 62 tokens in each of the 50 texts
        tasks = [asyncio.create_task(service.ask("/v1/classify", short))]
        await asyncio.to_thread(held.busy.wait)
        tasks.append(asyncio.create_task(service.ask("/v1/classify", long)))
        while not queue.waiting:
            await asyncio.sleep(0.001)  # a thread reads the long one's texts
        refused = await service.ask("/v1/classify", long)
        assert (refused.status, refused.headers["retry-after"]) == (429, "3")  # 3.1 s, of which it may wait 0.5
        tasks.append(asyncio.create_task(service.ask("/v1/classify", short)))
        await asyncio.sleep(0)
        held.go.set()
        assert [one.status for one in await asyncio.gather(*tasks)] == [200] * 3

    with Inside(("one", models["classify"])) as service:
        asyncio.run(ask())


def test_overload_is_rejected_before_bodies_are_read(models: dict[str, Path]) -> None:
    """Except streams, which wait for room in the queue."""

    async def unread() -> None:
        raise AssertionError("the body was read")

    async def ask() -> None:
        service.guard.load = loaded(20, seconds=0.15)
        refused = await service.ask("/v1/classify", FINE, unread)
        assert (refused.status, refused.headers["retry-after"]) == (429, "3")  # after 2.5 s there would be room
        assert refused.json["error"]["type"] == "rate_limit_error"
        streamed = await service.ask("/v1/classify", FINE, accept="application/x-ndjson")
        assert (streamed.status, len(streamed.lines)) == (200, 1)
        assert (await service.ask("/v1/models")).status == 200

    with Inside(("one", models["classify"]), limits=Limits(wait=0.5)) as service:
        asyncio.run(ask())


# ── load, on a simulated clock ──


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def entered(load: Admission, tokens: int = 24) -> Ticket:
    ticket = load.enter(100)
    ticket.count(tokens)
    return ticket


def loaded(active: int, seconds: float, limit: float = 0.5, clock: Clock | None = None) -> Admission:
    """With active requests that are completed one by one, each after so many seconds."""
    clock = clock or Clock()
    made = Admission(limit, clock)
    here = deque(entered(made) for _ in range(active))
    for _ in range(100):
        clock.now += seconds
        made.leave(here.popleft())
        here.append(entered(made))
    return made


def test_a_new_request_waits_for_all_active_ones() -> None:
    assert loaded(100, 0.01).excess(100) == pytest.approx(1 - 0.5, rel=0.05)
    assert loaded(20, 0.15).excess(100) == pytest.approx(3 - 0.5, rel=0.1)
    assert loaded(MIN_ACTIVE - 1, 9.0).excess(100) <= 0


def test_time_in_an_unread_socket_counts() -> None:
    load = loaded(20, 0.01)
    assert load.excess(100, waited=0.2) <= 0
    assert load.excess(100, waited=0.4) == pytest.approx(0.1, abs=0.02)


def test_single_requests_predict_nothing_about_many() -> None:
    clock = Clock()
    made = Admission(0.5, clock)
    for _ in range(50):
        ticket = entered(made)
        clock.now += 1
        made.leave(ticket)
    for _ in range(500):
        entered(made)
    assert made.excess(100) <= 0


def test_the_latest_second_counts() -> None:
    clock = Clock()
    made = Admission(0.5, clock)
    here = deque(entered(made) for _ in range(100))
    for seconds in (1.0, 0.01):
        for _ in range(400):
            clock.now += seconds
            made.leave(here.popleft())
            here.append(entered(made))
    assert made.wait == pytest.approx(1, rel=0.05)


def test_work_is_estimated_by_the_tokens_of_earlier_bodies() -> None:
    clock = Clock()
    made = Admission(0.5, clock)
    for _ in range(300):
        ticket = made.enter(1000)
        ticket.count(50)
        clock.now += 0.01
        made.leave(ticket)
    assert made.tokens_per_byte == pytest.approx(0.05)
    before = made.work
    ticket = made.enter(2000)
    assert made.work - before == pytest.approx(116)
    ticket.count(30)
    ticket.count(30)  # in two calls
    assert made.work - before == pytest.approx(76)


@pytest.mark.parametrize("batch", [1, 30])
@pytest.mark.parametrize("seconds", [0.0005, 0.005])
def test_threefold_overload(seconds: float, batch: int) -> None:
    """Fast and slow models: the burst at the start is taken, then nothing waits long and no time is lost."""
    draws, clock, done = random.Random(0), Clock(), 0.0
    made, here, running = Admission(0.5, clock), deque[Ticket](), list[Ticket]()
    latencies, late, refused_at = list[tuple[float, float]](), 0, list[float]()

    def take() -> None:
        nonlocal done, late
        while here and made.debt and clock.now - here[0].arrived > LATE:  # as the queue does
            made.leave(here.popleft())
            late += 1
        running[:] = [here.popleft() for _ in range(min(batch, len(here)))]
        done = clock.now + seconds * len(running)

    arrival = 0.0
    while arrival < 20:
        arrival += draws.expovariate((3 if arrival < 15 else 0.5) / seconds)
        while running and done <= arrival:
            clock.now = done
            for one in running:
                latencies.append((one.arrived, clock.now - one.arrived))
                made.leave(one)
            take()
        clock.now = arrival
        if made.excess(100) <= 0:
            here.append(entered(made))
        else:
            refused_at.append(arrival)
        if not running:
            take()
    assert refused_at[0] > 0.2  # before, nothing was known, or a burst was taken
    assert refused_at[-1] < 16 + batch * seconds  # and it is over when the load is
    assert made.debt == 0
    lasting = [latency for at, latency in latencies if 2 < at < 15]
    assert max(lasting) < LASTING + 0.03 + (batch + MIN_ACTIVE) * seconds
    assert len(lasting) * seconds > 0.95 * 13 - batch * seconds
    assert late < 2 * 0.5 / seconds  # the burst's rest


def test_refused_work_is_a_debt_until_there_is_little_to_do() -> None:
    clock = Clock()
    load = loaded(100, 0.01, clock=clock)
    assert load.excess(100) > 0
    assert 0 < load.debt <= load.limit
    few = Admission(0.5, clock)
    assert few.excess(100, waited=9.0) <= 0  # a service that was stopped for a while, and has nothing to do
    few.debt = 0.1
    assert few.excess(100, waited=9.0) <= 0  # nor in overload: some must be answered
    clock.now += 5
    assert load.excess(100) > 0  # time alone pays nothing
    assert load.debt > 0


# ── refusal before the application ──


def test_refusal_by_the_head_alone(models: dict[str, Path]) -> None:
    scope = {"type": "http", "method": "POST", "path": "/v1/classify", "headers": [(b"content-length", b"9")]}
    with Inside(("one", models["classify"]), limits=Limits(wait=0.5)) as service:
        guard = service.guard
        assert guard.refuse(dict(scope), 0.0) is None
        guard.load = loaded(20, seconds=0.15)
        found = guard.refuse(dict(scope), 0.0)
        assert found is not None
        status, *lines = found[0].split(b"\r\n")
        headers = dict(line.split(b": ") for line in lines)
        assert status == b"HTTP/1.1 429 Too Many Requests"
        assert headers[b"retry-after"] == b"3"
        assert headers[b"content-length"] == b"%d" % len(found[1])
        assert len(headers[b"x-request-id"]) == 32
        assert json.loads(found[1])["error"]["type"] == "rate_limit_error"
        assert guard.refuse({**scope, "headers": [(b"accept", b"application/x-ndjson")]}, 0.0) is None
        assert guard.refuse({**scope, "path": "/v1/classify/lines"}, 0.0) is None
        assert guard.refuse({**scope, "method": "GET"}, 0.0) is None
        guard.draining = True  # then the application says so
        assert guard.refuse(dict(scope), 0.0) is None
        assert b'status="429"' in guard.metrics.text()


# ── shutdown and log ──


def test_accepted_requests_are_completed_before_shutdown(models: dict[str, Path]) -> None:
    with running(models["classify"]) as service:
        kept, begun = service.connect(), service.connect()
        kept.request("GET", "/live")
        kept.getresponse().read()
        begun.putrequest("POST", "/v1/classify")
        begun.putheader("content-type", "application/json")
        begun.putheader("content-length", str(len(json.dumps(FINE))))
        begun.endheaders()
        assert service.ask("/live").status == 200  # the service has seen all that came before
        service.process.send_signal(signal.SIGTERM)
        while service.ask("/ready").status == 200:
            time.sleep(0.01)
        try:
            kept.request("POST", "/v1/classify", json.dumps(FINE), {"content-type": "application/json"})
            refused = kept.getresponse()
            assert (refused.status, refused.getheader("connection")) == (503, "close")
            assert refused.getheader("retry-after") == "1"
        except http.client.RemoteDisconnected:
            pytest.fail("a connection was cut")
        finally:
            kept.close()
        begun.send(json.dumps(FINE).encode())
        assert begun.getresponse().status == 200
        begun.close()
        assert service.process.wait(300) == 0


def test_logs_contain_no_texts(models: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        await service.ask("/v1/classify", {"inputs": f"film {SECRET}"}, x_request_id="mine")
        await service.ask("/v1/classify", {"inputs": SECRET, SECRET: 1})
        await service.ask(f"/{SECRET}")
        await service.ask("/health")

    with Inside(("one", models["classify"])) as service, caplog.at_level("INFO"):
        asyncio.run(ask())
    assert SECRET not in caplog.text
    lines = [json.loads(one.message) for one in caplog.records if one.name == "pocketbert.serve.requests"]
    assert [one["status"] for one in lines] == [200, 422, 404]
    assert {"request": "mine", "route": "/v1/classify", "texts": 1}.items() <= lines[0].items()
    assert lines[0]["tokens"] > 3


def test_spans(models: dict[str, Path]) -> None:
    """OpenTelemetry's SDK sees each answer, without its texts."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    seen, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    trace.set_tracer_provider(provider)
    with Inside(("one", models["classify"])) as service:
        asyncio.run(service.ask("/v1/classify", {"inputs": SECRET}, traceparent=f"00-{7:032x}-{8:016x}-01"))
    [span] = [one for one in seen.get_finished_spans() if one.name == "pocketbert.answer"]
    assert span.attributes is not None
    assert span.attributes["pocketbert.texts"] == 1
    assert span.context is not None
    assert span.parent is not None
    assert (span.context.trace_id, span.parent.span_id) == (7, 8)  # those of the caller
    assert not [one for one in seen.get_finished_spans() if SECRET in one.to_json()]


# ── settings that cannot be served ──


def test_names() -> None:
    assert named(("a/b", "c=d/e", "./x=y/z")) == (("b", "a/b"), ("c", "d/e"), ("z", "./x=y/z"))
    with pytest.raises(ConfigError, match="two models are called 'b'"):
        named(("a/b", "c/b"))
    with pytest.raises(ConfigError, match="cannot be part of a URL"):
        named(("a b=c",))


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("workers", 257), ("port", -1), ("port", 65536)])
def test_settings_out_of_range(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"--{name} {value} must lie in"):
        replace(Settings((("one", "unread"),)), **cast(Any, {name: value}))


@pytest.mark.parametrize("limit", [one.name for one in fields(Limits)])
def test_limits_must_be_positive(limit: str) -> None:
    with pytest.raises(ConfigError, match="0 must be positive"):
        replace(Limits(), **cast(Any, {limit: 0}))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use(service: Service, workers: int) -> None:
    settings = Settings((("one", "unread"),), port=service.port, workers=workers)
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {service.port}: "):
        server.serve(settings, print)


def test_a_missing_model(models: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="no-such-model"):
        load_app(Settings((("one", str(models["tag"])), ("two", "./no-such-model"))))


def test_a_model_without_a_task(tmp_path: Path) -> None:
    BertConfig(extra={"architectures": ["BertForNextSentencePrediction"]}).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has the head ForNextSentencePrediction, which no task uses; served are"):
        load_app(Settings((("one", str(tmp_path)),)))


def test_a_worker_that_does_not_start(tmp_path: Path) -> None:
    """Its own error comes before; the others end with it."""
    command = [sys.executable, "-m", "pocketbert.cli", "serve", tmp_path, "--port", "0", "--workers", "2"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert f"{tmp_path} has no config.json" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: a worker did not start: its error is above"


def test_connection_limit() -> None:
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before, 200), most))
        server._raise_connection_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_compute_threads_have_lower_priority(service: Service) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    tasks = Path(f"/proc/{service.process.pid}/task")
    niceness = {int(one.name): os.getpriority(os.PRIO_PROCESS, int(one.name)) for one in tasks.iterdir()}
    assert niceness[service.process.pid] == ours  # the event loop
    assert min(19, ours + 10) in niceness.values()
