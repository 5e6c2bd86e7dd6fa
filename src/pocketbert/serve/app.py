"""The application: routes, error handlers, page, and the middleware around all of them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pocketbert.errors import InputError, TokenizerError
from pocketbert.serve import compatible, inference_protocol, metrics, reload, rerank, v1, vectors
from pocketbert.serve.batching import ServerBusyError, TooSlowError
from pocketbert.serve.errors import JsonResponse, error_response
from pocketbert.serve.invalid import InvalidError, describe
from pocketbert.serve.middleware import RequestGuard
from pocketbert.serve.models import Models, RequestTooLargeError
from pocketbert.serve.routes import Routes, as_starlette, document
from pocketbert.serve.service import RequestError, Service
from pocketbert.serve.settings import Key, Settings
from pocketbert.serve.tls import Certificate

NICENESS = 10  # of compute threads: a ninth of the processor time that the other threads get
PAGE = Path(__file__).parent / "page.html"
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(settings: Settings, load: Callable[[], Models], certificate: Certificate | None = None) -> RequestGuard:
    """The ASGI application of a service; it rejects new requests while its attribute `draining` is set.

    Args:
        settings: of the service.
        load: loads the models, now and for every reload.
        certificate: of the service, for reloads.
    """
    models = load()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.models.worker.stop)

    app = Starlette(exception_handlers=ERRORS, lifespan=lifespan)
    app.state.service = service = Service(settings, models)
    measured = metrics.Metrics(models)
    inner: Any = app
    if settings.cors:
        from starlette.middleware.cors import CORSMiddleware

        inner = CORSMiddleware(
            app, allow_origins=settings.cors, allow_methods=["GET", "POST"], allow_headers=["*"], max_age=600
        )
    guard = RequestGuard(inner, settings, measured)
    routes = [
        *v1.routes, *vectors.routes, *rerank.routes, *compatible.routes, *inference_protocol.routes, *reload.routes,
        *_service_routes(guard),
    ]  # fmt: skip
    app.router.routes += as_starlette([*routes, document(routes)])

    def swap(new: Models, keys: tuple[Key, ...] | None) -> Models:
        old, service.models = service.models, new
        measured.watch(new)
        if keys is not None:
            guard.keys.replace(keys)
        return old

    guard.reloader = app.state.reloader = reload.Reloader(settings, load, swap, certificate, measured.count_reload)
    return guard


def load_app(settings: Settings, certificate: Certificate | None = None) -> RequestGuard:
    """Load the models and create the application.

    The compute threads yield to the event loop, which needs little processor time but needs it at once: a request that
    is read late also waits late. They inherit the low priority of the thread that starts them, on Linux.
    """

    def load() -> Models:
        with ThreadPoolExecutor(1, initializer=_lower_priority) as loading:
            return loading.submit(Models, settings).result()

    return create_app(settings, load, certificate)


def _lower_priority() -> None:
    if sys.platform == "linux":  # elsewhere the priority is that of the whole process
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS))


def _service_routes(guard: RequestGuard) -> Routes:
    """The page, the health checks and the metrics."""
    routes, page = Routes(), PAGE.read_bytes()

    @routes.get("/", include_in_schema=False)
    async def root() -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers={"content-security-policy": _POLICY})

    @routes.get("/live", tags=["service"], response_model=None)
    async def live() -> Response:
        """Liveness: the process responds."""
        return JsonResponse({"status": "ok"})

    async def ready() -> Response:
        """Readiness: the service accepts requests; 503 while it shuts down."""
        if guard.draining:
            return error_response("/", 503, "the service is shutting down")
        return JsonResponse({"status": "ok"})

    for path in ("/ready", "/health", "/ping"):
        routes.get(path, tags=["service"], response_model=None, operation_id=path[1:], responses={503: {}})(ready)

    @routes.get("/v2/health/live", tags=["Open Inference Protocol"], response_model=None)
    async def is_live() -> Response:
        """Liveness in the form of the Open Inference Protocol."""
        return JsonResponse({"live": True})

    @routes.get("/v2/health/ready", tags=["Open Inference Protocol"], response_model=None, responses={503: {}})
    async def is_ready() -> Response:
        """Readiness in the form of the Open Inference Protocol."""
        return JsonResponse({"ready": not guard.draining}, 503 if guard.draining else 200)

    @routes.get("/metrics", tags=["service"], response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Metrics in Prometheus's text format."""
        return Response(guard.metrics.text(), headers={"content-type": metrics.TYPE})

    return routes


# ── errors ──


async def _invalid(request: Request, problem: InvalidError) -> Response:
    message, field = describe(problem.problems)
    return error_response(request.url.path, 422, message, field=field)


async def _wrong_input(request: Request, problem: InputError | TokenizerError) -> Response:
    return error_response(request.url.path, 422, str(problem)[:500], field="inputs")


async def _too_large(request: Request, problem: RequestTooLargeError | TooSlowError) -> Response:
    return error_response(request.url.path, 413, str(problem))


async def _busy(request: Request, problem: ServerBusyError) -> Response:
    message = "the service is overloaded: retry in a moment"
    return error_response(request.url.path, 429, message, retry=problem.seconds)


async def _rejected(request: Request, problem: RequestError) -> Response:
    retry = 1 if problem.status == 503 else None
    return error_response(request.url.path, problem.status, str(problem), retry=retry)


async def _http_error(request: Request, problem: HTTPException) -> Response:
    response = error_response(request.url.path, problem.status_code, str(problem.detail))
    response.headers.update(problem.headers or {})
    return response


async def _internal_error(request: Request, problem: Exception) -> Response:
    return error_response(request.url.path, 500, "internal error; the service's log has the details")


ERRORS: dict[Any, Any] = {
    InvalidError: _invalid,
    InputError: _wrong_input,
    TokenizerError: _wrong_input,
    TooSlowError: _too_large,
    RequestTooLargeError: _too_large,
    ServerBusyError: _busy,
    RequestError: _rejected,
    HTTPException: _http_error,
    Exception: _internal_error,
}
