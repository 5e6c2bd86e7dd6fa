"""Building blocks of commands: options in panels, help pages that end with examples, lazily imported modules."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click
from click.core import ParameterSource

from pocketbert.cli import given
from pocketbert.errors import ConfigError

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

Function = TypeVar("Function", bound=Callable[..., Any])
HelpRows = list[tuple[str, str]]
PATH = click.Path(path_type=Path)  # so that shells complete it; whether it exists is checked when it is opened


def bold(text: str, colour: str | None = None) -> str:
    """A bold text, on terminals that can show it; `click.echo` removes the style where the output is no terminal."""
    if os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, bold=True, fg=None if os.environ.get("NO_COLOR") else colour)


class Declaration(Protocol):
    """A decorator that gives the function of a command one or more parameters."""

    def __call__(self, function: Function, /) -> Function:
        """Declare the parameters."""


class Parameter(click.Parameter):
    """A parameter that the environment or a file may give; see `given`."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """The value as it was given, and by what."""
        value, source = super().consume_value(ctx, opts)
        found = given.given_value(ctx, self)
        if found is None or (source is ParameterSource.COMMANDLINE and value != ()):  # () is an argument left out
            return value, source
        return found.value, found.source

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert the value; an error names the place that it is from."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter:
            raise
        except click.BadParameter as error:
            found = given.given_value(ctx, self)
            if found is None or ctx.get_parameter_source(str(self.name)) is not found.source:
                raise
            raise ConfigError(f"{found.place}: {error.message}") from None


class Option(Parameter, click.Option):
    """An option in a panel of the help page, which shows its default in one form: `[default: X]`.

    Args:
        panel: the heading that it stands under.
        default_text: what it does when its default is None.
    """

    def __init__(self, *args: Any, panel: str, default_text: str | None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.panel, self.default_text = panel, default_text

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """The remarks in brackets after the help text."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)  # stated by the help text, or by the error
        if self.default_text is not None:
            extra["default"] = self.default_text
        if (found := given.given_value(ctx, self)) is not None:
            value = ", ".join(map(str, found.value)) if isinstance(found.value, tuple) else found.value
            extra["default"] = f"{value}, from {found.place}"
        return extra


class Argument(Parameter, click.Argument):
    """An argument with a help text; `default_text` as for `Option`."""

    def __init__(self, *args: Any, help: str, default_text: str | None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.help = help  # older versions of click have no such attribute
        if default_text is not None:
            self.help = f"{help}  [default: {default_text}]"


def click_option(
    *names: str,
    help: str,
    metavar: str | None = None,
    panel: str = "Options",
    default_text: str | None = None,
    **attributes: Any,
) -> Declaration:
    """Declare an option."""
    return click.option(
        *names, cls=Option, help=help, metavar=metavar, panel=panel, default_text=default_text, show_default=True,
        **attributes,
    )  # fmt: skip


def click_argument(name: str, *, help: str, default_text: str | None = None, **attributes: Any) -> Declaration:
    """Declare an argument; with `nargs=-1` one of several values."""
    return click.argument(name, cls=Argument, help=help, default_text=default_text, **attributes)


def command(*, examples: Sequence[str]) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function: its name with dashes, its docstring, and `examples` of its use."""
    return lambda function: click.command(function.__name__.replace("_", "-"), cls=Command, examples=examples)(function)


class HelpPage(click.Command):
    """A command with a help page: summary, arguments, options by panel, examples."""

    def __init__(self, *args: Any, examples: Sequence[str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples

    def sections(self, ctx: click.Context) -> dict[str, HelpRows]:
        """Heading → names and help texts, in the order of declaration."""
        sections: dict[str, HelpRows] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, Argument):
                sections.setdefault("Arguments", []).append((parameter.make_metavar(ctx), parameter.help or ""))
            elif (row := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "panel", "Options"), []).append(row)
        return sections

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help page."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        for heading, rows in self.sections(ctx).items():
            with formatter.section(bold(heading)):
                formatter.write_dl(rows)
        with formatter.section(bold("Examples")):
            for example in self.examples:  # to be copied: never wrapped
                formatter.write(f"{'':>{formatter.current_indent}}$ {example}\n")


class Command(HelpPage):
    """A command, whose options the environment and the file of --config may give."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._config = _config_option(str(self.name))

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """All parameters, with those that every command has."""
        return [*self.params, self._config, *super().get_params(ctx)[len(self.params) :]]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help page, with the values that the environment and the file give as defaults."""
        if not given.is_collected(ctx):
            file = os.environ.get(given.CONFIG)
            with suppress(ConfigError):  # which the command will report
                given.collect(ctx, Path(file) if file else None)
        super().format_help(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error about an option names the place of its value."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if (message := given.explain(ctx, error.format_message())) is None:
                raise
            raise ConfigError(message) from None  # nothing is wrong with the command line


def _config_option(command: str) -> Option:
    """The option --config of a command."""

    def collect(ctx: click.Context, parameter: click.Parameter, file: Path | None) -> None:
        if not ctx.resilient_parsing:
            given.collect(ctx, file)

    return Option(
        ["--config", "options_file"], type=PATH, metavar="FILE", envvar=given.CONFIG, is_eager=True, expose_value=False,
        callback=collect, panel="Options", default_text=f"{given.CONFIG}, if set",
        help=f"TOML file of options, by name, in the table [{command}]. Environment variables take precedence, with "
        f"names such as {given.PREFIX}{command.upper().replace('-', '_')}_NAME for --name.",
    )  # fmt: skip


class Commands(HelpPage, click.Group):
    """Commands by panel and name, each with its module and summary; a module is imported when it is needed."""

    def __init__(self, *args: Any, table: Mapping[str, Mapping[str, tuple[str, str]]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.table = table
        self._modules = {name: module for panel in table.values() for name, (module, _) in panel.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the table."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in self._modules:
            return None
        command: click.Command = getattr(import_module(self._modules[cmd_name]), cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names, and the other arguments."""
        if args[0] not in self._modules and not args[0].startswith("-"):
            from difflib import get_close_matches

            hint = [f"Did you mean '{name}'?" for name in get_close_matches(args[0], self._modules, n=1)]
            ctx.fail(" ".join([f"no such command: '{args[0]}'.", *hint]))
        return super().resolve_command(ctx, args)

    def sections(self, ctx: click.Context) -> dict[str, HelpRows]:
        """The commands by panel, then the options."""
        width = max(map(len, self._modules))
        commands = {
            panel: [(f"{name:<{width}}", summary) for name, (_, summary) in commands.items()]
            for panel, commands in self.table.items()
        }
        return {**commands, **super().sections(ctx)}
