"""Building blocks of commands: options in panels, help pages that end with examples, lazily imported modules."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

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


class Option(click.Option):
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
        return extra


class Argument(click.Argument):
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


class Command(click.Command):
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


class Commands(Command, click.Group):
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
