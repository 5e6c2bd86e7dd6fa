"""Click options from the fields of options dataclasses: one source for names, types, defaults and help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field
from typing import Any, TypeVar

import click

from pocketbert.cli.commands import PATH, Declaration, Function, click_argument, click_option
from pocketbert.errors import ConfigError
from pocketbert.options import OptionInfo, flag, option_fields

Options = TypeVar("Options")


def options_of(options: type, *, except_for: Sequence[str] = ()) -> Declaration:
    """Declare an option or argument for every field of a dataclass that describes one (`pocketbert.options`).

    Args:
        options: the dataclass. Its own fields come before those that it inherits, on the help page as well.
        except_for: fields that the command does not offer.
    """
    fields = {field.name: (field, info) for field, info in option_fields(options) if field.name not in except_for}
    names = [name for name in dict.fromkeys((*inspect.get_annotations(options), *fields)) if name in fields]

    def declare(function: Function) -> Function:
        for name in reversed(names):  # click's decorators declare the last parameter first
            function = _declaration(*fields[name])(function)
        return function

    return declare


def build(options: Callable[..., Options], values: Mapping[str, Any]) -> Options:
    """Build an options dataclass from the values of a command; what it refuses is wrong usage."""
    try:
        return options(**values)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _declaration(field: Field[Any], info: OptionInfo) -> Declaration:
    default: dict[str, Any] = (
        {"required": True} if info.required or field.default is MISSING else {"default": field.default}
    )
    kind, is_list = (str, False) if info.choices else _kind(field)
    if info.positional:
        kind = click.Path() if kind is str else kind  # the name of a model may be a folder, which shells complete
        nargs = -1 if info.repeated else 1
        return click_argument(
            field.name, help=info.help, metavar=info.metavar, type=kind, default_text=info.default, nargs=nargs,
            **default,
        )  # fmt: skip
    name = flag(field.name, info)
    if kind is bool:
        names = f"{name}/--no-{name.removeprefix('--')}" if field.default else name
        return click_option(names, field.name, help=info.help, panel=info.panel, is_flag=True, **default)
    if info.choices:
        kind = click.Choice(info.choices)
    elif is_list and not info.repeated:
        kind = _list_of(kind)
    elif kind is str and info.metavar and ("FOLDER" in info.metavar or "FILE" in info.metavar):
        kind = click.Path()
    return click_option(
        *(info.names or (name,)), field.name, help=info.help, panel=info.panel, metavar=info.metavar, type=kind,
        default_text=info.default, multiple=info.repeated, **default,
    )  # fmt: skip


def _pair(text: str) -> tuple[int, int]:
    first, second = text.split(":")
    return int(first), int(second)


_KINDS: dict[str, Any] = {
    "bool": bool, "int": int, "float": float, "str": str, "Path": PATH, "tuple[int, int]": _pair,
}  # fmt: skip
_FORMS: dict[Any, str] = {
    int: "numbers such as 2,1", float: "numbers such as 0.5,0.1", _pair: "pairs such as 1:3,2:6",
}  # fmt: skip


def _kind(field: Field[Any]) -> tuple[Any, bool]:
    """The type of an option's values, and whether there may be several: of alternatives, the first.

    It is read from the text of the annotation, which costs nothing and needs no import.
    """
    assert isinstance(field.type, str), "options are defined in modules with `from __future__ import annotations`"
    elements = re.match(r"tuple\[(.+), \.\.\.\]", field.type)
    first = (elements[1] if elements else field.type).split(" | ")[0]
    return _KINDS[first], elements is not None


def _list_of(kind: Any) -> Callable[[str | tuple[Any, ...]], tuple[Any, ...]]:
    """A reader of values that are separated by commas."""

    def values(text: str | tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(text, tuple):  # the default
            return text
        try:
            return tuple(kind(part.strip()) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r} must be {_FORMS[kind]}") from None

    return values
