"""Routes that existing clients know: text-embeddings-inference's, and the hub's under /models/NAME."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from pocketbert.serve import schemas, v1
from pocketbert.serve.errors import Json
from pocketbert.serve.service import Refused, answer, service_of


class TeiError(BaseModel):
    """An error as text-embeddings-inference writes it; the hub's clients read `error`."""

    error: str
    error_type: str


router = APIRouter(
    responses={status: {"model": TeiError} for status in (400, 401, 404, 408, 413, 422, 429, 503)},
)


# ── text-embeddings-inference ──


@router.post("/embed", response_model=list[list[float]])
async def embed(body: schemas.TeiEmbed, request: Request) -> Response:
    """A vector for each text."""
    model = service_of(request).model(body.model, "feature-extraction")
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    found = await answer(request, model, texts, normalize=body.normalize, truncate=body.truncate is not False)
    return Json(found.values)


@router.post("/predict", response_model=list[schemas.Label] | list[list[schemas.Label]])
async def predict(body: schemas.TeiPredict, request: Request) -> Response:
    """All labels of a text or a pair; of a list of them, a list."""
    model = service_of(request).model(body.model, "text-classification")
    many = not isinstance(body.inputs, str) and isinstance(body.inputs[0], list) if body.inputs else True
    asked: list[Any] = list(body.inputs) if many else [body.inputs]
    inputs = [_one_or_pair(one) for one in asked]
    options: dict[str, Any] = {"top_k": None, "function_to_apply": "none" if body.raw_scores else None}
    # The pipeline takes texts or pairs, not both.
    values: list[Any] = [None] * len(inputs)
    for paired in (False, True):
        places = [i for i, one in enumerate(inputs) if isinstance(one, dict) is paired]
        if places:
            picked = [inputs[i] for i in places]
            found = await answer(request, model, picked, truncate=body.truncate is not False, **options)
            for i, value in zip(places, found.values, strict=True):
                values[i] = value
    return Json(values if many else values[0])


def _one_or_pair(one: str | list[str]) -> Any:
    if isinstance(one, str):
        return one
    return one[0] if len(one) == 1 else {"text": one[0], "text_pair": one[1]}


@router.post("/tokenize", response_model=list[list[schemas.TeiToken]])
async def tokenize(body: schemas.TeiTokenize, request: Request) -> Response:
    """The tokens of each text, as the model reads them."""
    service = service_of(request)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if len(texts) > service.settings.limits.texts:
        raise Refused(413, f"{len(texts):,} texts in one request: {service.settings.limits.texts:,} are allowed")
    model = service.model(body.model or next(iter(service.models)), None)
    return Json(model.tokens(texts, body.add_special_tokens))


@router.get("/info", response_model=dict[str, Any])
async def info(request: Request) -> Response:
    """What the default model is, and what is allowed."""
    service = service_of(request)
    model, settings = next(iter(service.models.values())), service.settings
    limits = settings.limits
    config = model.pipeline.config
    kinds: dict[str, dict[str, Any]] = {
        "text-classification": {"classifier": {"id2label": config.id2label, "label2id": config.label2id}},
        "feature-extraction": {"embedding": {"pooling": model.pooling}},
    }
    return Json(
        {
            "model_id": model.name,
            "model_sha": None,
            "model_dtype": "int8" if config.quantized else "float32",
            "model_type": kinds.get(model.task, {model.task: {}}),
            "max_concurrent_requests": limits.queue * settings.workers,
            "max_input_length": model.pipeline.max_length,
            "max_batch_tokens": model.queue.budget,
            "max_batch_requests": None,
            "max_client_batch_size": limits.texts,
            "auto_truncate": True,
            "tokenization_workers": settings.workers,
            "version": "1",
            "sha": None,
            "docker_label": None,
        }
    )


# ── the hub ──

_PARAMETERS = {
    "text-classification": {"top_k", "function_to_apply"},
    "zero-shot-classification": {"candidate_labels", "hypothesis_template", "multi_label"},
    "token-classification": {"aggregation_strategy", "ignore_labels"},
    "question-answering": {"top_k", "handle_impossible_answer", "max_answer_len"},
    "fill-mask": {"top_k", "targets"},
    "multiple-choice": set(),
    "feature-extraction": {"normalize"},
}


@router.post("/models/{name}", response_model=None)
async def model(name: str, body: schemas.HubAsked, request: Request) -> Response:
    """The inputs of the model's task, answered in the shape of its pipeline."""
    found = service_of(request).model(name, None)
    options = body.parameters.model_dump(exclude_none=True)
    if body.normalize is not None:
        options["normalize"] = body.normalize
    zero_shot = found.task == "text-classification" and "candidate_labels" in options
    task = "zero-shot-classification" if zero_shot else found.task
    if unknown := sorted(options.keys() - _PARAMETERS[task]):
        raise Refused(
            422, f"{task} takes no {', '.join(unknown)}: it takes {', '.join(_PARAMETERS[task]) or 'nothing'}"
        )
    if zero_shot:
        options["zero_shot"] = True
    if task == "text-classification":
        options.setdefault("top_k", None)
    if task == "token-classification":
        options.setdefault("aggregation_strategy", "simple")
    if task == "feature-extraction":
        options.setdefault("normalize", False)
    many = isinstance(body.inputs, list)
    given: list[Any] = list(body.inputs) if isinstance(body.inputs, list) else [body.inputs]
    inputs = [one if isinstance(one, str) else one.model_dump() for one in given]
    _refuse_others(inputs, found.task)
    answers = await answer(request, found, inputs, **options)
    # Labels of one text come in a list of lists, and a vector in a list of vectors: so the hub has it.
    nested = task in ("text-classification", "feature-extraction")
    values = [v1.labels(one) for one in answers.values] if zero_shot else answers.values
    return Json(values if many or nested else values[0])


_KEYS = {
    "question-answering": {"question", "context"},
    "multiple-choice": {"prompt", "choices"},
}


def _refuse_others(inputs: list[Any], task: str) -> None:
    """Inputs of another task are refused here: a pipeline would say so with the text of the input."""
    wanted = _KEYS.get(task)
    for one in inputs:
        keys = set(one) if isinstance(one, dict) else None
        pair = task == "text-classification" and keys == {"text", "text_pair"}
        if keys != wanted and not pair:
            shape = "texts" if wanted is None else "objects with " + " and ".join(sorted(wanted))
            raise Refused(422, f"the inputs of {task} are {shape}")
