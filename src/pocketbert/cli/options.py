"""Click options from the fields of options dataclasses: one source for names, types, defaults and help."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import click

from pocketbert.cli.commands import PATH, Declaration, Function, argument, option
from pocketbert.errors import ConfigError
from pocketbert.options import OptionInfo, flag, option_fields

Options = TypeVar("Options")


def options_of(options: type, *, except_for: Sequence[str] = ()) -> Declaration:
    """Declare an option or argument for every field of a dataclass that describes one (`pocketbert.options`).

    Args:
        options: the dataclass. Its own fields come before those that it inherits, on the help page as well.
        except_for: fields that this command does not offer.
    """
    hints = get_type_hints(options)
    own = inspect.get_annotations(options)
    described = [(field, info) for field, info in option_fields(options) if field.name not in except_for]

    def declare(function: Function) -> Function:
        # Decorators that declare parameters are applied from the last one to the first.
        for field, info in sorted(reversed(described), key=lambda pair: pair[0].name in own):
            function = _declaration(field, info, hints[field.name])(function)
        return function

    return declare


def build(options: Callable[..., Options], values: Mapping[str, Any]) -> Options:
    """Build an options dataclass from a command's values; what it refuses is wrong usage."""
    try:
        return options(**values)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _declaration(field: dataclasses.Field[Any], info: OptionInfo, hint: Any) -> Declaration:
    default: dict[str, Any] = {"required": True}
    if field.default is not dataclasses.MISSING:
        default = {"default": field.default}
    kind, is_tuple = _kind(hint)
    if info.positional:
        several: dict[str, Any] = {"nargs": -1} if is_tuple else {}
        kind = click.Path() if kind is str else kind  # names of models, which may be folders
        return argument(field.name, help=info.help, metavar=info.metavar, type=kind, **several, **default)
    name = flag(field.name, info)
    if kind is bool:
        names = f"{name}/--no-{name.removeprefix('--')}" if field.default else name
        return option(names, field.name, help=info.help, panel=info.panel, is_flag=True, **default)
    if info.choices:
        kind = click.Choice(info.choices)
    elif is_tuple and not info.repeated:
        kind = _list_of(kind)
    elif kind is str and info.metavar and ("FOLDER" in info.metavar or "FILE" in info.metavar):
        kind = click.Path()
    return option(
        *(info.names or (name,)), field.name, help=info.help, panel=info.panel, metavar=info.metavar, type=kind,
        default_text=info.default_text, multiple=info.repeated, **default,
    )  # fmt: skip


def _kind(hint: Any) -> tuple[Any, bool]:
    """What values a field of a type has, and whether it holds a tuple of them. Paths win over names."""
    alternatives = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if Path in alternatives:
        return PATH, False
    [kind] = (one for one in alternatives if one is not NoneType)
    if get_origin(kind) is tuple:
        return get_args(kind)[0], True
    return kind, False


def _list_of(kind: Any) -> Callable[[str | tuple[Any, ...]], tuple[Any, ...]]:
    """A reader of values with commas between them."""
    readers: dict[Any, tuple[Callable[[str], Any], str]] = {
        str: (str.strip, "names such as A,B"),
        int: (int, "numbers such as 2,1"),
        float: (float, "numbers such as 0.5,0.1"),
        tuple[int, int]: (_pair, "pairs such as 1:3,2:6"),
    }
    read, form = readers[kind]

    def values(text: str | tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(text, tuple):  # the default
            return text
        try:
            return tuple(read(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r} must be {form}") from None

    return values


def _pair(text: str) -> tuple[int, int]:
    first, second = text.split(":")
    return int(first), int(second)
