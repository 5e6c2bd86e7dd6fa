"""What a service serves and what it allows: plain data, so that workers can be started with it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from pocketbert.errors import ConfigError

KEYS = "POCKETBERT_API_KEYS"
_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True)
class Limits:
    """What one client can ask for. Beyond them the answer is 413 or 422, and 429 where it is a matter of time."""

    body: int = 2 << 20  # bytes; of a line, where lines are streamed
    texts: int = 1024  # sequences in a request: texts, choices, or texts times labels of your own
    tokens: int = 1 << 17  # in a request
    queue: int = 2048  # requests that are being answered at a time: they and their bodies are in memory
    wait: float = 1.0  # seconds that a request may be expected to wait
    time: float = 30.0  # seconds to send a body, and to answer it


@dataclass(frozen=True)
class Settings:
    """One service."""

    models: tuple[tuple[str, str], ...]  # name, and folder or hub name; the first is the default
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    keys: tuple[str, ...] = field(default=(), repr=False)
    cors: tuple[str, ...] = ()
    limits: Limits = Limits()
    log: bool = True  # a line for every request


def named(models: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """`NAME=MODEL` or `MODEL`, which is named after the last part of its path."""
    pairs = []
    for one in models:
        name, equals, where = one.partition("=")
        if not equals or "/" in name:  # a folder may have one in its name
            name, where = "", one
        name = name or Path(where).resolve().name
        if not _NAME.fullmatch(name):
            raise ConfigError(f"a model cannot be called {name!r} in an address: say NAME={where}")
        pairs.append((name, where))
    if doubled := {name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1}:
        raise ConfigError(f"two models are called {doubled.pop()!r}: say NAME=MODEL for one of them")
    return tuple(pairs)


def read_keys(path: Path | None) -> tuple[str, ...]:
    """The API keys of a file, one a line, or of the environment, with commas; lines that begin with # do not count."""
    if path is None:
        return tuple(key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip())
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ConfigError(f"{path} holds no API key: write one a line")
    return keys
