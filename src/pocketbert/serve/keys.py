"""API keys: read from a file or the environment, each with a name and limits of its own."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pocketbert.errors import ConfigError
from pocketbert.serve.settings import KEYS, Key

_SECRET = re.compile(r"[!-~]+")  # what a header can carry
_NAME = re.compile(r"[\w.-]{1,100}")


def read_keys(path: Path | None) -> tuple[Key, ...]:
    """The API keys of a file; or those of the environment, separated by commas, if there is no file.

    A file whose name ends in .toml has a table per key, under the key's name. Any other has a key per line, without
    comments (#); these are called `key-1`, `key-2`, …

    Raises:
        ConfigError: there is no key, or one is wrong; names the line, and never shows a key.
    """
    if path is None:
        written = os.environ.get(KEYS)
        if written is None:
            return ()
        secrets = {f"key {i}": one.strip() for i, one in enumerate(written.split(","), start=1) if one.strip()}
        if not secrets:
            raise ConfigError(f"{KEYS} is set and contains no API key: separate keys by commas, or unset it")
        return _numbered(secrets, KEYS)
    if path.suffix == ".toml":
        return _read_tables(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}): write one API key per line") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    lines = {f"line {number}": line.strip() for number, line in enumerate(text.splitlines(), start=1)}
    secrets = {place: line for place, line in lines.items() if line and not line.startswith("#")}
    if not secrets:
        raise ConfigError(f"{path} contains no API key: write one per line")
    return _numbered(secrets, str(path))


def _numbered(secrets: Mapping[str, str], source: str) -> tuple[Key, ...]:
    for place, secret in secrets.items():
        _check_secret(secret, f"{source}, {place}")
    return tuple(Key(name=f"key-{number}", secret=secret) for number, secret in enumerate(secrets.values(), start=1))


def _check_secret(secret: str, place: str) -> None:
    if not _SECRET.fullmatch(secret):
        raise ConfigError(f"{place}: an API key must consist of ASCII letters, digits and punctuation, without spaces")


def _read_tables(path: Path) -> tuple[Key, ...]:
    from pocketbert.toml import read_toml

    file = read_toml(path)
    options = {one.name.replace("_", "-"): one.name for one in fields(Key) if one.name not in ("name", "secret")}
    keys: list[Key] = []
    for name, table in file.values.items():
        if not isinstance(table, dict):
            raise ConfigError(f'{file.place(name)}: every API key is a table: [{name}], and key = "…" below it')
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{file.place(name)}: a name must consist of letters, digits, dots and dashes")
        given: dict[str, Any] = {}
        for option, value in table.items():
            place = file.place(name, option)
            if option == "key":
                if not isinstance(value, str):
                    raise ConfigError(f"{place}: must be a text in quotation marks")
                _check_secret(value, place)
                given["secret"] = value
            elif option not in options:
                raise ConfigError(f"{place}: is not an option of a key; options are {', '.join(['key', *options])}")
            elif option == "reload":
                if not isinstance(value, bool):
                    raise ConfigError(f"{place}: must be true or false")
                given[option] = value
            else:
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                    raise ConfigError(f"{place}: must be a positive number")
                given[options[option]] = value
        if "secret" not in given:
            raise ConfigError(f'{file.place(name)}: has no key: write key = "…" below [{name}]')
        if any(given["secret"] == other.secret for other in keys):
            raise ConfigError(f"{file.place(name, 'key')}: another name has the same key")
        keys.append(Key(name=name, **given))
    if not keys:
        raise ConfigError(f"{path} contains no API key: write a table for each")
    return tuple(keys)


class _Allowance:
    """So many per minute, of which those of a minute may be used at once."""

    def __init__(self, now: float) -> None:
        self._spent, self._now = 0.0, now

    def spend(self, amount: float) -> None:
        self._spent += amount

    def excess(self, more: float, limit: float, now: float) -> float:
        """Seconds until `more` can be spent without exceeding the limit."""
        self._spent = max(0.0, self._spent - (now - self._now) * limit / 60)
        self._now = now
        return (self._spent + more - limit) * 60 / limit


class KeyUse:
    """The use of one API key in this process."""

    def __init__(self, key: Key, now: float) -> None:
        self.key, self.active = key, 0
        self._requests, self._tokens = _Allowance(now), _Allowance(now)

    def refusal(self, now: float) -> tuple[str, float] | None:
        """What the key's limits say against one more request, and in how many seconds to retry."""
        key = self.key
        if key.concurrent and self.active >= key.concurrent:
            return f"{key.concurrent:g} requests at a time", 1.0
        # One more request must fit; of tokens it is not known how many it has, so that it may exceed the limit.
        if key.requests_per_minute and (seconds := self._requests.excess(1, key.requests_per_minute, now)) > 0:
            return f"{key.requests_per_minute:g} requests per minute", seconds
        if key.tokens_per_minute and (seconds := self._tokens.excess(0, key.tokens_per_minute, now)) > 0:
            return f"{key.tokens_per_minute:g} tokens per minute", seconds
        return None

    def enter(self) -> None:
        """Count a request."""
        self.active += 1
        self._requests.spend(1)

    def leave(self, tokens: int) -> None:
        """Count its tokens, when it has been answered."""
        self.active -= 1
        self._tokens.spend(tokens)


class Keys:
    """The API keys of a service, and their use."""

    def __init__(self, keys: Sequence[Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._salt = os.urandom(16)
        self._uses: dict[bytes, KeyUse] = {}
        self.replace(keys)

    def __bool__(self) -> bool:
        """Whether requests need a key."""
        return bool(self._uses)

    def replace(self, keys: Sequence[Key]) -> None:
        """Have other keys; what one of the same name has used stays used."""
        before = {use.key.name: use for use in self._uses.values()}
        uses = {}
        for key in keys:
            use = before.get(key.name) or KeyUse(key, self._clock())
            use.key = key
            uses[self._digest(key.secret.encode())] = use
        self._uses = uses

    def find(self, authorization: bytes) -> KeyUse | None:
        """The key of a request, by its header `Authorization: Bearer …`."""
        scheme, _, secret = authorization.partition(b" ")
        use = self._uses.get(self._digest(secret.strip()))
        return use if scheme.lower() == b"bearer" else None

    def _digest(self, secret: bytes) -> bytes:
        """What a key is found by: nobody can aim at the digest of another, so the time reveals nothing."""
        return hashlib.blake2b(secret, key=self._salt).digest()

    def refusal(self, use: KeyUse) -> tuple[str, float] | None:
        """As `KeyUse.refusal`, now."""
        return use.refusal(self._clock())
