"""What the service refuses, how it says so, and how it ends."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketbert.errors import ConfigError
from pocketbert.serve.settings import named, read_keys

from .conftest import Service, running

SECRET = "unrepeatable"
FINE = {"inputs": "the film is great"}


@pytest.fixture(scope="module")
def strict(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that allows little."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text("# ours\nfirst-key\n\nsecond-key\n")
    limits: list[str | Path] = ["--max-body", "2000", "--max-texts", "4", "--max-tokens", "100", "--max-time", "1"]
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
    assert "are allowed" in json.dumps(found)


def test_too_many_gaps(strict: Service) -> None:
    status, _, found = ask(strict, "/v1/fill-mask", {"inputs": "[MASK] " * 40})
    assert (status, found["error"]["message"]) == (422, "input 0: it has more than 32 gaps")


def test_over_long_texts_are_cut_or_refused(strict: Service) -> None:
    long = {"inputs": "the film is great " * 20}
    status, _, found = ask(strict, "/v1/classify", long)
    assert (status, found["usage"]) == (200, {"tokens": 64, "truncated": [0]})
    status, _, found = ask(strict, "/v1/classify", {**long, "truncate": False})
    assert (status, found["error"]["message"]) == (422, "input 0: it is longer than the 64 tokens that nli reads")


# ── sense ──


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, ""),
        (b"", 422, "required"),
        (b"[" * 1900, 400, ""),
        (b"7", 422, "valid dictionary"),
        ({"inputs": 7}, 422, "inputs"),
        ({"inputs": ["a", 7]}, 422, "inputs"),
        ({"inputs": "a", "top_k": 0}, 422, "top_k"),
        ({"inputs": "a", "topk": 1}, 422, "topk"),
        ({"inputs": "a", "model": "other"}, 404, "GET /v1/models"),
        ({"inputs": "a", "model": "fill"}, 422, "fill is a model for fill-mask"),
        (b'{"inputs": "\\ud800"}', 422, "half a character"),
        ({"inputs": "a", "labels": ["b"], "template": "no place"}, 422, "{}"),
    ],
)
def test_what_makes_no_sense(strict: Service, body: Any, status: int, told: str) -> None:
    found, _, answer = ask(strict, "/v1/classify", body)
    assert found == status
    assert told in answer["error"]["message"]
    assert answer["error"].keys() == {"message", "type", "code", "param"}


def test_what_fuzzing_found(service: Service) -> None:
    half = b'{"inputs": "a [MASK]", "targets": ["film", "\\ud800"]}'
    assert "half a character" in service.ask("/v1/fill-mask", half).json["error"]["message"]
    long = {"inputs": "a", "model": "nli", "labels": ["film " * 80, "b"]}
    assert service.ask("/v1/classify", long).status == 422


def test_bodies_that_make_no_sense(service: Service) -> None:
    script = Path(__file__).parents[2] / "scripts" / "fuzz_service"
    command = [sys.executable, str(script), "--url", service.url, "--inputs", "500", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no 5xx" in done.stdout


def test_errors_do_not_repeat_what_was_sent(strict: Service) -> None:
    for body in ({"inputs": {SECRET: SECRET}}, {"inputs": [SECRET, 7]}, {SECRET: 1}, f'"{SECRET}'.encode()):
        found = strict.ask("/v1/classify", body, authorization="Bearer first-key")
        assert found.status in (400, 422)
        assert found.body.count(SECRET.encode()) <= (SECRET in dict(body if isinstance(body, dict) else {}))


def test_other_clients_read_other_errors(strict: Service) -> None:
    assert ask(strict, "/predict", {"inputs": 7})[2].keys() == {"error", "error_type"}
    assert ask(strict, "/nowhere")[2] == {"error": "Not Found", "error_type": "not_found_error"}
    assert ask(strict, "/models/nli", {"inputs": "a", "parameters": {"top_k": 1, "targets": ["b"]}})[0] == 422
    assert ask(strict, "/models/nli", {"inputs": {"question": "a", "context": "b"}})[0] == 422
    assert ask(strict, "/v1/classify")[0] == 405


# ── who ──


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer third-key", "first-key", "Basic first-key", "Bearer first"])
def test_without_a_key_there_is_no_answer(strict: Service, given: str) -> None:
    found = strict.ask("/v1/classify", FINE, authorization=given)
    assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
    assert strict.ask("/metrics", authorization=given).status == 401


def test_every_key_opens_and_some_doors_have_no_lock(strict: Service) -> None:
    assert ask(strict, "/v1/classify", FINE)[0] == 200
    assert ask(strict, "/v1/classify", FINE, authorization="bearer second-key")[0] == 200
    assert [strict.ask(path).status for path in ("/", "/health", "/live", "/ready")] == [200] * 4


def test_keys_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETBERT_API_KEYS", " a, b ,,")
    assert read_keys(None) == ("a", "b")
    monkeypatch.delenv("POCKETBERT_API_KEYS")
    assert read_keys(None) == ()
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(ConfigError, match="no API key"):
        read_keys(tmp_path / "keys")


def test_cors_only_for_whom_it_was_asked(strict: Service, service: Service) -> None:
    preflight = {"origin": "https://pages.example", "access_control_request_method": "POST"}
    found = strict.ask("/v1/classify", method="OPTIONS", **preflight)
    assert found.headers["access-control-allow-origin"] == "https://pages.example"
    other = strict.ask("/v1/classify", FINE, authorization="Bearer first-key", origin="https://evil.example")
    assert "access-control-allow-origin" not in other.headers
    assert not [h for h in service.ask("/v1/classify", FINE, origin="https://a.example").headers if "access" in h]


def test_nothing_says_what_runs_here(strict: Service) -> None:
    for path in ("/", "/nowhere", "/v1/models", "/info", "/openapi.json", "/metrics"):
        found = strict.ask(path, authorization="Bearer first-key")
        everything = " ".join([*found.headers, *found.headers.values()]) + found.body.decode()
        assert not re.search(r"uvicorn|python/|fastapi|/pytest-|/home/|0\.1\.0", everything, re.IGNORECASE), path


def test_request_ids(strict: Service) -> None:
    assert strict.ask("/live", x_request_id="mine-7").headers["x-request-id"] == "mine-7"
    odd = strict.ask("/live", x_request_id='"}{').headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", odd)


# ── time ──


def test_a_body_that_does_not_come(strict: Service) -> None:
    with socket.create_connection(("127.0.0.1", strict.port)) as connection:
        head = b"POST /v1/classify HTTP/1.1\r\nhost: a\r\nauthorization: Bearer first-key\r\ncontent-length: 9\r\n\r\n{"
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_what_takes_too_long_gets_503(models: dict[str, Path]) -> None:
    with running(models["classify"], "--max-time", "0.01", "--max-wait", "100") as service:
        body = {"inputs": [" ".join(["film"] * 60)] * 1000}
        found = service.ask("/v1/classify", body)
        assert found.status == 503
        assert int(found.headers["retry-after"]) >= 1
        assert service.ask("/health").status == 200


def test_too_many_requests_at_a_time(models: dict[str, Path]) -> None:
    with running(models["classify"], "--max-queue", "2") as service:
        open_ones = [service.connect() for _ in range(2)]
        for one in open_ones:  # their bodies do not come yet
            one.putrequest("POST", "/v1/classify")
            one.putheader("content-type", "application/json")
            one.putheader("content-length", str(len(json.dumps(FINE))))
            one.endheaders()
        time.sleep(0.2)
        found = service.ask("/v1/classify", FINE)
        assert (found.status, found.headers["retry-after"]) == (429, "1")
        assert service.ask("/health").status == 200
        for one in open_ones:
            one.send(json.dumps(FINE).encode())
            assert one.getresponse().status == 200
            one.close()
        assert service.ask("/v1/classify", FINE).status == 200


def test_a_queue_that_is_too_long(models: dict[str, Path]) -> None:
    with running(models["classify"], "--max-wait", "0.01", "--max-time", "300") as service:
        body = {"inputs": [" ".join(["film"] * 60)] * 1000}
        replies = []
        threads = [threading.Thread(target=lambda: replies.append(service.ask("/v1/classify", body))) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert {one.status for one in replies} == {200, 429}
        assert all("retry-after" in one.headers for one in replies if one.status == 429)


# ── the end, and the log ──


def test_what_was_accepted_is_answered_before_the_end(models: dict[str, Path]) -> None:
    with running(models["classify"], "--max-wait", "100", "--max-time", "300") as service:
        kept = service.connect()  # a connection that stays
        kept.request("GET", "/live")
        kept.getresponse().read()
        long = {"inputs": [" ".join(["film"] * 60)] * 1000}
        replies = []
        thread = threading.Thread(target=lambda: replies.append(service.ask("/v1/classify", long)))
        thread.start()
        time.sleep(0.1)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.15)
        try:
            kept.request("POST", "/v1/classify", json.dumps(FINE), {"content-type": "application/json"})
            refused = kept.getresponse()
            assert (refused.status, refused.getheader("connection")) == (503, "close")
            assert refused.getheader("retry-after") == "1"
        except http.client.RemoteDisconnected:
            pytest.fail("a connection was cut")
        finally:
            kept.close()
        thread.join()
        assert [one.status for one in replies] == [200]
        assert service.process.wait(30) == 0


def test_logs_have_everything_but_texts(models: dict[str, Path]) -> None:
    with running(models["classify"]) as service:
        service.ask(f"/v1/classify?q={SECRET}", {"inputs": f"film {SECRET}"}, x_request_id="mine")
        service.ask("/v1/classify", {"inputs": SECRET, SECRET: 1})
        service.ask(f"/{SECRET}")
        service.ask("/health")
        written = service.end()
    assert SECRET not in written
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    assert [one["status"] for one in lines] == [200, 422, 404]
    assert {"request": "mine", "route": "/v1/classify", "texts": 1}.items() <= lines[0].items()
    assert lines[0]["tokens"] > 3


def test_spans() -> None:
    """OpenTelemetry's SDK sees each answer, without its texts."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    import asyncio

    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from pocketbert.pipelines import BUNDLED
    from pocketbert.serve.app import load_app
    from pocketbert.serve.settings import Settings

    seen, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    trace.set_tracer_provider(provider)
    gate = load_app(Settings((("sst2", str(BUNDLED / "sst2")),), log=False))
    body = json.dumps({"inputs": SECRET}).encode()
    scope = {
        "type": "http", "method": "POST", "path": "/v1/classify", "raw_path": b"/v1/classify", "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"traceparent", f"00-{7:032x}-{8:016x}-01".encode())],
        "scheme": "http", "http_version": "1.1", "root_path": "",
        "client": None, "server": None,
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        pass

    asyncio.run(gate(scope, receive, send))
    [span] = [one for one in seen.get_finished_spans() if one.name == "pocketbert.answer"]
    assert span.attributes is not None
    assert span.attributes["pocketbert.texts"] == 1
    assert span.context is not None
    assert span.parent is not None
    assert (span.context.trace_id, span.parent.span_id) == (7, 8)  # those of whoever asked
    assert not [one for one in seen.get_finished_spans() if SECRET in one.to_json()]
    gate.metrics.models.worker.stop()


# ── what cannot be served ──


def test_names() -> None:
    assert named(("a/b", "c=d/e", "./x=y/z")) == (("b", "a/b"), ("c", "d/e"), ("z", "./x=y/z"))
    with pytest.raises(ConfigError, match="two models are called 'b'"):
        named(("a/b", "c/b"))
    with pytest.raises(ConfigError, match="cannot be called"):
        named(("a b=c",))


def test_a_port_in_use_and_a_missing_model(service: Service) -> None:
    from cli.conftest import shell

    from .conftest import COMMAND

    taken = shell("serve", "--port", str(service.port), command=COMMAND[:3])
    assert taken.error.startswith(f"cannot listen on 127.0.0.1 port {service.port}: ")
    assert "no-such-model" in shell("serve", "./no-such-model", "--port", "0", command=COMMAND[:3]).error
