"""Responses of all routes, over a socket."""

import asyncio
import json
import math
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from helpers.service import Service, running
from pocketbert import AutoModelForPreTraining, AutoTokenizer
from pocketbert.errors import ConfigError
from pocketbert.pipelines import FillMask, pipeline
from pocketbert.serve.batching import TOKENS
from pocketbert.serve.models import Predictions
from pocketbert.serve.server import _listener
from pocketbert.serve.service import run_model

TEXT = "marie curie was born in warsaw ."


def close(found: Any, wanted: Any) -> bool:
    """The same, down to the last bit of every number: JSON keeps them."""
    return bool(json.loads(json.dumps(wanted)) == found)


# ── /v1 ──


def test_classify_equals_the_pipeline(service: Service) -> None:
    texts = ["the film is great", "dull", "", "the " * 3000]
    found = service.ask("/v1/classify", {"inputs": texts}).json
    assert found["model"] == "sentiment"
    assert close(found["results"], pipeline("text-classification", top_k=None)(texts))
    assert found["usage"]["truncated"] == [3]
    assert found["usage"]["tokens"] > 512
    assert found["milliseconds"].keys() == {"wait", "compute"}


def test_long_texts(service: Service, models: dict[str, Path]) -> None:
    long, short = "the film is great " * 60, "the film"
    classify = pipeline("text-classification", models["nli"], top_k=None)
    reply = service.ask("/v1/classify", {"inputs": [long, short], "model": "nli"})
    assert (reply.json["usage"]["truncated"], reply.headers["x-truncated"]) == ([0], "1")
    reply = service.ask("/v1/classify", {"inputs": [long, short], "model": "nli", "windows": True})
    assert close(reply.json["results"], classify([long, short], windows=True))
    assert (reply.json["usage"]["truncated"], "x-truncated" in reply.headers) == ([], False)
    options = {"pooling": "declared", "normalize": True, "windows": True}
    embedded = service.ask("/v1/embed", {"inputs": long, "windows": True}).json["results"]
    assert close(embedded, [pipeline("feature-extraction", models["embed"])(long, **options)])
    for path in ("/embed", "/tokenize?", "/v1/embeddings"):
        body = {"input" if "v1" in path else "inputs": [long, long], "model": "embed"}
        assert service.ask(path.rstrip("?"), body).headers["x-truncated"] == "2"
    lines = service.ask("/v1/embed/lines", json.dumps(short).encode() + b"\n" + json.dumps(long).encode()).lines
    assert [line.get("truncated") for line in lines] == [None, True]


def test_tags_of_long_texts(service: Service, models: dict[str, Path]) -> None:
    long = "marie curie was born in warsaw . " * 60
    tag = pipeline("token-classification", models["tag"], aggregation_strategy="first")
    expected = tag(long)
    assert expected[-1]["end"] > len(long) - 40
    reply = service.ask("/v1/tag", {"inputs": long, "truncate": False}).json
    assert [one["start"] for one in reply["results"][0]] == [one["start"] for one in expected]
    assert reply["usage"]["truncated"] == []
    found = service.ask("/models/tag", {"inputs": long, "parameters": {"stride": 20}}).json
    assert close(found, tag(long, aggregation_strategy="simple", stride=20))


def test_one_input_gives_one_result(service: Service) -> None:
    assert len(service.ask("/v1/classify", {"inputs": "dull", "top_k": 1}).json["results"]) == 1
    assert service.ask("/v1/classify", {"inputs": []}).json["results"] == []


def test_pairs(service: Service, models: dict[str, Path]) -> None:
    pair = {"text": "the film is great", "text_pair": "dull"}
    found = service.ask("/v1/classify", {"inputs": pair, "model": "nli", "top_k": 2}).json
    assert close(found["results"], [pipeline("text-classification", models["nli"], top_k=2)(pair)])


