"""/v1: each task with typed JSON, streams of lines for many texts, the models."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pocketbert.errors import InputError, TokenizerError
from pocketbert.serve import other_schemas, schemas
from pocketbert.serve.errors import JsonResponse
from pocketbert.serve.invalid import InvalidError, describe
from pocketbert.serve.models import RequestTooLargeError
from pocketbert.serve.routes import Routes
from pocketbert.serve.service import RequestError, Service, run_model, service_of
from pocketbert.serve.settings import Limits

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error, "description": text}
    for status, text in (
        (400, "The body is not JSON, or incomplete."),
        (401, "The API key is missing or wrong."),
        (404, "There is no such model."),
        (408, "Receiving the body took too long."),
        (413, "The request exceeds a size limit."),
        (422, "A field of the request is invalid."),
        (429, "The service is overloaded."),
        (503, "The service is shutting down, or the response took too long."),
    )
}
NDJSON = "application/x-ndjson"
WINDOW = 64  # texts of a stream in the queue at a time
routes = Routes("/v1", tags=["tasks"], responses=ERROR_RESPONSES)


# ── the tasks ──


def _entities(text: str, entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"label": entity["entity_group"], "text": text[entity["start"] : entity["end"]]}
        | {key: entity[key] for key in ("start", "end", "score", "base", "words") if key in entity}
        for entity in entities
    ]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _masks(predictions: list[Any]) -> list[list[dict[str, Any]]]:
    """The tokens for each mask of a text, under the names of the API."""
    masks = predictions if predictions and isinstance(predictions[0], list) else [predictions]
    names = (("token", "token_str"), ("id", "token"), ("score", "score"), ("sequence", "sequence"))
    return [[{ours: token[theirs] for ours, theirs in names} for token in mask] for mask in masks]


class TaskEndpoint:
    """Translates a body of /v1 to a call of a pipeline, and the pipeline's value to a result.

    Args:
        path: below /v1.
        task: of the pipeline.
        body: the schema of the body.
        options: maps a body to options of the pipeline's `job`.
        result: maps an input and its value to the result.
    """

    def __init__(
        self,
        path: str,
        task: str,
        body: type[schemas.TaskRequest],
        options: Callable[[Any], dict[str, Any]],
        result: Callable[[Any, Any], Any] = lambda one, value: value,
    ) -> None:
        self.path, self.task, self.body, self.options, self.result = path, task, body, options, result


def _why(body: Any) -> dict[str, Any]:
    return {"explain": body.explain} if body.explain else {}


def _classify_options(body: schemas.ClassifyRequest) -> dict[str, Any]:
    rules = ("min_confidence", "answer_share", "conformal")
    beside = {"windows": body.windows} | _why(body)
    decisions = {name: getattr(body, name) for name in rules if getattr(body, name) is not None}
    if body.labels is None:
        if decisions:
            return {**beside, **decisions, **({} if body.top_k is None else {"top_k": body.top_k})}
        return {**beside, "top_k": body.top_k or "chosen"}
    given = [*decisions, *_why(body)]
    if given:
        raise RequestError(422, f"{', '.join(given)} cannot be combined with labels")
    return {
        "zero_shot": True, "candidate_labels": body.labels, "hypothesis_template": body.template,
        "multi_label": body.multi_label, "windows": body.windows,
    }  # fmt: skip


def is_left(direction: str | None) -> bool:
    """Whether a `truncation_direction` cuts texts at their beginning."""
    return direction is not None and direction.lower() == "left"


def label_scores(value: Any) -> list[dict[str, Any]]:
    """The labels of a text, from classification or zero-shot classification."""
    if isinstance(value, dict) and "labels" in value:  # zero-shot
        return [{"label": name, "score": score} for name, score in zip(value["labels"], value["scores"], strict=True)]
    return _as_list(value)


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        TaskEndpoint(
            "classify",
            "text-classification",
            schemas.ClassifyRequest,
            _classify_options,
            lambda _, value: label_scores(value),
        ),
        TaskEndpoint(
            "tag",
            "token-classification",
            schemas.TagRequest,
            lambda body: {"aggregation_strategy": body.aggregation} | _why(body),
            _entities,
        ),
        TaskEndpoint(
            "answer",
            "question-answering",
            schemas.AnswerRequest,
            lambda body: {"top_k": body.top_k, "handle_impossible_answer": body.allow_empty} | _why(body),
            lambda _, value: _as_list(value),
        ),
        TaskEndpoint(
            "fill-mask",
            "fill-mask",
            schemas.FillMaskRequest,
            lambda body: {"top_k": body.top_k, "targets": body.targets},
            lambda _, value: _masks(value),
        ),
        TaskEndpoint("choose", "multiple-choice", schemas.ChooseRequest, lambda body: {}),
        TaskEndpoint(
            "embed",
            "feature-extraction",
            schemas.EmbedRequest,
            lambda body: {
                "pooling": body.pooling or "declared",
                "normalize": body.normalize,
                "prompt_name": body.prompt_name,
                "dimensions": body.dimensions,
                "left": is_left(body.truncation_direction),
                "windows": body.windows,
            },
        ),
    )
}


def _inputs(body: Any) -> list[Any]:
    """The inputs of a body as pipelines take them."""
    return [one if isinstance(one, str) else one.model_dump() for one in _as_list(body.inputs)]


async def _run(name: str, body: Any, request: Request) -> Response:
    endpoint, service = ENDPOINTS[name], service_of(request)
    if NDJSON in request.headers.get("accept", ""):
        return _stream(service, request, endpoint, body, _windows(_inputs(body)))
    model = service.model(body.model, endpoint.task)
    inputs = _inputs(body)
    predictions = await run_model(request, model, inputs, truncate=body.truncate, **endpoint.options(body))
    wait, compute = round(1000 * predictions.wait, 3), round(1000 * predictions.compute, 3)
    return JsonResponse(
        {
            "model": model.name,
            "results": [endpoint.result(one, value) for one, value in zip(inputs, predictions.values, strict=True)],
            "usage": {"tokens": predictions.tokens, "truncated": predictions.truncated},
            "milliseconds": {"wait": wait, "compute": compute},
        }
    )


@routes.post(
    "/classify",
    response_model=schemas.TaskResponse[list[schemas.LabelScore]] | other_schemas.VllmClassifyResponse,
)
async def classify(body: other_schemas.AnyClassifyRequest, request: Request) -> Response:
    """Classify texts or pairs; by `labels` of your own with a model that was trained on language inference.

    A body with `input` instead of `inputs` is one of vLLM's clients, and gets the response that they read.
    """
    if isinstance(body, other_schemas.VllmClassifyRequest):
        return await vllm_classify(body, request)
    return await _run("classify", body, request)


async def vllm_classify(body: other_schemas.VllmClassifyRequest, request: Request) -> Response:
    """The response of vLLM: all probabilities of each text, in the order of the labels."""
    model = service_of(request).model(body.model, "text-classification")
    predictions = await run_model(request, model, _as_list(body.input), top_k=None, windows=body.windows)
    names = list(model.pipeline.config.id2label.values())
    data = []
    for index, scores in enumerate(predictions.values):
        shares = {one["label"]: one["score"] for one in scores}
        probs = [shares[name] for name in names]
        data.append({"index": index, "label": scores[0]["label"], "probs": probs, "num_classes": len(names)})
    return JsonResponse(
        {
            "id": f"classify-{uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": model.name,
            "data": data,
            "usage": {"prompt_tokens": predictions.tokens, "total_tokens": predictions.tokens},
        }
    )


@routes.post("/tag", response_model=schemas.TaskResponse[list[schemas.Entity]])
async def tag(body: schemas.TagRequest, request: Request) -> Response:
    """Find entities, such as names of people and places."""
    return await _run("tag", body, request)


@routes.post("/answer", response_model=schemas.TaskResponse[list[schemas.AnswerSpan]])
async def answer_questions(body: schemas.AnswerRequest, request: Request) -> Response:
    """Find answers in passages of any length."""
    return await _run("answer", body, request)


@routes.post("/fill-mask", response_model=schemas.TaskResponse[list[list[schemas.TokenScore]]])
async def fill_mask(body: schemas.FillMaskRequest, request: Request) -> Response:
    """Predict the tokens at [MASK]: per text and mask, the most probable ones."""
    return await _run("fill-mask", body, request)


@routes.post("/choose", response_model=schemas.TaskResponse[list[schemas.ChoiceScore]])
async def choose(body: schemas.ChooseRequest, request: Request) -> Response:
    """Score the continuations of a text, or the possible answers to a question."""
    return await _run("choose", body, request)


@routes.post("/embed", response_model=schemas.TaskResponse[list[float]])
async def embed(body: schemas.EmbedRequest, request: Request) -> Response:
    """Embed texts as vectors."""
    return await _run("embed", body, request)


# ── streams of lines ──


@routes.post(
    "/{task}/lines",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {NDJSON: {}},
            "description": 'One line per input: {"index", "result"} or {"index", "error"}; '
            'with "truncated" if the input was truncated.',
        }
    },
    openapi_extra={"requestBody": {"required": True, "content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def lines(task: str, request: Request) -> Response:
    """Run a task on one JSON input per line, as they arrive and in their order; options are query parameters.

    Both directions are streams: a client can read results while it sends inputs. An invalid line gets an error, and
    the following lines are processed.
    """
    service, endpoint = service_of(request), ENDPOINTS.get(task)
    if endpoint is None:
        raise RequestError(404, f"no task of that name: choose one of {', '.join(ENDPOINTS)}")
    options: dict[str, Any] = {key: _value(key, text) for key, text in request.query_params.items() if key != "inputs"}
    try:
        body = endpoint.body.model_validate({**options, "inputs": []})
    except ValidationError as error:
        raise InvalidError(error, "query") from None
    return _stream(service, request, endpoint, body, _uploaded(request, endpoint, body, service.settings.limits))


def _value(key: str, text: str) -> Any:
    """The value of a query parameter: parsed as JSON if it is JSON, unless it is a name."""
    try:
        return text if key == "model" else json.loads(text)
    except (ValueError, RecursionError):
        return text


Window = list[Any]  # inputs, or errors in their place


async def _windows(inputs: Sequence[Any]) -> AsyncIterator[Window]:
    for start in range(0, len(inputs), WINDOW):
        yield list(inputs[start : start + WINDOW])


async def _uploaded(request: Request, endpoint: TaskEndpoint, body: Any, limits: Limits) -> AsyncIterator[Window]:
    """The lines of a body, as many at a time as have arrived."""
    rest = bytearray()
    async for part in request.stream():
        rest += part
        if b"\n" not in part and len(rest) <= limits.body:
            continue
        *complete, rest = rest.split(b"\n")
        for start in range(0, len(complete), WINDOW):
            if window := [_line(line, endpoint, body) for line in complete[start : start + WINDOW] if line.strip()]:
                yield window
        if len(rest) > limits.body:
            yield [RequestError(413, f"a line is longer than {limits.body:,} bytes")]
            return
    if rest.strip():
        yield [_line(rest, endpoint, body)]


def _line(line: bytes | bytearray, endpoint: TaskEndpoint, body: BaseModel) -> Any:
    """The input in a line, or an error in its place."""
    try:
        parsed = endpoint.body.model_validate({**body.model_dump(), "inputs": [json.loads(line)]})
    except ValidationError as error:
        return RequestError(422, describe(InvalidError(error, "body").problems)[0])
    except (ValueError, RecursionError):
        return RequestError(400, "the line is not JSON")
    return _inputs(parsed)[0]


class _WriteOnlyResponse(StreamingResponse):
    """A stream that leaves the request's body alone: Starlette's reads it, to notice when the client disconnects."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write, and do not read."""
        await self.stream_response(send)


