"""Routes: from a request to the call of a handler, and the OpenAPI document of all of them.

FastAPI writes the document when somebody asks for it, and that is all it does here: to import it, and to prepare its
routes and their schemas, takes longer than to load a model, and its layers longer than ours for a request.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from inspect import signature
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from pocketbert.serve.invalid import InvalidError
from pocketbert.serve.service import RequestError

Handler = Callable[..., Awaitable[Response]]
H = TypeVar("H", bound=Handler)
_JSON = re.compile(r"application/([\w.-]+\+)?json")


class Route:
    """One route; an ASGI application.

    Args:
        method: GET or POST.
        path: with the names of its variable parts in braces.
        handler: takes those parts, `body` if the request has one, and `request`; whichever it has as parameters.
        described: its description for FastAPI, which writes the document.
    """

    def __init__(self, method: str, path: str, handler: Handler, described: dict[str, Any]) -> None:
        self.method, self.path, self.handler, self.described = method, path, handler, described
        self._takes = signature(handler).parameters

    @cached_property
    def _body(self) -> TypeAdapter[Any]:
        """Of the body; built for the first request, because there are many of which none is ever used."""
        return TypeAdapter(get_type_hints(self.handler, include_extras=True)["body"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request. Raises what the handler raises, `RequestError`, and `InvalidError` for its body."""
        scope["route"] = self  # for metrics and the log
        request = Request(scope, receive)
        values = dict(scope["path_params"])
        if "body" in self._takes:
            values["body"] = self._parsed(await request.body(), request.headers.get("content-type", ""))
        if "request" in self._takes:
            values["request"] = request
        response = await self.handler(**values)
        await response(scope, receive, send)

    def _parsed(self, data: bytes, kind: str) -> Any:
        """The body of a request; one that is not said to be JSON may come from a form of any web page."""
        if not data:
            raise RequestError(422, "the body is missing")
        kind = kind.partition(";")[0].strip().lower()
        if not _JSON.fullmatch(kind):
            sent = f", not {kind:.60}" if kind else ""
            raise RequestError(422, f"the body must be JSON, sent with the header Content-Type: application/json{sent}")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise RequestError(400, "the body is not JSON") from None
        try:
            return self._body.validate_python(value)
        except ValidationError as error:
            raise InvalidError(error, "body") from None


class Routes:
    """Routes with something in common.

    Args:
        prefix: of their paths.
        **described: of all of them, for the document.
    """

    def __init__(self, prefix: str = "", **described: Any) -> None:
        self.prefix, self._described = prefix, described
        self._routes: list[Route] = []

    def get(self, path: str, **described: Any) -> Callable[[H], H]:
        """Add a route for GET: a decorator of its handler."""
        return self._adding("GET", path, described)

    def post(self, path: str, **described: Any) -> Callable[[H], H]:
        """Add a route for POST: a decorator of its handler."""
        return self._adding("POST", path, described)

    def _adding(self, method: str, path: str, described: dict[str, Any]) -> Callable[[H], H]:
        def add(handler: H) -> H:
            both = {**self._described, **described}
            both["responses"] = {**self._described.get("responses", {}), **described.get("responses", {})}
            self._routes.append(Route(method, self.prefix + path, handler, both))
            return handler

        return add

    def __iter__(self) -> Iterator[Route]:
        """The routes, in order: the first that fits a request gets it."""
        return iter(self._routes)


def as_starlette(routes: Iterable[Route]) -> list[StarletteRoute]:
    """The routes for Starlette, which finds the one of a request."""
    return [StarletteRoute(route.path, route, methods=[route.method]) for route in routes]


def document(routes: Sequence[Route]) -> Route:
    """The route of the OpenAPI document, which is written for the first request."""
    written: list[bytes] = []

    async def openapi() -> Response:
        if not written:
            written.append(await asyncio.to_thread(_written, routes))
        return Response(written[0], media_type="application/json")

    return Route("GET", "/openapi.json", openapi, {})


def _written(routes: Sequence[Route]) -> bytes:
    from fastapi import FastAPI

    app = FastAPI(title="PocketBERT", version="1", description="Small BERTs, fast on ordinary machines.")
    for route in routes:
        app.add_api_route(route.path, route.handler, methods=[route.method], **route.described)
    return json.dumps(app.openapi(), separators=(",", ":")).encode()
