"""/v1: each task with typed JSON, lines in and out for many texts, and OpenAI's embeddings."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pocketbert.errors import InputError, TokenizerError
from pocketbert.serve import schemas
from pocketbert.serve.errors import Json, error
from pocketbert.serve.models import TooMuch
from pocketbert.serve.service import Refused, Service, answer, service_of
from pocketbert.serve.settings import Limits

WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error, "description": text}
    for status, text in (
        (400, "The body is not JSON, or not complete."),
        (401, "An API key is missing."),
        (404, "There is no such model."),
        (408, "The body took too long."),
        (413, "There is too much in it."),
        (422, "Something in it is wrong."),
        (429, "There is too much to do."),
        (503, "The service is being stopped, or an answer took too long."),
    )
}
LINES = "application/x-ndjson"
WINDOW = 64  # texts of a stream that wait at a time
router = APIRouter(prefix="/v1", responses=WRONG)


# ── the tasks ──


def _entities(text: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"label": one["entity_group"], "text": text[one["start"] : one["end"]]}
        | {key: one[key] for key in ("start", "end", "score")}
        for one in found
    ]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _gaps(found: list[Any]) -> list[list[dict[str, Any]]]:
    gaps = found if found and isinstance(found[0], list) else [found]
    names = (("token", "token_str"), ("id", "token"), ("score", "score"), ("sequence", "sequence"))
    return [[{new: one[old] for new, old in names} for one in gap] for gap in gaps]


class Task:
    """How a body of /v1 becomes a call of a pipeline, and its value a result."""

    def __init__(
        self,
        path: str,
        task: str,
        body: type[schemas.Asked],
        options: Callable[[Any], dict[str, Any]],
        result: Callable[[Any, Any], Any] = lambda one, value: value,
    ) -> None:
        self.path, self.task, self.body, self.options, self.result = path, task, body, options, result


def _classify_options(body: schemas.Classify) -> dict[str, Any]:
    if body.labels is None:
        return {"top_k": body.top_k}
    return {
        "zero_shot": True, "candidate_labels": body.labels, "hypothesis_template": body.template,
        "multi_label": body.multi_label,
    }  # fmt: skip


def labels(value: Any) -> list[dict[str, Any]]:
    """The labels of a text, its own or those of zero-shot classification."""
    if isinstance(value, dict):  # zero-shot
        return [{"label": name, "score": score} for name, score in zip(value["labels"], value["scores"], strict=True)]
    return _listed(value)


TASKS = {
    one.path: one
    for one in (
        Task("classify", "text-classification", schemas.Classify, _classify_options, lambda _, value: labels(value)),
        Task("tag", "token-classification", schemas.Tag, lambda b: {"aggregation_strategy": b.aggregation}, _entities),
        Task(
            "answer",
            "question-answering",
            schemas.Answer,
            lambda b: {"top_k": b.top_k, "handle_impossible_answer": b.allow_empty},
            lambda _, value: _listed(value),
        ),
        Task(
            "fill-mask",
            "fill-mask",
            schemas.FillMask,
            lambda b: {"top_k": b.top_k, "targets": b.targets},
            lambda _, value: _gaps(value),
        ),
        Task("choose", "multiple-choice", schemas.Choose, lambda b: {}),
        Task(
            "embed",
            "feature-extraction",
            schemas.Embed,
            lambda b: {"pooling": b.pooling, "normalize": b.normalize},
        ),
    )
}


def _inputs(body: Any) -> list[Any]:
    """The inputs of a body as the pipelines read them."""
    return [one if isinstance(one, str) else one.model_dump() for one in _listed(body.inputs)]


async def _run(name: str, body: Any, request: Request) -> Response:
    task, service = TASKS[name], service_of(request)
    if LINES in request.headers.get("accept", ""):
        return _stream(service, request, task, body, _windows(_inputs(body)))
    model = service.model(body.model, task.task)
    inputs = _inputs(body)
    found = await answer(request, model, inputs, truncate=body.truncate, **task.options(body))
    return Json(
        {
            "model": model.name,
            "results": [task.result(one, value) for one, value in zip(inputs, found.values, strict=True)],
            "usage": {"tokens": found.tokens, "truncated": found.cut},
            "milliseconds": {"wait": round(1000 * found.wait, 3), "compute": round(1000 * found.compute, 3)},
        }
    )


@router.post("/classify", response_model=schemas.Answers[list[schemas.Label]])
async def classify(body: schemas.Classify, request: Request) -> Response:
    """Label texts or pairs; with `labels` of your own, if the model was trained on language inference."""
    return await _run("classify", body, request)


@router.post("/tag", response_model=schemas.Answers[list[schemas.Entity]])
async def tag(body: schemas.Tag, request: Request) -> Response:
    """Find names of people, places and the like."""
    return await _run("tag", body, request)


@router.post("/answer", response_model=schemas.Answers[list[schemas.Found]])
async def answer_questions(body: schemas.Answer, request: Request) -> Response:
    """Find answers in passages of any length."""
    return await _run("answer", body, request)


@router.post("/fill-mask", response_model=schemas.Answers[list[list[schemas.Fill]]])
async def fill_mask(body: schemas.FillMask, request: Request) -> Response:
    """Fill gaps, written [MASK]: for each text, for each of its gaps, the best words."""
    return await _run("fill-mask", body, request)


@router.post("/choose", response_model=schemas.Answers[list[schemas.Chosen]])
async def choose(body: schemas.Choose, request: Request) -> Response:
    """Choose how a text goes on, or which answer fits a question."""
    return await _run("choose", body, request)


@router.post("/embed", response_model=schemas.Answers[list[float]])
async def embed(body: schemas.Embed, request: Request) -> Response:
    """Turn texts into vectors."""
    return await _run("embed", body, request)


# ── lines ──


@router.post(
    "/{task}/lines",
    response_class=StreamingResponse,
    responses={
        200: {"content": {LINES: {}}, "description": 'A line an input: {"index", "result"} or {"index", "error"}.'}
    },
    openapi_extra={"requestBody": {"required": True, "content": {LINES: {"schema": {"type": "string"}}}}},
)
async def lines(task: str, request: Request) -> Response:
    """Answer one JSON input a line, as they come and in their order; what is not an input is a query parameter.

    Both ways are streams: a client reads while it writes. A line that is wrong gets an error and the others go on.
    """
    service, kind = service_of(request), TASKS.get(task)
    if kind is None:
        raise Refused(404, f"there is no task of that name: it is one of {', '.join(TASKS)}")
    given: dict[str, Any] = {key: _value(key, text) for key, text in request.query_params.items() if key != "inputs"}
    try:
        body = kind.body.model_validate({**given, "inputs": []})
    except ValidationError as problem:
        raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in problem.errors()]) from None
    return _stream(service, request, kind, body, _uploaded(request, kind, body, service.settings.limits))


def _value(key: str, text: str) -> Any:
    """A query parameter: JSON where it can be, unless it is a name."""
    try:
        return text if key == "model" else json.loads(text)
    except (ValueError, RecursionError):
        return text


Window = list[Any]  # inputs, or errors in their place


async def _windows(inputs: Sequence[Any]) -> AsyncIterator[Window]:
    for start in range(0, len(inputs), WINDOW):
        yield list(inputs[start : start + WINDOW])


async def _uploaded(request: Request, task: Task, body: Any, limits: Limits) -> AsyncIterator[Window]:
    """The lines of a body, as many at a time as have come."""
    rest = b""
    async for part in request.stream():
        *whole, rest = (rest + part).split(b"\n")
        for start in range(0, len(whole), WINDOW):
            if window := [_line(line, task, body) for line in whole[start : start + WINDOW] if line.strip()]:
                yield window
        if len(rest) > limits.body:
            yield [Refused(413, f"a line is longer than {limits.body:,} bytes")]
            return
    if rest.strip():
        yield [_line(rest, task, body)]


def _line(line: bytes, task: Task, body: BaseModel) -> Any:
    try:
        one = task.body.model_validate({**body.model_dump(), "inputs": [json.loads(line)]})
    except ValidationError as problem:
        return Refused(422, str(problem.errors()[0]["msg"]))
    except (ValueError, RecursionError):
        return Refused(400, "the line is not JSON")
    return _inputs(one)[0]


class _Lines(StreamingResponse):
    """Starlette's listens for the end of the connection meanwhile, and so takes the lines that are to be read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write, and do not read."""
        await self.stream_response(send)