def _stream(
    service: Service, request: Request, endpoint: TaskEndpoint, body: Any, windows: AsyncIterator[Window]
) -> StreamingResponse:
    model, options = service.model(body.model, endpoint.task), endpoint.options(body)

    async def lines() -> AsyncIterator[bytes]:
        index = 0
        async for window in windows:
            inputs = [one for one in window if not isinstance(one, RequestError)]
            values = iter(await _values(service, request, model, inputs, body.truncate, options))
            for one in window:
                value, cut = (one, False) if isinstance(one, RequestError) else next(values)
                failed = isinstance(value, RequestError)
                content = {"error": str(value)} if failed else {"result": endpoint.result(one, value)}
                content |= {"truncated": True} if cut else {}
                yield JsonResponse.line({"index": index, **content})
                index += 1

    return _WriteOnlyResponse(lines(), media_type=NDJSON)


async def _values(
    service: Service, request: Request, model: Any, inputs: list[Any], truncate: bool, options: dict[str, Any]
) -> list[tuple[Any, bool]]:
    """The values of inputs, with an error for each that has none; and whether each input was cut."""
    if not inputs:
        return []
    try:
        found = await run_model(request, model, inputs, truncate=truncate, patient=True, **options)
        return [(value, index in found.truncated) for index, value in enumerate(found.values)]
    except (RequestError, InputError, TokenizerError, RequestTooLargeError) as error:
        if len(inputs) == 1:
            message = error.message if isinstance(error, InputError) else str(error)
            return [(RequestError(422, message), False)]
        half = len(inputs) // 2
        return [
            value
            for part in (inputs[:half], inputs[half:])
            for value in await _values(service, request, model, part, truncate, options)
        ]


# ── models ──


@routes.get("/models", response_model=schemas.ModelList)
async def models(request: Request) -> Response:
    """List the models, the default first."""
    return JsonResponse({"object": "list", "data": [_model_info(m) for m in service_of(request).models.values()]})


@routes.get("/models/{name}", response_model=schemas.ModelInfo)
async def model(name: str, request: Request) -> Response:
    """Describe one model."""
    return JsonResponse(_model_info(service_of(request).model(name, None)))


def _model_info(model: Any) -> dict[str, Any]:
    limit = model.pipeline.max_length
    return schemas.ModelInfo(id=model.name, task=model.task, labels=model.labels, max_tokens=limit).model_dump()
