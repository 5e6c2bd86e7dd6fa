"""The Open Inference Protocol, version 2, of KServe, Triton and others: texts in tensors of BYTES, results in tensors.

The inputs of a task are named as in /v1, and the parameters of a request are the options of /v1. Results of the same
number for every input are tensors; entities, and words for masks, are JSON in tensors of BYTES. Only what the protocol
requires is there: JSON over HTTP, no binary data, no versions of models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from pocketbert.serve import v1
from pocketbert.serve.errors import JsonResponse
from pocketbert.serve.invalid import InvalidError
from pocketbert.serve.routes import Routes
from pocketbert.serve.schemas import Body, Many, Schema, Text
from pocketbert.serve.service import RequestError, run_model, service_of

PREFIX = "/v2"
BINARY = "inference-header-content-length"  # of requests whose tensors follow the JSON

Size = Annotated[int, Field(ge=1, le=1 << 20)]


class InputTensor(Body):
    """Texts, row by row."""

    name: str
    shape: Annotated[list[Size], Field(min_length=1, max_length=2)]
    datatype: str
    data: Many[Text] | Many[Many[Text]]
    parameters: dict[str, Any] = Field(default_factory=dict)


class OutputName(Body):
    """A tensor that the response is to contain."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(Body):
    """A request for inference."""

    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=2)]
    id: str | None = None
    outputs: list[OutputName] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict, description="Options of the task, as in /v1.")


class OutputTensor(Schema):
    """A result of every input, row by row."""

    name: str
    datatype: Literal["BYTES", "FP32", "INT64"]
    shape: list[int]
    data: list[Any]


class InferResponse(Schema):
    """The results."""

    model_name: str
    id: str | None = None
    outputs: list[OutputTensor]


class TensorInfo(Schema):
    """A tensor of a model; a size of -1 may be any."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Schema):
    """A model and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class ProtocolError(Schema):
    """An error."""

    error: str


@dataclass(frozen=True)
class Form:
    """The tensors of a task.

    Args:
        path: of the task, below /v1.
        inputs: name and number of dimensions of each; the second may be left out where it is `optional`.
        outputs: name, datatype and number of dimensions of each. Those of one dimension hold JSON.
        optional: whether the second input may be left out.
    """

    path: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, tuple[str, int]]
    optional: bool = False


_SCORED = {"label": ("BYTES", 2), "score": ("FP32", 2)}
FORMS = {
    "text-classification": Form("classify", {"text": 1, "text_pair": 1}, _SCORED, optional=True),
    "token-classification": Form("tag", {"text": 1}, {"entities": ("BYTES", 1)}),
    "question-answering": Form(
        "answer", {"question": 1, "context": 1},
        {"answer": ("BYTES", 2), "score": ("FP32", 2), "start": ("INT64", 2), "end": ("INT64", 2)},
    ),
    "fill-mask": Form("fill-mask", {"text": 1}, {"masks": ("BYTES", 1)}),
    "multiple-choice": Form(
        "choose", {"prompt": 1, "choices": 2}, {"choice": ("BYTES", 2), "index": ("INT64", 2), "score": ("FP32", 2)}
    ),
    "feature-extraction": Form("embed", {"text": 1}, {"embedding": ("FP32", 2)}),
}  # fmt: skip

routes = Routes(
    PREFIX,
    tags=["Open Inference Protocol"],
    responses={status: {"model": ProtocolError} for status in (400, 401, 404, 413, 422, 429, 503)},
)


# ── metadata ──


@routes.get("")
async def server() -> Response:
    """The server; it has no extensions."""
    return JsonResponse({"name": "pocketbert", "version": "1", "extensions": []})


@routes.get("/models/{name}", response_model=ModelMetadata)
async def model(name: str, request: Request) -> Response:
    """A model and its tensors."""
    served = service_of(request).model(name, None)
    form = FORMS[served.task]
    inputs = [TensorInfo(name=one, datatype="BYTES", shape=[-1] * dims) for one, dims in form.inputs.items()]
    outputs = [TensorInfo(name=one, datatype=kind, shape=[-1] * dims) for one, (kind, dims) in form.outputs.items()]
    described = ModelMetadata(name=name, versions=[], platform="pocketbert", inputs=inputs, outputs=outputs)
    return JsonResponse(described.model_dump())


@routes.get("/models/{name}/ready", response_model=None)
async def model_ready(name: str, request: Request) -> Response:
    """Whether a model is ready; all are while the service is."""
    return JsonResponse({"name": service_of(request).model(name, None).name, "ready": True})


@routes.get("/models/{name}/versions/{rest:path}", include_in_schema=False)
@routes.post("/models/{name}/versions/{rest:path}", include_in_schema=False)
async def no_version(name: str, rest: str) -> Response:
    """The protocol leaves it to a server whether its models have versions."""
    raise RequestError(404, "models have no versions here: leave /versions and what follows it out of the address")


# ── inference ──


