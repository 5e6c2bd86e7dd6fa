"""Shared by all routes: the service behind a request, its models, and predictions within the time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from opentelemetry import propagate, trace
from starlette.requests import Request

from pocketbert.serve.batching import ServerBusyError
from pocketbert.serve.models import Model, Models, Predictions
from pocketbert.serve.settings import Settings

TRACER = trace.get_tracer("pocketbert")  # does nothing until OpenTelemetry's SDK is installed and configured
RETRY_INTERVAL = 0.05  # seconds between two attempts of a request that can wait


class RequestError(Exception):
    """A request cannot be served; `status` is that of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """The models of a service, and its settings."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self.settings, self.models = settings, models

    def model(self, name: str | None, task: str | None) -> Model:
        """The model called `name`, or the first of a task.

        Raises:
            RequestError: there is no such model, or it has another task.
        """
        model = self.models.get(name) if name is not None else self.models.of_task(task or "")
        if model is None:
            wanted = "of that name" if name is not None else f"for {task}"
            raise RequestError(404, f"no model {wanted}: GET /v1/models lists the models")
        if task is not None and model.task != task:
            raise RequestError(422, f"{model.name} is a model for {model.task}, not for {task}")
        return model


def service_of(request: Request) -> Service:
    """The service that received a request."""
    service: Service = request.app.state.service
    return service


async def run_model(
    request: Request, model: Model, inputs: Sequence[Any], *, patient: bool = False, **options: Any
) -> Predictions:
    """`Model.predict` within the time limit; with `patient`, wait for room in the queue."""
    limits = service_of(request).settings.limits
    caller = propagate.extract(request.headers) if "traceparent" in request.headers else None
    with TRACER.start_as_current_span("pocketbert.answer", caller, kind=trace.SpanKind.SERVER) as span:
        try:
            async with asyncio.timeout(limits.time):
                predictions = await _run_patiently(model, inputs, patient, options)
        except TimeoutError:
            raise RequestError(503, f"the response took longer than {limits.time:g} s") from None
        if span.is_recording():
            span.set_attributes(
                {
                    "pocketbert.model": model.name,
                    "pocketbert.texts": len(inputs),
                    "pocketbert.tokens": predictions.tokens,
                    "pocketbert.wait_ms": 1000 * predictions.wait,
                    "pocketbert.compute_ms": 1000 * predictions.compute,
                }
            )
    usage = request.scope["usage"]
    note_truncated(request, len(predictions.truncated))
    usage.update(
        model=model.name,
        texts=usage.get("texts", 0) + len(inputs),
        tokens=usage.get("tokens", 0) + predictions.tokens,
        wait_ms=round(1000 * predictions.wait, 2),
        compute_ms=round(1000 * predictions.compute, 2),
    )
    return predictions


def note_truncated(request: Request, count: int) -> None:
    """Count inputs of a request that were cut, for its log and the header `x-truncated` of its response."""
    if count:
        usage = request.scope["usage"]
        usage["truncated"] = usage.get("truncated", 0) + count


async def _run_patiently(model: Model, inputs: Sequence[Any], patient: bool, options: dict[str, Any]) -> Predictions:
    while True:
        try:
            return await model.predict(inputs, **options)
        except ServerBusyError:
            if not patient:
                raise
        await asyncio.sleep(RETRY_INTERVAL)
