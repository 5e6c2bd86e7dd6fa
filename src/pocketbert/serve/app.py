"""The application: routes, errors, page, and the gate before all of them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from pocketbert.errors import InputError, TokenizerError
from pocketbert.serve import compatible, metrics, v1
from pocketbert.serve.batching import Busy
from pocketbert.serve.errors import Json, error, told
from pocketbert.serve.gate import Gate
from pocketbert.serve.models import Models, TooMuch
from pocketbert.serve.service import Refused, Service
from pocketbert.serve.settings import Settings

LOWER = 10  # niceness: a ninth of the share of time that the other threads get
PAGE = Path(__file__).parent / "page.html"
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(settings: Settings, models: Models) -> Gate:
    """The ASGI application of a service; `draining` of the result refuses new requests."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(models.worker.stop)

    app = FastAPI(
        title="PocketBERT",
        version="1",
        description="Small BERTs, fast on ordinary machines.",
        docs_url=None,  # both would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = Service(settings, models)
    app.include_router(v1.router, tags=["tasks"])
    app.include_router(compatible.router, tags=["compatible"])
    _errors(app)
    measured = metrics.Metrics(models)
    inner: Any = app
    if settings.cors:
        from starlette.middleware.cors import CORSMiddleware

        inner = CORSMiddleware(
            app, allow_origins=settings.cors, allow_methods=["GET", "POST"], allow_headers=["*"], max_age=600
        )
    gate = Gate(inner, settings, measured)
    _house(app, gate)
    return gate


def load_app(settings: Settings) -> Gate:
    """The application with its models read: what a worker begins with.

    The threads that compute give way to the one that reads and refuses, which needs little but needs it at once: who is
    late in being read waits as well. They are begun by one of low priority, which they inherit, on Linux.
    """
    with ThreadPoolExecutor(1, initializer=_give_way) as loading:
        return create_app(settings, loading.submit(Models, settings).result())


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere it would be the priority of the process
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + LOWER))


def _house(app: FastAPI, gate: Gate) -> None:
    """The page, the health of the service, its metrics."""
    page = PAGE.read_bytes()

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers={"content-security-policy": _POLICY})

    @app.get("/live", tags=["service"], response_model=None)
    async def live() -> Response:
        """The process answers."""
        return Json({"status": "ok"})

    async def ready() -> Response:
        """The service takes requests: 503 while it is being stopped."""
        return error("/", 503, "the service is being stopped") if gate.draining else Json({"status": "ok"})

    for path in ("/ready", "/health", "/ping"):
        app.get(path, tags=["service"], response_model=None, operation_id=path[1:], responses={503: {}})(ready)

    @app.get("/metrics", tags=["service"], response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Metrics as Prometheus reads them."""
        return Response(gate.metrics.text(), headers={"content-type": metrics.TYPE})


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> Response:
        problems = problem.errors()
        if problems and problems[0]["type"] == "json_invalid":
            return error(request.url.path, 400, "the body is not JSON")
        message, field = told(problems)
        return error(request.url.path, 422, message, field=field)

    @app.exception_handler(InputError)
    async def wrong(request: Request, problem: InputError) -> Response:
        return error(request.url.path, 422, str(problem)[:500], field="inputs")

    @app.exception_handler(TokenizerError)
    async def unreadable(request: Request, problem: TokenizerError) -> Response:
        return error(request.url.path, 422, str(problem)[:500], field="inputs")

    @app.exception_handler(TooMuch)
    async def too_much(request: Request, problem: TooMuch) -> Response:
        return error(request.url.path, 413, str(problem))

    @app.exception_handler(Busy)
    async def busy(request: Request, problem: Busy) -> Response:
        return error(request.url.path, 429, "too much to do: ask again in a moment", retry=problem.seconds)

    @app.exception_handler(Refused)
    async def refused(request: Request, problem: Refused) -> Response:
        return error(request.url.path, problem.status, str(problem), retry=1 if problem.status == 503 else None)

    @app.exception_handler(HTTPException)
    async def http(request: Request, problem: HTTPException) -> Response:
        answer = error(request.url.path, problem.status_code, str(problem.detail))
        answer.headers.update(problem.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def broken(request: Request, problem: Exception) -> Response:
        return error(request.url.path, 500, "something went wrong here, not in the request; the log says more")