def test_labels_of_your_own(service: Service, models: dict[str, Path]) -> None:
    body = {"inputs": TEXT, "model": "nli", "labels": ["film", "poland"], "multi_label": True}
    [found] = service.ask("/v1/classify", body).json["results"]
    wanted = pipeline("zero-shot-classification", models["nli"])(TEXT, ["film", "poland"], multi_label=True)
    assert [one["label"] for one in found] == wanted["labels"]
    assert [one["score"] for one in found] == wanted["scores"]


def test_tag(service: Service, models: dict[str, Path]) -> None:
    [found] = service.ask("/v1/tag", {"inputs": TEXT, "aggregation": "simple"}).json["results"]
    wanted = pipeline("token-classification", models["tag"], aggregation_strategy="simple")(TEXT)
    assert [(one["label"], one["score"], one["start"]) for one in found] == [
        (one["entity_group"], one["score"], one["start"]) for one in wanted
    ]
    assert all(one["text"] == TEXT[one["start"] : one["end"]] for one in found)


def test_answer(service: Service, models: dict[str, Path]) -> None:
    asked = {"question": "who was born ?", "context": "the film is dull . " * 50 + TEXT}
    found = service.ask("/v1/answer", {"inputs": [asked, asked], "top_k": 3, "allow_empty": True}).json["results"]
    pipe = pipeline("question-answering", models["answer"])
    assert close(found, [pipe(asked, top_k=3, handle_impossible_answer=True)] * 2)
    assert close(service.ask("/v1/answer", {"inputs": asked}).json["results"], [[pipe(asked)]])


def test_fill_mask(service: Service, models: dict[str, Path]) -> None:
    pipe = pipeline("fill-mask", models["fill-mask"])
    for text, gaps in (("the [MASK] is great", 1), ("the [MASK] is [MASK]", 2)):
        [found] = service.ask("/v1/fill-mask", {"inputs": text, "top_k": 4}).json["results"]
        wanted = pipe(text, top_k=4)
        wanted = wanted if gaps == 2 else [wanted]
        assert [[(o["id"], o["score"], o["token"], o["sequence"]) for o in gap] for gap in found] == [
            [(o["token"], o["score"], o["token_str"], o["sequence"]) for o in gap] for gap in wanted
        ]
    body = {"inputs": "a [MASK]", "targets": ["film", "warsaw"]}
    [[found]] = service.ask("/v1/fill-mask", body).json["results"]
    assert {one["token"] for one in found} == {"film", "warsaw"}


def test_choose(service: Service, models: dict[str, Path]) -> None:
    asked = {"prompt": "the film is", "choices": ["great", "dull", "warsaw"]}
    [found] = service.ask("/v1/choose", {"inputs": asked}).json["results"]
    assert close(found, pipeline("multiple-choice", models["choose"])(asked))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_embed(service: Service, models: dict[str, Path], pooling: str, normalize: bool) -> None:
    body = {"inputs": [TEXT, "dull"], "pooling": pooling, "normalize": normalize}
    found = service.ask("/v1/embed", body).json["results"]
    pipe = pipeline("feature-extraction", models["embed"])
    assert close(found, pipe([TEXT, "dull"], pooling=pooling, normalize=normalize))


def test_a_pretrained_model_fills_gaps(models: dict[str, Path], tmp_path: Path) -> None:
    from pocketbert.serve.models import load

    AutoModelForPreTraining.from_pretrained(models["fill-mask"]).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(models["fill-mask"]).save_pretrained(tmp_path)
    filling = load(str(tmp_path), 1)
    assert isinstance(filling, FillMask)
    gap = ["the film is [MASK]"]
    assert close(filling(gap), pipeline("fill-mask", models["fill-mask"])(gap))


# ── lines ──


def test_results_as_lines(service: Service) -> None:
    texts = [f"the film is {word}" for word in ("great", "dull") for _ in range(100)]
    found = service.ask("/v1/classify", {"inputs": texts, "top_k": 1}, accept="application/x-ndjson")
    assert found.headers["content-type"].startswith("application/x-ndjson")
    whole = service.ask("/v1/classify", {"inputs": texts, "top_k": 1}).json["results"]
    assert found.lines == [{"index": i, "result": one} for i, one in enumerate(whole)]


