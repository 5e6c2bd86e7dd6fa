"""Routes of other APIs, for their clients: text-embeddings-inference's, and the hub's under /models/NAME."""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from pocketbert.pipelines import FeatureExtraction
from pocketbert.serve import other_schemas, schemas, v1
from pocketbert.serve.errors import JsonResponse
from pocketbert.serve.models import Model
from pocketbert.serve.routes import Routes
from pocketbert.serve.service import RequestError, note_truncated, run_model, service_of


class TeiError(schemas.Schema):
    """An error in the form of text-embeddings-inference; the hub's clients read `error`."""

    error: str
    error_type: str


routes = Routes(
    tags=["compatible"],
    responses={status: {"model": TeiError} for status in (400, 401, 404, 408, 413, 422, 429, 503)},
)


# ── text-embeddings-inference ──


@routes.post("/predict", response_model=list[schemas.LabelScore] | list[list[schemas.LabelScore]])
async def predict(body: other_schemas.TeiPredictRequest, request: Request) -> Response:
    """All labels of a text or a pair; for a list of texts or pairs, a list of these."""
    model = service_of(request).model(body.model, "text-classification")
    many = not isinstance(body.inputs, str) and isinstance(body.inputs[0], list) if body.inputs else True
    inputs = [_text_or_pair(one) for one in (list(body.inputs) if many else [body.inputs])]
    options: dict[str, Any] = {
        "top_k": None, "function_to_apply": "none" if body.raw_scores else None, "truncate": body.truncate,
        "left": v1.is_left(body.truncation_direction), "windows": body.windows,
    }  # fmt: skip
    # The pipeline takes texts or pairs, not both.
    values: list[Any] = [None] * len(inputs)
    for paired in (False, True):
        indices = [i for i, one in enumerate(inputs) if isinstance(one, dict) is paired]
        if indices:
            alike = [inputs[i] for i in indices]
            predictions = await run_model(request, model, alike, **options)
            for i, value in zip(indices, predictions.values, strict=True):
                values[i] = value
    return JsonResponse(values if many else values[0])


def _text_or_pair(texts: Any) -> Any:
    if isinstance(texts, str):
        return texts
    return texts[0] if len(texts) == 1 else {"text": texts[0], "text_pair": texts[1]}


@routes.post("/classify", response_model=other_schemas.VllmClassifyResponse)
async def classify(body: other_schemas.VllmClassifyRequest, request: Request) -> Response:
    """All probabilities of each text, in the form of vLLM."""
    return await v1.vllm_classify(body, request)


@routes.post("/tokenize", response_model=list[list[other_schemas.TeiToken]])
async def tokenize(body: other_schemas.TeiTokenizeRequest, request: Request) -> Response:
    """The tokens of each text, as the model reads them."""
    service = service_of(request)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if len(texts) > service.settings.limits.texts:
        raise RequestError(413, f"{len(texts):,} texts in one request: the limit is {service.settings.limits.texts:,}")
    model = service.model(body.model or next(iter(service.models)), None)
    if body.prompt_name is not None:
        if not isinstance(model.pipeline, FeatureExtraction):
            raise RequestError(422, f"{model.name} has no prompts")
        prompt = model.pipeline.prompt(body.prompt_name)
        texts = [prompt + text for text in texts]
    tokens, truncated = model.tokens(texts, body.add_special_tokens)
    note_truncated(request, truncated)
    return JsonResponse(tokens)


@routes.post("/decode", response_model=list[str])
async def decode(body: other_schemas.TeiDecodeRequest, request: Request) -> Response:
    """The text of each list of token ids."""
    service = service_of(request)
    rows = [body.ids] if body.ids and isinstance(body.ids[0], int) else list(body.ids)
    if len(rows) > service.settings.limits.texts:
        raise RequestError(413, f"{len(rows):,} lists in one request: the limit is {service.settings.limits.texts:,}")
    tokenizer = service.model(body.model or next(iter(service.models)), None).pipeline.tokenizer
    return JsonResponse([tokenizer.decode(row, skip_special_tokens=body.skip_special_tokens) for row in rows])