@routes.post("/models/{name}/infer", response_model=InferResponse)
async def infer(name: str, body: InferRequest, request: Request) -> Response:
    """Run the task of a model on tensors of texts."""
    if BINARY in request.headers:
        raise RequestError(400, "binary data are not supported: send the tensors as JSON")
    served = service_of(request).model(name, None)
    form, endpoint = FORMS[served.task], v1.ENDPOINTS[FORMS[served.task].path]
    wanted = _wanted(form, body.outputs)
    columns = _columns(form, body.inputs)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    inputs = [next(iter(row.values())) for row in rows] if len(columns) == 1 else rows
    if unknown := [option for option in ("inputs", "model", "explain") if option in body.parameters]:
        raise RequestError(422, f"parameters.{unknown[0]} is not an option of the task")
    try:
        parsed = endpoint.body.model_validate({**body.parameters, "inputs": inputs})
    except ValidationError as error:
        raise InvalidError(error, "body", "parameters") from None
    options = endpoint.options(parsed)
    if options.get("top_k") == "chosen":  # by thresholds, of which each text may exceed another number
        options["top_k"] = None
    predictions = await run_model(request, served, inputs, truncate=parsed.truncate, **options)
    results = [endpoint.result(one, value) for one, value in zip(inputs, predictions.values, strict=True)]
    response = {"model_name": served.name, **({} if body.id is None else {"id": body.id})}
    return JsonResponse({**response, "outputs": [_tensor(form, name, results) for name in wanted]})


def _wanted(form: Form, outputs: Sequence[OutputName]) -> list[str]:
    for output in outputs:
        if output.name not in form.outputs:
            raise RequestError(422, f"the model has no such output: its outputs are {', '.join(form.outputs)}")
        _refuse_parameters(output.parameters, "of an output")
    return list(dict.fromkeys(output.name for output in outputs)) or list(form.outputs)


def _refuse_parameters(parameters: Mapping[str, Any], where: str) -> None:
    """MLServer's clients send the type of their texts, which is no choice; nothing else is known."""
    if set(parameters) - {"content_type"} or parameters.get("content_type") not in (None, "str"):
        raise RequestError(422, f"parameters {where} are not supported, binary data among them")


def _columns(form: Form, tensors: Sequence[InputTensor]) -> dict[str, list[Any]]:
    """The values of each input, one per row. A single text may have any name, as many clients call it input-0."""
    needed = list(form.inputs)[: 1 if form.optional else None]
    if len(tensors) == len(needed) == 1 and tensors[0].name not in form.inputs:
        columns = {needed[0]: _values(tensors[0], 1)}
    else:
        columns = {}
        for tensor in tensors:
            if tensor.name not in form.inputs or tensor.name in columns:
                raise RequestError(422, f"the model needs each of these inputs once: {', '.join(form.inputs)}")
            columns[tensor.name] = _values(tensor, form.inputs[tensor.name])
    if missing := [name for name in needed if name not in columns]:
        raise RequestError(422, f"the input {missing[0]} is missing: the model needs {', '.join(form.inputs)}")
    if len({len(values) for values in columns.values()}) > 1:
        raise RequestError(422, "the inputs have different numbers of rows")
    return {name: columns[name] for name in form.inputs if name in columns}


def _values(tensor: InputTensor, dimensions: int) -> list[Any]:
    """The rows of a tensor: texts, or lists of them where it has two dimensions."""
    if tensor.datatype != "BYTES":
        raise RequestError(422, "datatype must be BYTES: the inputs are texts")
    _refuse_parameters(tensor.parameters, "of an input")
    rows, *rest = tensor.shape
    width = rest[0] if rest else 1
    nested = bool(tensor.data) and isinstance(tensor.data[0], list)
    flat: list[Any] = [text for row in tensor.data for text in row] if nested else [*tensor.data]
    is_shaped = not nested or (len(tensor.data) == rows and all(len(row) == width for row in tensor.data))
    if len(flat) != rows * width or not is_shaped:
        raise RequestError(422, f"data must have the shape of the tensor: {rows} × {width} texts")
    if dimensions == 1:
        if width != 1:
            raise RequestError(422, "shape must be [N] or [N, 1]: one text per row")
        return flat
    if not rest:
        raise RequestError(422, "shape must be [N, C]: as many choices per row")
    return [flat[row * width : (row + 1) * width] for row in range(rows)]


def _tensor(form: Form, name: str, results: Sequence[Any]) -> dict[str, Any]:
    """One output of all rows."""
    kind, dimensions = form.outputs[name]
    if dimensions == 1:
        rows: list[list[Any]] = [[json.dumps(result, ensure_ascii=False)] for result in results]
    elif name == "embedding":
        rows = list(results)
    else:
        rows = [[one[name] for one in result] for result in results]
    widths = {len(row) for row in rows}
    if len(widths) > 1 or any(value is None for row in rows for value in row):
        raise RequestError(
            422, f"the rows have different numbers of results, which do not fit one tensor: {sorted(widths)}"
        )
    shape = [len(rows)] if dimensions == 1 else [len(rows), widths.pop()]
    return {"name": name, "datatype": kind, "shape": shape, "data": [value for row in rows for value in row]}
