"""Values of options that are given by environment variables or a file: one mechanism for every option of every command.

The command line precedes the environment, the environment the file, the file the default. The name of an option decides
both of the others: `--max-body` of `serve` is `POCKETBERT_SERVE_MAX_BODY`, and `max-body` in the table `[serve]` of the
file; arguments have such names too. A key above all tables is for every command that has the option. A name that no
command has is refused, so that no misspelt option goes unnoticed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from pocketbert.errors import ConfigError

PREFIX = "POCKETBERT_"
CONFIG = "POCKETBERT_CONFIG"  # the file, where no --config is given
OTHERS = {
    CONFIG, "POCKETBERT_DEBUG", "POCKETBERT_KERNEL", "POCKETBERT_API_KEYS",
    # of the tests, the benchmarks and the scripts
    "POCKETBERT_DATA", "POCKETBERT_MODELS", "POCKETBERT_RESULTS", "POCKETBERT_TEST_SEED", "POCKETBERT_NATIVE_BUILDS",
    "POCKETBERT_FUZZ_INPUTS",
}  # fmt: skip
# Kubernetes and Docker describe a service called "pocketbert" in these variables of other containers.
_LINKS = re.compile(r"POCKETBERT(_SERVICE_(HOST|PORT(_\w+)?)|_PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)")
_META = "pocketbert.given"


class Given(NamedTuple):
    """A value as the command line would pass it, and where it is from."""

    value: Any
    place: str
    """`POCKETBERT_SERVE_PORT`, or `FILE, line 3, serve.port`."""
    source: ParameterSource


def key_of(parameter: click.Parameter) -> str:
    """The name of an option without its dashes, or of an argument."""
    names = [name for name in parameter.opts if name.startswith("--")]
    return names[0].removeprefix("--") if names else str(parameter.name).replace("_", "-")


def variable(command: str, parameter: click.Parameter) -> str:
    """The environment variable of an option."""
    return f"{PREFIX}{command}_{key_of(parameter)}".upper().replace("-", "_")


def collect(ctx: click.Context, file: Path | None) -> None:
    """Read the environment and the file for a command, before its options are processed.

    Raises:
        ConfigError: there is a variable or key of no option, the file cannot be read, or a value has a wrong type.
    """
    parameters = ctx.command.params
    given: dict[str, Given] = {}
    if file is not None:
        given = _from_file(ctx, file, parameters)
    ctx.meta[_META] = given | _from_environment(ctx, parameters)


def is_collected(ctx: click.Context) -> bool:
    """Whether `collect` was called."""
    return _META in ctx.meta


def given_value(ctx: click.Context, parameter: click.Parameter) -> Given | None:
    """What the environment or the file gives for an option."""
    found: Mapping[str, Given] = ctx.meta.get(_META, {})
    return found.get(str(parameter.name))


def explain(ctx: click.Context, message: str) -> str | None:
    """A message about options, with the places of those that were not given on the command line; None if all were."""
    places = []
    for parameter in ctx.command.params:
        given = given_value(ctx, parameter)
        if given is None or ctx.get_parameter_source(str(parameter.name)) is not given.source:
            continue
        for name in parameter.opts:
            if name.startswith("--") and re.search(rf"{name}(?![\w-])", message):
                places.append(f"{name} is from {given.place}")
    return f"{message} ({'; '.join(places)})" if places else None


# ── the environment ──


def _from_environment(ctx: click.Context, parameters: Iterable[click.Parameter]) -> dict[str, Given]:
    own = {variable(str(ctx.command.name), parameter): parameter for parameter in parameters}
    given = {}
    for name, text in os.environ.items():
        if not name.startswith(PREFIX) or name in OTHERS or _LINKS.fullmatch(name):
            continue
        if name not in own:
            _check_variable(ctx, name)
        elif text:  # an empty variable is like none
            parameter = own[name]
            value: Any = text
            if _is_repeated(parameter):
                value = tuple(part.strip() for part in text.split(",") if part.strip())
            given[str(parameter.name)] = Given(value, name, ParameterSource.ENVIRONMENT)
    return given


def _check_variable(ctx: click.Context, name: str) -> None:
    known = (variable(command, parameter) for command, parameter in _all_parameters(ctx, name))
    if name not in known:
        every = [variable(command, parameter) for command, parameter in _all_parameters(ctx)]
        hint = _nearest(name, [*every, *OTHERS])
        raise ConfigError(f"{name} is set in the environment, and no command has such an option{hint}")


def _all_parameters(ctx: click.Context, name: str | None = None) -> Iterator[tuple[str, click.Parameter]]:
    """Every option of every command, with the command's name; with `name` only of commands that it may belong to."""
    group = ctx.find_root().command
    if not isinstance(group, click.Group):
        yield from ((str(ctx.command.name), parameter) for parameter in ctx.command.params)
        return
    for command in group.list_commands(ctx):
        start = f"{PREFIX}{command}_".upper().replace("-", "_")
        if name is None or name.startswith(start):  # importing a command takes time
            yield from ((command, parameter) for parameter in _parameters(ctx, command))