@routes.get("/info", response_model=dict[str, Any])
async def info(request: Request) -> Response:
    """Describe the default model and the limits of the service."""
    service = service_of(request)
    model, settings = next(iter(service.models.values())), service.settings
    limits = settings.limits
    config = model.pipeline.config
    kinds: dict[str, dict[str, Any]] = {
        "text-classification": {"classifier": {"id2label": config.id2label, "label2id": config.label2id}},
    }
    if isinstance(model.pipeline, FeatureExtraction):
        kinds[model.task] = {"embedding": {"pooling": "+".join(model.pipeline.declared.poolings)}}
    return JsonResponse(
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
    "text-classification": {"top_k", "function_to_apply", "windows"},
    "zero-shot-classification": {"candidate_labels", "hypothesis_template", "multi_label", "windows"},
    "token-classification": {"aggregation_strategy", "ignore_labels", "stride"},
    "question-answering": {
        "top_k", "handle_impossible_answer", "max_answer_len", "max_seq_len", "max_question_len", "doc_stride",
        "align_to_words",
    },
    "fill-mask": {"top_k", "targets"},
    "multiple-choice": set(),
    "feature-extraction": {"normalize", "prompt_name", "truncate", "truncation_direction", "windows"},
}  # fmt: skip
_BESIDE = {"normalize", "prompt_name", "truncate", "truncation_direction"}  # which clients send beside the inputs, too


@routes.post("/models/{name}", response_model=None)
async def model(name: str, body: other_schemas.HubRequest, request: Request) -> Response:
    """Run a model's task; inputs and results have the form of its pipeline."""
    served = service_of(request).model(name, None)
    options = body.parameters.model_dump(exclude_none=True)
    options |= body.model_dump(include=_BESIDE, exclude_none=True)
    zero_shot = served.task == "text-classification" and "candidate_labels" in options
    task = "zero-shot-classification" if zero_shot else served.task
    if unknown := sorted(options.keys() - _PARAMETERS[task]):
        known = ", ".join(sorted(_PARAMETERS[task])) or "none"
        raise RequestError(422, f"{task} takes no {', '.join(unknown)}; its parameters: {known}")
    if zero_shot:
        options["zero_shot"] = True
    if task == "text-classification":
        options.setdefault("top_k", None)
    if task == "token-classification":
        options.setdefault("aggregation_strategy", "simple")
    if task == "feature-extraction":
        options = {"pooling": "declared", "normalize": False, **options}
        options["left"] = v1.is_left(options.pop("truncation_direction", None))
        if isinstance(body.inputs, other_schemas.SimilarityInput):
            return await similarity(request, served, body.inputs, **options)
    many = isinstance(body.inputs, list)
    bodies: list[Any] = list(body.inputs) if isinstance(body.inputs, list) else [body.inputs]
    inputs = [one if isinstance(one, str) else one.model_dump() for one in bodies]
    _check_inputs(inputs, served.task)
    predictions = await run_model(request, served, inputs, **options)
    # The hub returns labels of one text in a list of lists, and one vector in a list of vectors.
    nested = task in ("text-classification", "feature-extraction")
    values = [v1.label_scores(value) for value in predictions.values] if zero_shot else predictions.values
    return JsonResponse(values if many or nested else values[0])


async def similarity(request: Request, model: Model, inputs: other_schemas.SimilarityInput, **options: Any) -> Response:
    """The cosines of the vector of a text with those of others; options as of the pipeline."""
    texts = [inputs.source_sentence, *inputs.sentences]
    predictions = await run_model(request, model, texts, **options | {"pooling": "declared", "normalize": True})
    first, *others = (np.asarray(vector, np.float32) for vector in predictions.values)
    return JsonResponse([float(first @ other) for other in others])


_KEYS = {
    "question-answering": {"question", "context"},
    "multiple-choice": {"prompt", "choices"},
}


def _check_inputs(inputs: list[Any], task: str) -> None:
    """Reject inputs of another task here: the error of a pipeline would repeat the text of the input."""
    wanted = _KEYS.get(task)
    for one in inputs:
        keys = set(one) if isinstance(one, dict) else None
        pair = task == "text-classification" and keys == {"text", "text_pair"}
        if keys != wanted and not pair:
            shape = "texts" if wanted is None else "objects with " + " and ".join(sorted(wanted))
            raise RequestError(422, f"the inputs of {task} must be {shape}")
