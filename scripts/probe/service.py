"""Every route of the service."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
from typing import Any

from probe.commands import write_task_models
from probe.inputs import TEXTS
from probe.recorder import RENAMED_ROUTES, Probe, lines

LINES = "application/x-ndjson"


class _Service:
    """A service with these models, as a process."""

    def __init__(self, *arguments: str) -> None:
        run = [sys.executable, "-m", "pocketbert.cli", "serve", "--port", "0", "--no-log", *arguments]
        self.process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        found = re.search(r"http://\S+:(\d+) ", first)
        if not found:
            raise SystemExit(f"the service did not start: {first}{self.process.stderr.read()}")
        self.port = int(found[1])
        self.paths: frozenset[str] = frozenset(json.loads(self.request("/openapi.json")[1])["paths"])

    def request(self, path: str, body: Any = None, accept: str | None = None) -> tuple[int, bytes]:
        """Status and body of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            headers = {} if data is None else {"content-type": LINES if isinstance(body, bytes) else "application/json"}
            headers |= {} if accept is None else {"accept": accept}
            connection.request("GET" if data is None else "POST", path, data, headers)
            response = connection.getresponse()
            return response.status, response.read()

    def route(self, path: str) -> str:
        """The path under the name that this service has for it."""
        new = RENAMED_ROUTES.get(path, path)
        return new if new in self.paths else path

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_times(value) for key, value in content.items() if key != "milliseconds"}
    return [_without_times(one) for one in content] if isinstance(content, list) else content


def _service(probe: Probe) -> None:
    made = write_task_models()
    lines("quantize", made["embed"], "int8-embed")
    service = _Service(*(f"{task}={path}" for task, path in made.items()), "int8=int8-embed")
    try:
        for name, (path, body, accept) in _requests().items():
            status, answer = service.request(service.route(path), body, accept)
            content = [json.loads(line) for line in answer.splitlines()]
            if status == 200:
                probe.bits(name, [status, _without_times(content)])
            else:
                probe.bits(f"{name}: status", status)
                probe.text(f"{name}: error", json.dumps(content, indent=1))
        document = json.loads(service.request("/openapi.json")[1])
        probe.text("OpenAPI document", json.dumps(document, indent=1, sort_keys=True))
        probe.bits("paths of the OpenAPI document", {path: sorted(one) for path, one in document["paths"].items()})
        probe.text("page", service.request("/")[1].decode())
        names = re.findall(r"^# TYPE (.*)$", service.request("/metrics")[1].decode(), re.MULTILINE)
        probe.text("metrics", "\n".join(sorted(names)))
    finally:
        service.end()


def _requests() -> dict[str, tuple[str, Any, str | None]]:
    """Path, body and accepted type of each request."""
    text, others = TEXTS[0], [TEXTS[0], TEXTS[1], TEXTS[3], TEXTS[4]]
    pair = {"text": text, "text_pair": TEXTS[1]}
    question = {"question": "who ?", "context": TEXTS[3]}
    choice = {"prompt": "ann lives", "choices": ["in rome", "in bob", "is"]}
    gaps = "the [MASK] is [MASK] ."
    posts: dict[str, tuple[str, Any]] = {
        "classify": ("/v1/classify", {"inputs": others}),
        "classify, top 1": ("/v1/classify", {"inputs": text, "top_k": 1}),
        "classify, a pair": ("/v1/classify", {"inputs": pair, "model": "nli"}),
        "classify, labels": ("/v1/classify", {"inputs": text, "model": "nli", "labels": ["film", "story"]}),
        "classify, several labels": (
            "/v1/classify",
            {"inputs": text, "model": "nli", "labels": ["film", "story"], "multi_label": True, "template": "a {}"},
        ),
        **{f"tag, {how}": ("/v1/tag", {"inputs": others, "aggregation": how}) for how in ("simple", "first", "max")},
        "answer": ("/v1/answer", {"inputs": question, "top_k": 3}),
        "answer, empty": ("/v1/answer", {"inputs": [question], "allow_empty": True}),
        "fill-mask": ("/v1/fill-mask", {"inputs": gaps, "top_k": 3}),
        "fill-mask, targets": ("/v1/fill-mask", {"inputs": gaps, "targets": ["film", "story"]}),
        "choose": ("/v1/choose", {"inputs": choice}),
        "embed": ("/v1/embed", {"inputs": others}),
        "embed, cls": ("/v1/embed", {"inputs": others, "pooling": "cls", "normalize": False}),
        "embed, int8": ("/v1/embed", {"inputs": others, "model": "int8"}),
        "OpenAI": ("/v1/embeddings", {"input": others, "model": "embed"}),
        "OpenAI, base64": ("/v1/embeddings", {"input": text, "model": "embed", "encoding_format": "base64"}),
        "TEI embed": ("/embed", {"inputs": others}),
        "TEI predict": ("/predict", {"inputs": [[text], [text, TEXTS[1]]], "raw_scores": True}),
        "TEI tokenize": ("/tokenize", {"inputs": others}),
        "hub classify": ("/models/classify", {"inputs": others}),
        "hub zero-shot": ("/models/nli", {"inputs": text, "parameters": {"candidate_labels": ["film", "story"]}}),
        "hub tag": ("/models/tag", {"inputs": text}),
        "hub answer": ("/models/answer", {"inputs": question}),
        "hub fill-mask": ("/models/fill-mask", {"inputs": gaps}),
        "hub choose": ("/models/choose", {"inputs": choice}),
        "hub embed": ("/models/embed", {"inputs": text, "normalize": True}),
        "an unknown field": ("/v1/classify", {"inputs": text, "colour": 1}),
        "an unknown model": ("/v1/classify", {"inputs": text, "model": "none"}),
        "a model of another task": ("/v1/classify", {"inputs": text, "model": "tag"}),
        "too long": ("/v1/classify", {"inputs": TEXTS[3], "truncate": False}),
        "a TEI error": ("/embed", {"inputs": 3}),
        "a hub error": ("/models/tag", {"inputs": question}),
    }
    body = "".join(json.dumps(one) + "\n" for one in [*others, 3]).encode()
    return {
        **{name: (path, content, None) for name, (path, content) in posts.items()},
        "lines out": ("/v1/tag", {"inputs": others}, LINES),
        "lines in and out": ("/v1/classify/lines", body, None),
        **{path: (path, None, None) for path in ("/v1/models", "/v1/models/nli", "/info", "/live", "/ready")},
        "no such path": ("/nothing", None, None),
    }  # fmt: skip


SECTIONS = {"service": _service}
