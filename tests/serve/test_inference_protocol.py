"""The Open Inference Protocol: the results of /v1 in tensors, and one error in its form for what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.service import Service
from pocketbert.pipelines import pipeline

TEXTS = ["the film is great", "marie curie was born in warsaw ."]


def tensor(name: str, data: list[Any], shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(data)], "datatype": "BYTES", "data": data, **more}


def infer(service: Service, model: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The outputs by name, as lists of rows; the shapes are checked."""
    reply = service.ask(f"/v2/models/{model}/infer", {"inputs": list(inputs), **more})
    assert reply.status == 200, reply.body
    assert reply.json["model_name"] == model
    described = {one["name"]: one for one in service.ask(f"/v2/models/{model}").json["outputs"]}
    outputs = {}
    for output in reply.json["outputs"]:
        rows, *rest = output["shape"]
        assert output["datatype"] == described[output["name"]]["datatype"]
        assert len(output["shape"]) == len(described[output["name"]]["shape"])
        assert len(output["data"]) == rows * (rest[0] if rest else 1)
        width = len(output["data"]) // rows
        outputs[output["name"]] = [output["data"][row * width : (row + 1) * width] for row in range(rows)]
    return outputs


def test_classify(service: Service, models: dict[str, Path]) -> None:
    expected = pipeline("text-classification", models["nli"], top_k=None)(TEXTS)
    for inputs in (tensor("text", TEXTS), tensor("input-0", [[text] for text in TEXTS], [2, 1])):
        found = infer(service, "nli", inputs)
        assert found["label"] == [[one["label"] for one in row] for row in expected]
        assert found["score"] == [[one["score"] for one in row] for row in expected]
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    best = pipeline("text-classification", models["nli"])(pair)
    one = infer(
        service, "nli", tensor("text_pair", TEXTS[1:]), tensor("text", TEXTS[:1]), parameters={"top_k": 1},
        outputs=[{"name": "score"}],
    )  # fmt: skip
    assert one == {"score": [[best["score"]]]}
    own = infer(service, "nli", tensor("text", TEXTS), parameters={"labels": ["film", "poland"]})
    assert sorted(own["label"][0]) == ["film", "poland"]


def test_other_tasks(service: Service, models: dict[str, Path]) -> None:
    def of_v1(path: str, body: dict[str, Any]) -> Any:
        return service.ask(f"/v1/{path}", body).json["results"]

    found = infer(service, "embed", tensor("text", TEXTS), parameters={"normalize": False})
    assert found["embedding"] == of_v1("embed", {"inputs": TEXTS, "normalize": False})
    found = infer(service, "tag", tensor("text", TEXTS))
    assert [json.loads(text) for [text] in found["entities"]] == of_v1("tag", {"inputs": TEXTS})
    asked = [{"question": "who ?", "context": text} for text in TEXTS]
    found = infer(service, "answer", tensor("question", ["who ?"] * 2), tensor("context", TEXTS))
    assert [
        [{name: found[name][row][0] for name in ("score", "start", "end", "answer")}] for row in range(2)
    ] == of_v1("answer", {"inputs": asked})  # fmt: skip
    masked = ["the [MASK] is great", "[MASK] was born in [MASK]"]
    found = infer(service, "fill-mask", tensor("text", masked), parameters={"top_k": 2})
    assert [json.loads(text) for [text] in found["masks"]] == of_v1("fill-mask", {"inputs": masked, "top_k": 2})
    choices = [["great", "dull"], ["in warsaw", "in paris"]]
    for data in (choices, [one for row in choices for one in row]):
        found = infer(service, "choose", tensor("prompt", TEXTS), tensor("choices", data, [2, 2]))
        [first, _] = of_v1("choose", {"inputs": [{"prompt": TEXTS[0], "choices": choices[0]}] * 2})
        assert found["choice"][0] == [one["choice"] for one in first]
        assert found["index"][0] == [one["index"] for one in first]
        assert found["score"][0] == [one["score"] for one in first]