def test_invalid_lines_get_errors(service: Service) -> None:
    lines = [b'"the film is great"', b"", b"no json", b"7", b'{"text": "a", "text_pair": "b"}', b'"dull"']
    found = service.ask("/v1/classify/lines?top_k=1", b"\n".join(lines)).lines
    assert [one["index"] for one in found] == [0, 1, 2, 3, 4]
    assert ["result" in one for one in found] == [True, False, False, True, True]
    assert found[1]["error"] == "the line is not JSON"


def test_lines_stream_both_ways(service: Service) -> None:
    """The first result arrives before the second line is sent; a stream may exceed the limits of a request."""
    connection = service.connect()
    connection.putrequest("POST", "/v1/fill-mask/lines?top_k=1&targets=%5B%22film%22%5D")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()

    def send(data: bytes) -> None:
        connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    send(b'"the [MASK] is great"\n')
    answer = connection.getresponse()
    assert json.loads(answer.readline())["result"][0][0]["token"] == "film"
    send(b'"no gap"\n' + b'"a [MASK]"\n' * 400)
    send(b"")
    rest = [json.loads(line) for line in answer.read().splitlines()]
    connection.close()
    assert [one["index"] for one in rest] == list(range(1, 402))
    assert "no [MASK]" in rest[0]["error"]
    assert all("result" in one for one in rest[1:])


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/dance/lines", 404), ("/v1/tag/lines?top_k=3", 422), ("/v1/tag/lines?model=no", 404)]
)
def test_invalid_streams_are_rejected_at_once(service: Service, path: str, status: int) -> None:
    assert service.ask(path, b'"a"\n').status == status


# ── other APIs ──


def test_predict(service: Service) -> None:
    one = service.ask("/predict", {"inputs": "the film is great"}).json
    assert close(one, pipeline("text-classification")("the film is great", top_k=None))
    raw = service.ask("/predict", {"inputs": [["dull"], ["the film is great"]], "raw_scores": True}).json
    assert [len(labels) for labels in raw] == [3, 3]
    assert math.exp(raw[1][0]["score"] - raw[1][1]["score"]) == pytest.approx(one[0]["score"] / one[1]["score"])
    mixed = service.ask("/predict", {"inputs": [["a", "b"], ["a"]], "model": "nli"}).json
    assert mixed[0] == service.ask("/predict", {"inputs": ["a", "b"], "model": "nli"}).json
    assert mixed[1] == service.ask("/predict", {"inputs": "a", "model": "nli"}).json


def test_inputs_of_another_task_are_refused(service: Service) -> None:
    found = service.ask("/models/answer", {"inputs": ["a"]})
    assert (found.status, "must be objects with context and question" in found.body.decode()) == (422, True)
    found = service.ask("/models/sentiment", {"inputs": {"context": "a", "question": "b"}})
    assert (found.status, "must be texts" in found.body.decode()) == (422, True)


def test_the_cost_of_a_request_in_milliseconds() -> None:
    class Timed:
        name, task = "timed", "text-classification"

        async def predict(self, inputs: list[str]) -> Predictions:
            return Predictions([[] for _ in inputs], 7, [], wait=1.23456, compute=10.0)

    scope: dict[str, Any] = {"usage": {"texts": 1}}
    state = SimpleNamespace(service=SimpleNamespace(settings=SimpleNamespace(limits=SimpleNamespace(time=60))))
    request = SimpleNamespace(app=SimpleNamespace(state=state), headers={}, scope=scope)
    asyncio.run(run_model(cast(Any, request), cast(Any, Timed()), ["a", "b"]))
    assert scope["usage"] == {"model": "timed", "texts": 3, "tokens": 7, "wait_ms": 1234.56, "compute_ms": 10_000.0}


