"""TOML files of users: read whole, with the line of every key for messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketbert.errors import ConfigError

LARGEST = 1 << 20  # bytes: what people write by hand is smaller


@dataclass(frozen=True)
class TomlFile:
    """The content of a TOML file."""

    path: Path
    values: dict[str, Any]
    lines: tuple[str, ...]

    def place(self, *keys: str) -> str:
        """Where a key is, for messages: `FILE, line 3, serve.port`."""
        line = _line_of(self.lines, keys)
        return f"{self.path}, line {line}, {'.'.join(keys)}" if line else f"{self.path}, {'.'.join(keys)}"


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
    return TomlFile(path, values, tuple(text.splitlines()))


def _line_of(lines: Sequence[str], keys: Sequence[str]) -> int | None:
    """The line that defines a key, counted from 1; the parser does not report it.

    It is the line that, with a number as its value, makes the text before it define the key: so neither a text of
    several lines that looks like a definition is taken for one, nor a key of another table.
    """
    for number, line in enumerate(lines):
        if keys[-1] not in line:
            continue
        is_table = line.lstrip().startswith("[")
        tried = line if is_table else f"{line.partition('=')[0]} = 0"
        if _defines("\n".join([*lines[:number], tried]), keys):
            return number + 1
    return _line_of(lines, keys[:-1]) if len(keys) > 1 else None  # the key is inside the braces of a value


def _defines(text: str, keys: Sequence[str]) -> bool:
    import tomllib

    try:
        value: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
