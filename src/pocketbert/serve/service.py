"""What the routes share: the service behind a request, its models by name and task, and answers within the time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from opentelemetry import propagate, trace

from pocketbert.serve.batching import Busy
from pocketbert.serve.models import Answers, Model, Models
from pocketbert.serve.settings import Settings

TRACER = trace.get_tracer("pocketbert")  # does nothing until OpenTelemetry's SDK is installed and configured
PATIENT = 0.05  # seconds between two tries of what can wait


class Refused(Exception):
    """A request cannot be answered, for a reason with a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """The models and what is allowed."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self.settings, self.models = settings, models

    def model(self, name: str | None, task: str | None) -> Model:
        """The model called `name`, or the first of a task; it must do that task."""
        found = self.models.get(name) if name is not None else self.models.of_task(task or "")
        if found is None:
            wanted = "of that name" if name is not None else f"for {task}"
            raise Refused(404, f"there is no model {wanted} here: GET /v1/models lists what is")
        if task is not None and found.task != task:
            raise Refused(422, f"{found.name} is a model for {found.task}, not for {task}")
        return found


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


async def answer(
    request: Request, model: Model, inputs: Sequence[Any], *, patient: bool = False, **options: Any
) -> Answers:
    """`Model.answer` within the time that there is; `patient` ones wait for room in the queue."""
    if model.task == "feature-extraction":
        options["pooling"] = options.get("pooling") or model.pooling
    limits = service_of(request).settings.limits
    caller = propagate.extract(request.headers) if "traceparent" in request.headers else None
    with TRACER.start_as_current_span("pocketbert.answer", caller, kind=trace.SpanKind.SERVER) as span:
        try:
            async with asyncio.timeout(limits.time):
                found = await _answer(model, inputs, patient, options)
        except TimeoutError:
            raise Refused(503, f"the answer took longer than {limits.time:g} s") from None
        if span.is_recording():
            span.set_attributes(
                {
                    "pocketbert.model": model.name,
                    "pocketbert.texts": len(inputs),
                    "pocketbert.tokens": found.tokens,
                    "pocketbert.wait_ms": 1000 * found.wait,
                    "pocketbert.compute_ms": 1000 * found.compute,
                }
            )
    read = request.scope["read"]
    read.update(
        model=model.name,
        texts=read.get("texts", 0) + len(inputs),
        tokens=read.get("tokens", 0) + found.tokens,
        wait_ms=round(1000 * found.wait, 2),
        compute_ms=round(1000 * found.compute, 2),
    )
    return found


async def _answer(model: Model, inputs: Sequence[Any], patient: bool, options: dict[str, Any]) -> Answers:
    while True:
        try:
            return await model.answer(inputs, **options)
        except Busy:
            if not patient:
                raise
        await asyncio.sleep(PATIENT)
