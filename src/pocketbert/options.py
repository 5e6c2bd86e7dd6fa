"""Options as data: the fields of an options dataclass carry what the command line and the documentation show.

    TRAINING = Panel("Training")

    epochs: float = field(default=3.0, metadata=TRAINING.option("Training epochs.", "N"))

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
    metavar: str | None = None
    panel: str = "Options"
    """The heading under which the help page lists it."""
    names: tuple[str, ...] = ()
    """Its names, such as ("--output", "-o"), where they are not just --name-of-the-field."""
    default: str | None = None
    """In words, what happens by default where the field's default is None or empty."""
    choices: tuple[str, ...] = ()
    """The possible values, if there are few."""
    repeated: bool = False
    """Whether the values of a tuple are written one by one, as in `--teacher A --teacher B`, and not as a list, as in
    `--labels A,B`."""
    positional: bool = False
    required: bool = False
    """Whether the command line requires it, though callers in Python may leave it out."""


@dataclass(frozen=True)
class Panel:
    """A heading of help pages, and the maker of the options under it."""

    heading: str

    def option(
        self,
        help: str,
        metavar: str | None = None,
        *,
        names: Sequence[str] = (),
        default: str | None = None,
        choices: Sequence[str] = (),
        repeated: bool = False,
        required: bool = False,
    ) -> dict[str, OptionInfo]:
        """Metadata of a field that is an option on the command line; see `OptionInfo`."""
        return _metadata(
            help=help, metavar=metavar, panel=self.heading, names=tuple(names), default=default, choices=tuple(choices),
            repeated=repeated, required=required,
        )  # fmt: skip


#: Makes options of the first panel.
option = Panel("Options").option


def argument(
    help: str, *, metavar: str | None = None, default: str | None = None, repeated: bool = False
) -> dict[str, OptionInfo]:
    """Metadata of a field that is a positional argument on the command line; see `OptionInfo`."""
    return _metadata(help=help, metavar=metavar, default=default, repeated=repeated, positional=True)


def _metadata(**info: Any) -> dict[str, OptionInfo]:
    return {_KEY: OptionInfo(**info)}


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
                allowed = ", ".join(info.choices)
                self._check(field.name, set(values) <= set(info.choices), f"must be one of {allowed}")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        """Raise `ConfigError` unless a rule about the field `name` holds."""
        if not holds:
            flags = {field.name: flag(field.name, info) for field, info in option_fields(type(self))}
            value = getattr(self, name)
            given = "" if value is True else f" {written(value)}"
            raise ConfigError(f"{flags.get(name, name)}{given} {rule}")


def flag(name: str, info: OptionInfo) -> str:
    """The name of a field on the command line."""
    return info.names[0] if info.names else f"--{name.replace('_', '-')}"


def written(value: Any) -> str:
    """A value as the command line takes it."""
    return ",".join(map(written, value)) if isinstance(value, tuple) else str(value)