def test_health_and_metadata(service: Service) -> None:
    assert service.ask("/v2/health/live").json == {"live": True}
    assert service.ask("/v2/health/ready").json == {"ready": True}
    assert service.ask("/v2").json == {"name": "pocketbert", "version": "1", "extensions": []}
    found = service.ask("/v2/models/answer").json
    assert found["inputs"] == [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("question", "context")]
    assert {one["name"] for one in found["outputs"]} == {"answer", "score", "start", "end"}
    assert service.ask("/v2/models/answer/ready").json == {"name": "answer", "ready": True}
    for path, body in (("1", None), ("1/ready", None), ("1/infer", {"inputs": [FINE]})):
        reply = service.ask(f"/v2/models/answer/versions/{path}", body)
        assert reply.status == 404
        assert reply.json["error"].startswith("models have no versions here")
    reply = service.ask("/v2/models/nli/infer", {"id": "seven", "inputs": [tensor("text", TEXTS)]})
    assert reply.json["id"] == "seven"


FINE = tensor("text", TEXTS)


@pytest.mark.parametrize(
    ("model", "body", "status", "message"),
    [
        ("nowhere", {"inputs": [FINE]}, 404, "no model of that name"),
        ("nli", {"inputs": []}, 422, "inputs needs at least 1"),
        ("nli", {}, 422, "inputs is missing"),
        ("nli", {"inputs": [FINE], "more": 1}, 422, "more is not a known field"),
        ("nli", {"inputs": [{**FINE, "datatype": "FP32"}]}, 422, "datatype must be BYTES"),
        ("nli", {"inputs": [{**FINE, "data": [1, 2]}]}, 422, "inputs.0.data"),
        ("nli", {"inputs": [{**FINE, "shape": [3]}]}, 422, "data must have the shape of the tensor: 3 × 1 texts"),
        ("nli", {"inputs": [{**FINE, "shape": [1, 2]}]}, 422, "shape must be [N] or [N, 1]"),
        ("nli", {"inputs": [{**FINE, "shape": [0]}]}, 422, "inputs.0.shape.0 must be at least 1"),
        ("nli", {"inputs": [{**FINE, "shape": [1, 1, 2]}]}, 422, "inputs.0.shape"),
        ("nli", {"inputs": [FINE, FINE]}, 422, "needs each of these inputs once: text, text_pair"),
        ("nli", {"inputs": [tensor("text_pair", TEXTS)]}, 422, "the input text is missing"),
        ("nli", {"inputs": [FINE, tensor("text_pair", ["a"])]}, 422, "different numbers of rows"),
        ("nli", {"inputs": [FINE, tensor("texts", TEXTS)]}, 422, "needs each of these inputs once"),
        ("nli", {"inputs": [FINE], "outputs": [{"name": "x"}]}, 422, "its outputs are label, score"),
        ("nli", {"inputs": [FINE], "outputs": [{"name": "label", "parameters": {"binary_data": True}}]}, 422, "binary"),
        ("nli", {"inputs": [{**FINE, "parameters": {"binary_data_size": 9}}]}, 422, "of an input are not supported"),
        ("nli", {"inputs": [FINE], "parameters": {"top_k": 0}}, 422, "parameters.top_k must be at least 1"),
        ("nli", {"inputs": [FINE], "parameters": {"binary_data_output": True}}, 422, "is not a known field"),
        ("nli", {"inputs": [FINE], "parameters": {"model": "tag"}}, 422, "parameters.model is not an option"),
        ("choose", {"inputs": [tensor("prompt", TEXTS), tensor("choices", TEXTS)]}, 422, "shape must be [N, C]"),
        ("answer", {"inputs": [FINE]}, 422, "needs each of these inputs once: question, context"),
    ],
)
def test_what_cannot_be_meant(service: Service, model: str, body: dict[str, Any], status: int, message: str) -> None:
    reply = service.ask(f"/v2/models/{model}/infer", body)
    assert (reply.status, reply.json.keys()) == (status, {"error"}), reply.body
    assert message in reply.json["error"]


def test_errors_have_the_form_of_the_protocol(service: Service) -> None:
    binary = service.ask("/v2/models/nli/infer", {"inputs": [FINE]}, inference_header_content_length="9")
    assert (binary.status, binary.json) == (400, {"error": "binary data are not supported: send the tensors as JSON"})
    for path in ("/v2/models/x", "/v2/models/x/ready", "/v2/models/nli/versions/1"):
        reply = service.ask(path)
        assert (reply.status, reply.json.keys()) == (404, {"error"})
    assert service.ask("/v2/models/nli/infer", b"{").json == {"error": "the body is not JSON"}
