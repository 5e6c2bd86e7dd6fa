"""Options as data: the fields of an options dataclass carry what the command line and the documentation show.

    epochs: float = field(default=3.0, metadata=option("Training epochs.", metavar="N", panel="Training"))

Name, type, default, help and choices are written once. `cli.options` turns the fields into the options of a command,
the API reference is made of the same texts, and Python callers pass the same dataclass. Where a type has alternatives,
the command line passes the first one: a `Path` for `Path | str`, a `str` for `str | Path`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pocketbert.errors import ConfigError

_KEY = "option"  # in the metadata of a field


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """How a field appears on the command line."""

    help: str
    names: tuple[str, ...]
    """Its names there, such as ("--output", "-o"); none if it is --name-of-the-field or a positional argument."""
    metavar: str | None
    panel: str
    """The heading of the help page under which it stands."""
    default_text: str | None
    """What the default None stands for."""
    choices: tuple[str, ...]
    """The values that it may have, if there are few."""
    positional: bool
    repeated: bool
    """Whether the values of a tuple are written one by one, as in `--teacher A --teacher B`, and not as a list, as in
    `--labels A,B`."""


def option(
    help: str,
    *,
    names: Sequence[str] = (),
    metavar: str | None = None,
    panel: str = "Options",
    default_text: str | None = None,
    choices: Sequence[str] = (),
    repeated: bool = False,
) -> dict[str, OptionInfo]:
    """Metadata of a field that is an option on the command line; see `OptionInfo`."""
    return {
        _KEY: OptionInfo(
            help=help, names=tuple(names), metavar=metavar, panel=panel, default_text=default_text,
            choices=tuple(choices), positional=False, repeated=repeated,
        )
    }  # fmt: skip


def argument(
    help: str, *, metavar: str | None = None, default_text: str | None = None, repeated: bool = False
) -> dict[str, OptionInfo]:
    """Metadata of a field that is a positional argument on the command line; see `OptionInfo`."""
    return {
        _KEY: OptionInfo(
            help=help, names=(), metavar=metavar, panel="Arguments", default_text=default_text, choices=(),
            positional=True, repeated=repeated,
        )
    }  # fmt: skip


def option_fields(options: type) -> Iterator[tuple[dataclasses.Field[Any], OptionInfo]]:
    """The fields of a dataclass that have an `OptionInfo`, in the order of their definition."""
    for field in dataclasses.fields(options):
        if (info := field.metadata.get(_KEY)) is not None:
            yield field, info


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of options: refuses values that are not among the choices of their field.

    Raises `ConfigError`, as subclasses do for their own rules, in the words of the command line.
    """

    def __post_init__(self) -> None:
        for field, info in option_fields(type(self)):
            value = getattr(self, field.name)
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            if info.choices:
                *others, last = info.choices
                allowed = f"{', '.join(others)} or {last}" if others else last
                self._check(field.name, set(values) <= set(info.choices), f"must be {allowed}")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        """Raise `ConfigError` unless a rule about the field `name` holds."""
        if not holds:
            info = next(info for field, info in option_fields(type(self)) if field.name == name)
            raise ConfigError(f"{flag(name, info)} {written(getattr(self, name))} {rule}")


def flag(name: str, info: OptionInfo) -> str:
    """The name of a field on the command line."""
    return info.names[0] if info.names else f"--{name.replace('_', '-')}"


def written(value: Any) -> str:
    """A value as the command line takes it."""
    return ",".join(map(written, value)) if isinstance(value, tuple) else str(value)
