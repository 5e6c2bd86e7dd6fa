"""Answer over HTTP: serve."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path

import click

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, argument, command, option


@command(
    examples=[
        "pocketbert serve",
        "pocketbert serve my-model --port 9000",
        "pocketbert serve reviews=my-classifier names=my-tagger",
        "pocketbert serve my-model --host 0.0.0.0 --api-keys keys.txt",
    ]
)
@argument("model", nargs=-1, help="Folders or hub names, or NAME=MODEL; when not given, the bundled one.")
@option("--host", metavar="ADDRESS", default="127.0.0.1", help="Where to listen; 0.0.0.0 for all of the network.")
@option("--port", metavar="N", type=click.IntRange(0, 65535), default=8000, help="Where to listen; 0 for any free one.")
@option("--workers", metavar="N", type=click.IntRange(1, 256), default=1, help="Processes, each with all models.")
@option(
    "--api-keys", type=PATH, metavar="FILE", panel="Safety",
    help="Ask for one of these keys, one a line; else of those in POCKETBERT_API_KEYS, if it is set.",
)  # fmt: skip
@option("--cors", metavar="ORIGIN", multiple=True, panel="Safety", help="Let pages of this origin ask; * is any.")
@option(
    "--max-body", metavar="BYTES", type=click.IntRange(min=1), default=2 << 20, panel="Limits", help="Of a request."
)
@option("--max-texts", metavar="N", type=click.IntRange(min=1), default=1024, panel="Limits", help="In a request.")
@option("--max-tokens", metavar="N", type=click.IntRange(min=1), default=1 << 17, panel="Limits", help="In a request.")
@option(
    "--max-queue", metavar="N", type=click.IntRange(min=1), default=2048, panel="Limits", help="Requests at a time."
)
@option(
    "--max-wait", metavar="SECONDS", type=click.FloatRange(min=0.01), default=1.0, panel="Limits",
    help="Turn away what would wait longer (429).",
)  # fmt: skip
@option(
    "--max-time", metavar="SECONDS", type=click.FloatRange(min=0.01), default=30.0, panel="Limits",
    help="To send a request, and to answer it.",
)  # fmt: skip
@option("--log/--no-log", default=True, help="Write a line of JSON for every request, without its texts.")
def serve(
    model: Sequence[str],
    host: str,
    port: int,
    workers: int,
    api_keys: Path | None,
    cors: Sequence[str],
    max_body: int,
    max_texts: int,
    max_tokens: int,
    max_queue: int,
    max_wait: float,
    max_time: float,
    log: bool,
) -> None:
    """Serve models over HTTP, with a web page to try them.

    SIGTERM ends it when what is under way is answered.
    """
    from pocketbert.errors import require

    require("serve")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from pocketbert.pipelines import BUNDLED
    from pocketbert.serve import server
    from pocketbert.serve.settings import Limits, Settings, named, read_keys

    gc.disable()  # until the models are there
    settings = Settings(
        models=named(tuple(model) or (str(BUNDLED / "sst2"),)),
        host=host,
        port=port,
        workers=workers,
        keys=read_keys(api_keys),
        cors=tuple(cors),
        limits=Limits(max_body, max_texts, max_tokens, max_queue, max_wait, max_time),
        log=log,
    )

    def ready(found: int) -> None:
        gc.enable()
        names = ", ".join(name for name, _ in settings.models)
        place = f"[{host}]" if ":" in host else host
        console.print_line(f"{names}: http://{place}:{found} answers after {_age():.2f} s")

    server.serve(settings, ready)


def _age() -> float:
    """Seconds since this process began."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return time.process_time()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