def _stream(
    service: Service, request: Request, task: Task, body: Any, windows: AsyncIterator[Window]
) -> StreamingResponse:
    model, options = service.model(body.model, task.task), task.options(body)

    async def written() -> AsyncIterator[bytes]:
        index = 0
        async for window in windows:
            good = [one for one in window if not isinstance(one, Refused)]
            results = iter(await _each(service, request, model, good, body.truncate, options))
            for one in window:
                value = one if isinstance(one, Refused) else next(results)
                said = {"error": str(value)} if isinstance(value, Refused) else {"result": task.result(one, value)}
                yield Json.line({"index": index, **said})
                index += 1

    return _Lines(written(), media_type=LINES)


async def _each(
    service: Service, request: Request, model: Any, inputs: list[Any], truncate: bool, options: dict[str, Any]
) -> list[Any]:
    """The values of inputs, or an error in the place of each that has none."""
    if not inputs:
        return []
    try:
        return (await answer(request, model, inputs, truncate=truncate, patient=True, **options)).values
    except (Refused, InputError, TokenizerError, TooMuch) as problem:
        if len(inputs) == 1:
            message = problem.message if isinstance(problem, InputError) else str(problem)
            return [Refused(422, message)]
        half = len(inputs) // 2
        return [
            value
            for part in (inputs[:half], inputs[half:])
            for value in await _each(service, request, model, part, truncate, options)
        ]


# ── OpenAI ──


@router.get("/models", response_model=schemas.ServedList)
async def models(request: Request) -> Response:
    """The models, the default first."""
    return Json({"object": "list", "data": [_card(model) for model in service_of(request).models.values()]})


@router.get("/models/{name}", response_model=schemas.Served)
async def model(name: str, request: Request) -> Response:
    """One of them."""
    return Json(_card(service_of(request).model(name, None)))


def _card(model: Any) -> dict[str, Any]:
    limit = model.pipeline.max_length
    return schemas.Served(id=model.name, task=model.task, labels=model.labels, max_tokens=limit).model_dump()


@router.post("/embeddings", response_model=None)
async def embeddings(body: schemas.OpenAIEmbed, request: Request) -> Response:
    """Vectors of length 1, as OpenAI's clients ask for them."""
    texts = _listed(body.input)
    if not texts:
        return error("/v1/", 422, "there is nothing to embed", field="input")
    model = service_of(request).model(body.model, "feature-extraction")
    found = await answer(request, model, texts, normalize=True)

    def written(vector: list[float]) -> list[float] | str:
        if body.encoding_format == "float":
            return vector
        return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()

    data = [{"object": "embedding", "index": i, "embedding": written(vector)} for i, vector in enumerate(found.values)]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return Json({"object": "list", "data": data, "model": model.name, "usage": usage})
