"""Passages ranked by a cross encoder, for clients of text-embeddings-inference, Jina and Cohere."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from pocketbert.serve import other_schemas, v1
from pocketbert.serve.compatible import routes as compatible_routes
from pocketbert.serve.errors import JsonResponse
from pocketbert.serve.models import Model, Predictions
from pocketbert.serve.routes import Routes
from pocketbert.serve.service import RequestError, run_model, service_of

routes = Routes("/v1", tags=["tasks"], responses=v1.ERROR_RESPONSES)
CLASSIFIER = "text-classification"


def _model(request: Request, name: str | None) -> Model:
    """The model called `name`, or the first classifier with one label."""
    service = service_of(request)
    if name is None:
        found = (
            model for model in service.models.values() if model.task == CLASSIFIER and len(model.labels or ()) == 1
        )
        model = next(found, None)
        if model is None:
            raise RequestError(
                404, "no served model is a cross encoder (a classifier with one label), which ranking needs"
            )
        return model
    model = service.model(name, CLASSIFIER)
    if len(model.labels or ()) != 1:
        raise RequestError(422, f"{name} has {len(model.labels or ())} labels: ranking needs a model with one label")
    return model


async def _ranked(
    request: Request, model: Model, query: str, texts: list[str], *, raw: bool = False, **options: Any
) -> tuple[list[tuple[int, float]], Predictions]:
    """The index and score of each text, the best first."""
    pairs = [{"text": query, "text_pair": text} for text in texts]
    predictions = await run_model(
        request, model, pairs, top_k=None, function_to_apply="none" if raw else "sigmoid", **options
    )
    scores = [value[0]["score"] for value in predictions.values]
    return sorted(enumerate(scores), key=lambda one: -one[1]), predictions


@compatible_routes.post("/rerank", response_model=list[other_schemas.TeiRank])
async def tei_rerank(body: other_schemas.TeiRerankRequest, request: Request) -> Response:
    """Rank texts by how well they answer a query."""
    ranked, _ = await _ranked(
        request, _model(request, body.model), body.query, body.texts, raw=body.raw_scores, truncate=body.truncate,
        left=v1.is_left(body.truncation_direction), windows=body.windows,
    )  # fmt: skip
    return JsonResponse(
        [
            {"index": index, "score": score, **({"text": body.texts[index]} if body.return_text else {})}
            for index, score in ranked
        ]
    )


@routes.post("/rerank", response_model=other_schemas.RerankResponse)
@compatible_routes.post("/v2/rerank", response_model=other_schemas.RerankResponse)
async def rerank(body: other_schemas.RerankRequest, request: Request) -> Response:
    """Rank documents by how well they answer a query, in the form of Jina's and Cohere's APIs."""
    model = _model(request, body.model)
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    ranked, predictions = await _ranked(
        request, model, body.query, texts, truncate=body.truncation, windows=body.windows
    )
    results = [
        {
            "index": index,
            "relevance_score": score,
            **({"document": {"text": texts[index]}} if body.return_documents else {}),
        }
        for index, score in ranked[: body.top_n]
    ]
    usage = {"prompt_tokens": predictions.tokens, "total_tokens": predictions.tokens}
    return JsonResponse({"id": f"rerank-{uuid4().hex}", "model": model.name, "results": results, "usage": usage})
