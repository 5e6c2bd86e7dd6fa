"""PocketBERT on Ray Serve: replicas of a pipeline on a cluster that runs other services as well.

    pip install 'pocketbert[ray]' 'ray[serve]'
    serve run ray_serve:build task=text-classification model=my-model replicas=4

    curl -s http://127.0.0.1:8000 -d '{"inputs": ["A fine film.", "A dull film."]}'

Each replica reads the model once and computes in one thread; requests that wait together become one batch, which
changes no result. Where nothing else needs the cluster, `pocketbert serve` on each machine, behind a proxy, does more:
it refuses what it cannot answer in time, and batches by tokens.
"""

import asyncio
import json
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from pocketbert import InputError, pipeline

LARGEST = 1 << 20  # bytes of a body
MOST = 256  # inputs of a request


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=64, max_queued_requests=256)
class Answers:
    """A pipeline over HTTP: `{"inputs": [...]}` in, a list of its results out."""

    def __init__(self, task: str, model: str | None) -> None:
        self.pipe = pipeline(task, model, model_kwargs={"threads": 1})

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)  # type: ignore[untyped-decorator] # Ray has no types
    async def answer(self, requests: list[list[Any]]) -> list[Any]:
        """The results of each request, or the error of one of its inputs."""
        return await asyncio.to_thread(self._answers, requests)

    def _answers(self, requests: list[list[Any]]) -> list[Any]:
        try:
            results = iter([one.value for one in self.pipe.stream([one for inputs in requests for one in inputs])])
            return [[next(results) for _ in inputs] for inputs in requests]
        except InputError as error:
            # One of them is to blame, and the others are not.
            return [error] if len(requests) == 1 else [self._answers([inputs])[0] for inputs in requests]

    async def __call__(self, request: Request) -> JSONResponse:
        """Answer a request; 413 and 422 say what is wrong with it."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return JSONResponse({"error": f"a body has at most {LARGEST:,} bytes"}, 413)
        try:
            inputs = json.loads(body)["inputs"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return JSONResponse({"error": 'the body must be JSON: {"inputs": ["…"]}'}, 422)
        if not isinstance(inputs, list) or not 0 < len(inputs) <= MOST:
            return JSONResponse({"error": f"inputs must be a list of 1 to {MOST} inputs"}, 422)
        found = await self.answer(inputs)
        if isinstance(found, InputError):
            return JSONResponse({"error": str(found)}, 422)
        return JSONResponse(found)


def build(arguments: dict[str, str]) -> serve.Application:
    """The application that `serve run` starts: `task`, and if they are not the defaults `model` and `replicas`."""
    replicas = int(arguments.get("replicas", "1"))
    deployment: Any = Answers  # which its decorator made of the class
    return deployment.options(num_replicas=replicas).bind(arguments["task"], arguments.get("model"))
