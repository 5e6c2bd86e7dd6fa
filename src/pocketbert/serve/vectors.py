"""Vectors for clients of other services: OpenAI's embeddings, and text-embeddings-inference's routes of them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from pocketbert.features import TokenIds
from pocketbert.serve import compatible, other_schemas, v1
from pocketbert.serve.compatible import routes as compatible_routes
from pocketbert.serve.errors import JsonResponse, error_response
from pocketbert.serve.routes import Routes
from pocketbert.serve.service import run_model, service_of

MAX_VECTORS = 4096  # of tokens per request: each is a list of hundreds of numbers in the response
routes = Routes("/v1", tags=["tasks"], responses=v1.ERROR_RESPONSES)
VECTORS = "feature-extraction"


def as_inputs(inputs: Any) -> list[Any]:
    """The texts of a body, or the ids of their tokens."""
    if isinstance(inputs, str):
        return [inputs]
    if inputs and isinstance(inputs[0], int):
        return [TokenIds(inputs)]
    return [one if isinstance(one, str) else TokenIds(one) for one in inputs]


@routes.post("/embeddings", response_model=None)
async def embeddings(body: other_schemas.OpenAIEmbeddingsRequest, request: Request) -> Response:
    """Embed texts, or the ids of their tokens, as vectors of length 1, in the form of OpenAI's API."""
    texts = as_inputs(body.input)
    if not texts:
        return error_response("/v1/", 422, "input is empty: give at least one text", field="input")
    model = service_of(request).model(body.model, VECTORS)
    options: dict[str, Any] = {"pooling": "declared", "normalize": True, "dimensions": body.dimensions}
    options["windows"] = body.windows
    predictions = await run_model(request, model, texts, **options)

    def encoded(vector: list[float]) -> list[float] | str:
        if body.encoding_format == "float":
            return vector
        return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()

    data = [
        {"object": "embedding", "index": i, "embedding": encoded(vector)} for i, vector in enumerate(predictions.values)
    ]
    usage = {"prompt_tokens": predictions.tokens, "total_tokens": predictions.tokens}
    return JsonResponse({"object": "list", "data": data, "model": model.name, "usage": usage})


@compatible_routes.post("/embed", response_model=list[list[float]])
async def embed(body: other_schemas.TeiEmbedRequest, request: Request) -> Response:
    """Embed texts, or the ids of their tokens, as vectors."""
    model = service_of(request).model(body.model, VECTORS)
    predictions = await run_model(
        request, model, as_inputs(body.inputs), pooling="declared", normalize=body.normalize, truncate=body.truncate,
        left=v1.is_left(body.truncation_direction), prompt_name=body.prompt_name, dimensions=body.dimensions,
        windows=body.windows,
    )  # fmt: skip
    return JsonResponse(predictions.values)


@compatible_routes.post("/embed_all", response_model=list[list[list[float]]])
async def embed_all(body: other_schemas.TeiEmbedAllRequest, request: Request) -> Response:
    """The vectors of all tokens of each text, before any pooling; of at most 4,096 tokens in a request."""
    model = service_of(request).model(body.model, VECTORS)
    inputs = as_inputs(body.inputs)
    predictions = await run_model(
        request, model, inputs, pooling=None, truncate=body.truncate, prompt_name=body.prompt_name,
        left=v1.is_left(body.truncation_direction), limit=MAX_VECTORS,
    )  # fmt: skip
    return JsonResponse([vectors for [vectors] in predictions.values])


@compatible_routes.post("/similarity", response_model=list[float])
async def similarity(body: other_schemas.TeiSimilarityRequest, request: Request) -> Response:
    """The cosines of a text's vector with those of others."""
    model, given = service_of(request).model(body.model, VECTORS), body.parameters
    options = given.model_dump(exclude={"truncation_direction"})
    return await compatible.similarity(
        request, model, body.inputs, left=v1.is_left(given.truncation_direction), **options
    )
