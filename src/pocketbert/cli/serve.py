"""Serving: serve."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pocketbert.bundles import BUNDLED, SENTIMENT
from pocketbert.cli import console
from pocketbert.cli.commands import PATH, click_argument, click_option, command
from pocketbert.cli.options import build, options_of
from pocketbert.serve.settings import KEYS, Limits, Settings, named


@command(
    examples=[
        "pocketbert serve",
        "pocketbert serve my-model --port 9000",
        "pocketbert serve reviews=my-classifier names=my-tagger",
        "pocketbert serve my-model --host 0.0.0.0 --api-keys keys.txt",
        "pocketbert serve my-model --tls-cert cert.pem --tls-key key.pem",
    ]
)
@click_argument(
    "model",
    nargs=-1,
    help="Model folders or hub names, or NAME=MODEL.",
    default_text=f"{SENTIMENT}, bundled",
)
@options_of(Settings)
@click_option(
    "--api-keys", type=PATH, metavar="FILE", panel="Access", default_text=f"those in {KEYS}, if set",
    help="File of API keys that requests must present: one per line, or a TOML file with names and limits.",
)  # fmt: skip
@options_of(Limits)
def serve(model: Sequence[str], api_keys: Path | None, **values: Any) -> None:
    """Serve models over HTTP, with a web page to try them.

    SIGTERM stops the service after the requests in progress; SIGHUP reloads models and API keys.
    """
    from pocketbert.errors import require

    require("serve")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from pocketbert.serve import server
    from pocketbert.serve.keys import read_keys

    gc.disable()  # until the models are loaded
    limits = build(Limits, {name: values.pop(name) for name in (limit.name for limit in fields(Limits))})
    models = named(tuple(model) or (str(BUNDLED / SENTIMENT),))
    keys = {"keys": read_keys(api_keys), "key_file": api_keys}
    if values["otlp"] is not None:
        require("otlp")
    settings = build(Settings, {"models": models, **keys, "limits": limits, **values})

    def ready(port: int) -> None:
        gc.enable()
        names = ", ".join(name for name, _ in settings.models)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "http" if settings.tls_cert is None else "https"
        console.print_line(f"{names}: {scheme}://{host}:{port} ready after {_age():.2f} s")

    server.serve(settings, ready)


def _age() -> float:
    """Seconds since this process began."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return time.process_time()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