def test_embed_info_and_tokenize(service: Service) -> None:
    vectors = service.ask("/embed", {"inputs": [TEXT, "dull"]}).json
    assert [np.linalg.norm(one) for one in vectors] == pytest.approx([1, 1])
    assert service.ask("/embed", {"inputs": TEXT}).json == vectors[:1]
    info = service.ask("/info").json
    assert info["model_type"]["classifier"]["id2label"] == {"0": "negative", "1": "neutral", "2": "positive"}
    assert info["max_input_length"] == 512
    assert info["model_dtype"] == "int8"
    [tokens] = service.ask("/tokenize", {"inputs": TEXT, "model": "tag"}).json
    assert [one["text"] for one in tokens] == ["[CLS]", *TEXT.split(), "[SEP]"]
    assert [TEXT[one["start"] : one["stop"]] for one in tokens[1:-1]] == TEXT.split()


def test_no_texts_to_embed(service: Service) -> None:
    found = service.ask("/v1/embeddings", {"model": "embed", "input": []})
    assert found.status == 422
    assert found.json["error"]["message"] == "input is empty: give at least one text"
    assert found.json["error"]["param"] == "input"


def test_models(service: Service) -> None:
    found = service.ask("/v1/models").json["data"]
    assert [one["id"] for one in found][:2] == ["sentiment", "classify"]
    assert service.ask("/v1/models/tag").json["task"] == "token-classification"


def test_health_and_metrics(service: Service) -> None:
    assert [service.ask(path).status for path in ("/live", "/ready", "/health", "/ping")] == [200] * 4
    service.ask("/v1/classify", {"inputs": "dull"})
    text = service.ask("/metrics").body.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['pocketbert_requests_total{route="/v1/classify",status="200"}']) >= 1
    assert float(values['pocketbert_tokens_total{model="sentiment"}']) > 0
    assert float(values['pocketbert_batch_fill_count{model="sentiment"}']) > 0
    fill = float(values['pocketbert_batch_fill_sum{model="sentiment"}'])
    budget = float(values['pocketbert_tokens_total{model="sentiment"}']) / fill  # tokens of a batch
    assert budget == pytest.approx(TOKENS * round(budget / TOKENS))
    limits = [float(limit) for limit in re.findall(r'batch_fill_bucket\{le="([\d.]+)",model="sentiment"\}', text)]
    assert sorted(set(limits)) == limits
    assert float(values['pocketbert_queue_tokens{model="sentiment"}']) == 0
    assert float(values["pocketbert_memory_bytes"]) > 1e7


def test_openapi(service: Service) -> None:
    paths = service.ask("/openapi.json").json["paths"]
    assert {f"/v1/{name}" for name in ("classify", "tag", "answer", "fill-mask", "choose", "embed")} <= paths.keys()
    asked = paths["/v1/classify"]["post"]
    forms = asked["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    assert [form["$ref"].rsplit("/", 1)[1] for form in forms] == ["ClassifyRequest", "VllmClassifyRequest"]
    assert {"200", "413", "422", "429", "503"} <= asked["responses"].keys()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_workers_end_with_their_supervisor(models: dict[str, Path]) -> None:
    service = Service(models["tag"], "--workers", "2", "--no-log")
    try:
        assert service.ask("/live").status == 200
        service.process.kill()
        service.process.wait()
        deadline = time.monotonic() + 300
        while True:
            try:
                _listener("127.0.0.1", service.port, shared=False).close()
                break
            except ConfigError:  # a worker still has the port
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        service.end()


def test_several_workers_count_together(models: dict[str, Path]) -> None:
    with running(models["tag"], "--workers", "2", "--max-queue", "7", "--no-log") as service:
        info = service.ask("/info").json
        assert (info["model_dtype"], info["max_concurrent_requests"]) == ("float32", 14)
        for _ in range(12):
            assert service.ask("/v1/tag", {"inputs": TEXT}).status == 200
        # A worker counts a request after its response, when the other may already report: so wait for the last one.
        count, deadline = 'pocketbert_requests_total{route="/v1/tag",status="200"} 12.0', time.monotonic() + 300
        while count not in service.ask("/metrics").body.decode():
            assert time.monotonic() < deadline
        kept = service.connect()
        kept.request("GET", "/live")
        kept.getresponse().read()
    kept.close()
    assert service.process.returncode == 0
    _listener("127.0.0.1", service.port, shared=True).close()  # the next can have the port, though it was just left
