"""TOML files of users: read whole, with the line of every key for messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pocketbert.errors import ConfigError

LARGEST = 1 << 20  # bytes: what people write by hand is smaller


_KEY = r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[\w-]+)"""
_KEYS = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_START = re.compile(rf"[ \t]*(?:\[\[?[ \t]*(?P<table>{_KEYS})|(?P<key>{_KEYS})[ \t]*=)?")  # of a line
_PART = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}\n]|[^"\'#\[\]{}\n]+',
    re.DOTALL,
)  # of what follows: a text, a comment, a bracket, the end of a line, anything else


@dataclass(frozen=True)
class TomlFile:
    """The content of a TOML file."""

    path: Path
    values: dict[str, Any]
    text: str

    def place(self, *keys: str) -> str:
        """Where a key is, for messages: `FILE, line 3, serve.port`; of a key in braces, where these begin."""
        line = next((self._lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self._lines), None)
        return ", ".join([f"{self.path}", *([f"line {line}"] if line else []), ".".join(keys)])

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        """The line that defines each key, counted from 1; the parser does not report it."""
        lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        position, line = 0, 1
        while position < len(self.text):
            start = _START.match(self.text, position)
            assert start is not None
            if start["table"]:
                table = _names(start["table"])
            keys = table if start["table"] else (*table, *_names(start["key"])) if start["key"] else ()
            for count in range(1, len(keys) + 1):
                lines.setdefault(keys[:count], line)
            position, depth, part = start.end(), 0, ""
            while position < len(self.text) and (part != "\n" or depth):  # to the end of the value
                found = _PART.match(self.text, position)
                assert found is not None
                part, position = found[0], found.end()
                line += part.count("\n")
                depth = max(0, depth + (part in ("[", "{")) - (part in ("]", "}")))
        return lines


def _names(keys: str) -> tuple[str, ...]:
    """The names in a dotted key, some of which may be quoted."""
    import tomllib

    value: Any = tomllib.loads(f"{keys} = 0")
    names = list[str]()
    while isinstance(value, dict):
        [(name, value)] = value.items()
        names.append(name)
    return tuple(names)


def read_toml(path: Path) -> TomlFile:
    """Read a TOML file.

    Raises:
        ConfigError: it cannot be read, is larger than a megabyte, not UTF-8 or not TOML; names the line.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > LARGEST:
        raise ConfigError(f"{path} is larger than {LARGEST >> 20} MiB: is it a file of options?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8: save it as UTF-8") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
        line = int(found[2]) if found and found[2] else text.count("\n") + 1
        hint = " (a model's own configuration is --model-config)" if path.suffix == ".json" else ""
        raise ConfigError(f"{path}, line {line}: not TOML: {found[1] if found else error}{hint}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not TOML that can be read: brackets in brackets without end") from None
    return TomlFile(path, values, text)
