"""Settings of a service: plain data, so that worker processes can be started with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from pocketbert.errors import ConfigError
from pocketbert.options import Options, Panel, option

KEYS = "POCKETBERT_API_KEYS"
LIMITS = Panel("Limits")
_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True, kw_only=True)
class Limits(Options):
    """What one client can request. Beyond a limit the response is 413 or 422; 429 or 503 where it is a matter of time.

    Raises `ConfigError` for values that are not positive.
    """

    body: int = field(
        default=2 << 20,
        metadata=LIMITS.option(
            "Maximum size of a request's body, or of a line in a stream.", "BYTES", names=["--max-body"]
        ),
    )
    texts: int = field(
        default=1024,
        metadata=LIMITS.option(
            "Maximum number of sequences per request: texts, choices, or texts times labels.",
            "N",
            names=["--max-texts"],
        ),
    )
    tokens: int = field(
        default=1 << 17, metadata=LIMITS.option("Maximum number of tokens per request.", "N", names=["--max-tokens"])
    )
    queue: int = field(
        default=2048,
        metadata=LIMITS.option(
            "Maximum number of concurrent requests, whose bodies are all in memory.", "N", names=["--max-queue"]
        ),
    )
    wait: float = field(
        default=0.5,
        metadata=LIMITS.option(
            "Reject requests that would wait longer than this (429).", "SECONDS", names=["--max-wait"]
        ),
    )
    time: float = field(
        default=30.0,
        metadata=LIMITS.option(
            "Maximum time to receive a request, and to respond to it.", "SECONDS", names=["--max-time"]
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for limit in fields(self):
            self._check(limit.name, getattr(self, limit.name) > 0, "must be positive")


@dataclass(frozen=True, kw_only=True)
class Key:
    """An API key: its name, for metrics and the log, and what it allows. Zero is no limit."""

    name: str
    secret: str = field(repr=False)
    requests_per_minute: float = 0
    tokens_per_minute: float = 0
    concurrent: float = 0
    reload: bool = False
    """Whether `POST /admin/reload` accepts it."""


@dataclass(frozen=True)
class Settings(Options):
    """Settings of one service.

    Raises `ConfigError` for values that are out of range.
    """

    models: tuple[tuple[str, str], ...]
    """The name of each model, and its folder or hub name; the first is the default."""
    host: str = field(
        default="127.0.0.1", metadata=option("Address to listen on; 0.0.0.0 for every network interface.", "ADDRESS")
    )
    port: int = field(default=8000, metadata=option("Port to listen on; 0 for any free one.", "N"))
    workers: int = field(default=1, metadata=option("Worker processes, each with all models.", "N"))
    keys: tuple[Key, ...] = ()
    """The API keys of which a request must have one, if there are any."""
    key_file: Path | None = None
    """The file that they are from, for reloads; None if they are from the environment."""
    tls_cert: Path | None = field(
        default=None,
        metadata=Panel("Access").option(
            "Certificate with its chain, as a PEM file: the service speaks HTTPS. Needs --tls-key.",
            "FILE",
        ),
    )
    tls_key: Path | None = field(
        default=None, metadata=Panel("Access").option("Key of the certificate, as a PEM file.", "FILE")
    )
    cors: tuple[str, ...] = field(
        default=(),
        metadata=Panel("Access").option("Allowed CORS origin, may be repeated; * allows any.", "ORIGIN", repeated=True),
    )
    allowed_hosts: tuple[str, ...] = field(
        default=(),
        metadata=Panel("Access").option(
            "Allowed Host header, without a port; may be repeated; * allows any.", "HOST", repeated=True,
            names=["--allowed-host"], default="names of this machine on a loopback address; any elsewhere",
        ),
    )  # fmt: skip
    otlp: str | None = field(
        default=None,
        metadata=option(
            "Send metrics to an OpenTelemetry collector at this address, such as http://localhost:4318.", "URL"
        ),
    )
    limits: Limits = Limits()
    log: bool = field(default=True, metadata=option("Log every request as a JSON line, without its texts."))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("port", 0 <= self.port <= 65535, "must lie in [0, 65535]")
        self._check("workers", 1 <= self.workers <= 256, "must lie in [1, 256]")
        is_address = self.otlp is None or urlsplit(self.otlp).scheme in ("http", "https")
        self._check("otlp", is_address, "must be an address such as http://localhost:4318")
        self._check("tls_cert", self.tls_cert is None or self.tls_key is not None, "needs --tls-key")
        self._check("tls_key", self.tls_key is None or self.tls_cert is not None, "needs --tls-cert")

    @property
    def hosts(self) -> frozenset[str] | None:
        """The hosts that requests may name; None if any.

        On a loopback address, a page of another site could otherwise have its own name resolve to this machine, and
        read the responses of the service in a browser (DNS rebinding).
        """
        if "*" in self.allowed_hosts:
            return None
        if self.allowed_hosts:
            return frozenset(host.lower() for host in self.allowed_hosts)
        loopback = self.host == "localhost" or self.host.startswith("127.") or self.host == "::1"
        own = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset({"localhost", "127.0.0.1", "[::1]", own}) if loopback else None


def named(models: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Names and models, from `NAME=MODEL` or `MODEL`, which is named after the last part of its path.

    Raises `ConfigError` for a name that cannot be part of a URL, or that two models have.
    """
    pairs = []
    for argument in models:
        name, equals, model = argument.partition("=")
        if not equals or "/" in name:  # a folder may have one in its name
            name, model = "", argument
        name = name or Path(model).resolve().name
        if not _NAME.fullmatch(name):
            raise ConfigError(f"the name {name!r} cannot be part of a URL: name the model with NAME={model}")
        pairs.append((name, model))
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models are called {name!r}: name one of them with NAME=MODEL")
    return tuple(pairs)
