"""Error responses: the status, and the shape that the clients of a route read. Request contents are never repeated."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable",
}
_TEI = {413: "Validation", 422: "Validation", 429: "Overloaded", 503: "Unhealthy", 500: "Backend"}


class JsonResponse(Response):
    """Compact JSON in UTF-8."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Serialize `content`; raises `ValueError` for NaN and infinity."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    @staticmethod
    def line(content: Any) -> bytes:
        """A line of a stream."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def error_response(
    path: str,
    status: int,
    message: str,
    *,
    field: str | None = None,
    retry: float | None = None,
    close: bool = False,
) -> Response:
    """An error for the clients of `path`: OpenAI's under /v1, the Open Inference Protocol's, or the hub's and TEI's.

    Args:
        path: of the request.
        status: of the response.
        message: for people.
        field: of the body, if one is wrong.
        retry: seconds after which the client may retry.
        close: end the connection, on which the rest of a request may still come.
    """
    kind = TYPES.get(status, "invalid_request_error")
    content: Mapping[str, Any]
    if path.startswith("/v1/"):
        content = {"error": {"message": message, "type": kind, "code": str(status), "param": field}}
    elif path == "/v2" or path.startswith(("/v2/models", "/v2/health")):
        content = {"error": message}
    else:
        content = {"error": message, "error_type": _TEI.get(status, kind)}
    headers = {} if retry is None else {"retry-after": str(max(1, math.ceil(retry)))}
    if close:
        headers["connection"] = "close"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JsonResponse(content, status, headers)
