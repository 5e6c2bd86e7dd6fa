"""Reloading: models, API keys and certificate are read again beside those in use, proven, and then take their place.

What cannot be read, or fails its probe, leaves everything as it was. Requests in progress are completed by the
models that they began with, whose memory is released after the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import math
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from pocketbert.errors import PocketBertError
from pocketbert.serve.batching import Worker
from pocketbert.serve.errors import JsonResponse
from pocketbert.serve.keys import KeyUse, read_keys
from pocketbert.serve.models import Model, Models
from pocketbert.serve.routes import Routes
from pocketbert.serve.service import RequestError, service_of
from pocketbert.serve.settings import Key, Settings
from pocketbert.serve.tls import Certificate

TEXT = "A small model reads this text in Paris."
logger = logging.getLogger("pocketbert.serve")
routes = Routes()


class ReloadError(Exception):
    """Nothing was reloaded, and the service goes on with what it had; `status` is that of the response."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


SETTLE = 0.5  # seconds in which the last request that used old models ends
BUSY = 409  # the status while another reload is in progress


@dataclass(frozen=True)
class Prepared:
    """What takes the place of what is in use."""

    models: Models
    keys: tuple[Key, ...] | None


class Reloader:
    """Reads the models, keys and certificate of a service again.

    Args:
        settings: of the service. What else they hold cannot change while it runs.
        load: loads the models, in a thread.
        swap: replaces the models, and the keys if there are any, and returns the models of before.
        certificate: that of the service.
        count: is told whether a reload succeeded.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Models],
        swap: Callable[[Models, tuple[Key, ...] | None], Models],
        certificate: Certificate | None,
        count: Callable[[bool], None],
    ) -> None:
        self.settings, self.certificate = settings, certificate
        self._load, self._swap, self._count = load, swap, count
        self._prepared: Prepared | None = None
        self._busy = False
        self.ask: Callable[[], Awaitable[None]] = self.reload
        """What a client's request for a reload does; of one of several workers, it asks the supervisor."""

    async def reload(self) -> None:
        """Prepare and commit; raises `ReloadError`."""
        await self.prepare()
        self.commit()

    async def prepare(self) -> None:
        """Load everything beside what is in use, and prove it; raises `ReloadError`."""
        if self._busy:
            raise ReloadError("a reload is in progress: retry when it has finished", BUSY)
        self._busy, started = True, time.monotonic()
        models: Models | None = None
        try:
            keys = None if self.settings.key_file is None else read_keys(self.settings.key_file)
            if self.certificate is not None:
                self.certificate.check()
            models = await asyncio.to_thread(self._load)
            for model in models.values():
                await prove(model)
        except Exception as error:
            self._busy = False
            if models is not None:
                models.worker.stop()
            known = isinstance(error, PocketBertError | OSError | ProbeError)
            if not known:
                logger.exception("the reload failed")
            reason = str(error) if known else f"{type(error).__name__}; the service's log has the details"
            message = f"reload failed, and the service continues with its previous models and API keys: {reason}"
            logger.warning("%s", message)
            self._count(False)
            raise ReloadError(message) from None
        self._prepared = Prepared(models, keys)
        logger.warning("reloaded in %.2f s: %s", time.monotonic() - started, ", ".join(models))

    def commit(self) -> None:
        """Use what was prepared, from the next request on."""
        assert self._prepared is not None
        prepared, self._prepared, self._busy = self._prepared, None, False
        if self.certificate is not None:
            self.certificate.install()
        stop_when_unused(self._swap(prepared.models, prepared.keys))
        self._count(True)

    def abort(self) -> None:
        """Forget what was prepared, because another process could not."""
        if self._prepared is not None:
            self._prepared.models.worker.stop()
        self._prepared, self._busy = None, False


def stop_when_unused(models: Models) -> None:
    """End the compute thread of models as soon as no request uses any of them, and release their memory."""
    worker, left = models.worker, len(models)

    def count_down() -> None:
        nonlocal left
        left -= 1
        if not left:
            worker.end()

    for model in models.values():
        weakref.finalize(model, count_down).atexit = False
    threading.Thread(target=_release, args=([worker],), name="pocketbert-release", daemon=True).start()


def _release(of_models: list[Worker]) -> None:
    """Return the memory of models to the system, when their compute thread has ended.

    Args:
        of_models: the one worker, taken out of the list, because the thread keeps its arguments as long as it runs.

    Their small blocks would otherwise stay as holes in the heap, a tenth of the models' size after a few reloads.
    """
    worker = of_models.pop()
    worker.join()
    del worker
    time.sleep(SETTLE)
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


# ── the probe ──


class ProbeError(Exception):
    """A model does not compute what a model of its task does."""


def _probe(model: Model) -> tuple[list[Any], dict[str, Any]]:
    """Inputs for a model, of several lengths so that they share a batch; and options."""
    texts = [TEXT, " ".join([TEXT] * 20), "Yes."]
    if model.task == "question-answering":
        return [{"question": "Where?", "context": text} for text in texts], {}
    if model.task == "multiple-choice":
        return [{"prompt": TEXT, "choices": texts}], {}
    if model.task == "fill-mask":
        return [f"{model.pipeline.tokenizer.mask_token} {text}" for text in texts], {}
    if model.task == "feature-extraction":
        return list(texts), {"pooling": "declared"}
    return list(texts), {}


async def prove(model: Model) -> None:
    """Run a batch of probes through a model.

    Raises:
        ProbeError: it fails, or a number in its results is not finite.
    """
    inputs, options = _probe(model)
    try:
        found = await model.predict(inputs, **options)
    except Exception as error:
        raise ProbeError(f"{model.name} fails its test request: {error or type(error).__name__}") from error
    if len(found.values) != len(inputs) or not all(map(_is_finite, found.values)):
        raise ProbeError(f"{model.name} fails its test request: a result is not a finite number")


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list | tuple) else True


# ── the route ──


@routes.post("/admin/reload", tags=["service"], response_model=None, responses={403: {}, 409: {}, 500: {}})
async def reload(request: Request) -> Response:
    """Read models, API keys and certificate again; needs a key that may, or else send SIGHUP to the process.

    There is no exception for loopback addresses: behind a proxy on the same machine all clients have one, and any page
    that a browser on it shows can send such a request.
    """
    use: KeyUse | None = request.scope.get("key")
    if use is None or not use.key.reload:
        raise RequestError(
            403, "reloading by a request needs an API key with `reload = true` in its table; SIGHUP needs none"
        )
    started = time.monotonic()
    try:
        await request.app.state.reloader.ask()
    except ReloadError as error:
        raise RequestError(error.status, str(error)) from None
    names = list(service_of(request).models)
    return JsonResponse({"models": names, "seconds": round(time.monotonic() - started, 3)})