def _parameters(ctx: click.Context, command: str) -> list[click.Parameter]:
    group = ctx.find_root().command
    found = group.get_command(ctx, command) if isinstance(group, click.Group) else ctx.command
    return [] if found is None else found.params


# ── a file ──


def _from_file(ctx: click.Context, path: Path, parameters: Iterable[click.Parameter]) -> dict[str, Given]:
    """The values of a file for one command. Its other tables are checked for names alone."""
    from pocketbert.toml import read_toml

    file, own = read_toml(path), {key_of(parameter): parameter for parameter in parameters}
    group = ctx.find_root().command
    commands = group.list_commands(ctx) if isinstance(group, click.Group) else [str(ctx.command.name)]
    given: dict[str, Given] = {}

    def add(value: Any, *keys: str) -> None:
        parameter, place = own[keys[-1]], file.place(*keys)
        given[str(parameter.name)] = Given(_as_given(parameter, value, place), place, ParameterSource.DEFAULT_MAP)

    for name, value in file.values.items():
        if name in commands:
            continue
        if isinstance(value, dict):
            raise ConfigError(f"{file.place(name)}: no command has this name{_nearest(name, commands)}")
        if name in own:
            add(value, name)
        elif all(name != key_of(parameter) for _, parameter in _all_parameters(ctx)):
            keys = [key_of(parameter) for _, parameter in _all_parameters(ctx)]
            raise ConfigError(f"{file.place(name)}: no command has an option of this name{_nearest(name, keys)}")
    for command in commands:
        table = file.values.get(command, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{file.place(command)}: the options of a command are a table: [{command}]")
        known = (
            [*own] if command == ctx.command.name else [key_of(one) for one in _parameters(ctx, command)] * bool(table)
        )
        for name, value in table.items():
            if name not in known:
                hint = _nearest(name, known)
                raise ConfigError(f"{file.place(command, name)}: {command} has no option of this name{hint}")
            if command == ctx.command.name:
                add(value, command, name)
    return given


def _as_given(parameter: click.Parameter, value: Any, place: str) -> Any:
    """A value of a file in the form in which the command line would pass it."""
    if isinstance(value, list):
        texts = [_scalar(parameter, one, place) for one in value]
        if _is_repeated(parameter):
            return tuple(texts)
        if "," in (parameter.metavar or ""):  # one value on the command line: A,B,C
            if commas := [text for text in texts if "," in str(text)]:
                raise ConfigError(f"{place}: {commas[0]!r} contains a comma, which separates the values")
            return ",".join(map(str, texts))
        raise ConfigError(f"{place}: must be one value, not an array")
    text = _scalar(parameter, value, place)
    return (text,) if _is_repeated(parameter) else text


def _scalar(parameter: click.Parameter, value: Any, place: str) -> Any:
    kind = parameter.type
    if isinstance(kind, click.types.BoolParamType):
        is_right, wanted = isinstance(value, bool), "true or false"
    elif isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        is_right, wanted = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    elif isinstance(kind, click.types.FuncParamType):  # lists of numbers or texts
        is_right, wanted = isinstance(value, (int, float, str)) and not isinstance(value, bool), "a number or a text"
    else:
        is_right, wanted = isinstance(value, str), "a text in quotation marks"
    if not is_right:
        found = "a table" if isinstance(value, dict) else str(value).lower() if isinstance(value, bool) else repr(value)
        raise ConfigError(f"{place}: must be {wanted}, not {found}")
    return value if isinstance(value, bool) else str(value)


def _is_repeated(parameter: click.Parameter) -> bool:
    return parameter.multiple or parameter.nargs == -1


def _nearest(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]}?" if found else ""
