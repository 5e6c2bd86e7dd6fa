"""What commands are made of: options in panels, help pages that end with examples, and modules loaded when called."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])
Rows = list[tuple[str, str]]
PATH = click.Path(path_type=Path)  # for the shell, which completes it; whether it is there is seen when it is opened


def bold(text: str, colour: str | None = None) -> str:
    """A text that stands out on terminals that can show it; where none reads it, `click.echo` takes the marks away."""
    if os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, bold=True, fg=None if os.environ.get("NO_COLOR") else colour)


class Declaration(Protocol):
    """A decorator that gives the function of a command one or more parameters."""

    def __call__(self, function: Function, /) -> Function:
        """Declare them."""


class Option(click.Option):
    """An option in a panel of the help page."""

    def __init__(self, *args: Any, panel: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.panel = panel


class Argument(click.Argument):
    """An argument with help."""

    def __init__(self, *args: Any, help: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.help = help  # older versions of click know no such thing


def option(
    *names: str, help: str, metavar: str | None = None, panel: str = "Options", **attributes: Any
) -> Declaration:
    """Declare an option."""
    return click.option(*names, cls=Option, help=help, metavar=metavar, panel=panel, **attributes)


def argument(name: str, *, help: str, **attributes: Any) -> Declaration:
    """Declare an argument; several texts with `nargs=-1`."""
    return click.argument(name, cls=Argument, help=help, **attributes)


def command(*, examples: Sequence[str]) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function: its name with dashes, its docstring, and `examples` of how to call it."""
    return lambda function: click.command(function.__name__.replace("_", "-"), cls=Command, examples=examples)(function)


class Command(click.Command):
    """A command with a help page: what it does, arguments, options by panels, examples."""

    def __init__(self, *args: Any, examples: Sequence[str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples

    def sections(self, ctx: click.Context) -> dict[str, Rows]:
        """Names and explanations by the heading they go under, in the order of their declaration."""
        found: dict[str, Rows] = {}
        for one in self.get_params(ctx):
            if isinstance(one, Argument):
                found.setdefault("Arguments", []).append((one.make_metavar(ctx), one.help or ""))
            elif (record := one.get_help_record(ctx)) is not None:
                found.setdefault(getattr(one, "panel", "Options"), []).append(record)
        return found

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the page."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        for heading, rows in self.sections(ctx).items():
            with formatter.section(bold(heading)):
                formatter.write_dl(rows)
        with formatter.section(bold("Examples")):
            for example in self.examples:  # as it is to be typed: never wrapped
                formatter.write(f"{'':>{formatter.current_indent}}$ {example}\n")


class Commands(Command, click.Group):
    """Commands by panel and name, each with its module and a line of help; a module is imported when it is needed."""

    def __init__(self, *args: Any, table: Mapping[str, Mapping[str, tuple[str, str]]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.table = table
        self._modules = {name: module for panel in table.values() for name, (module, _) in panel.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of the table."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, imported."""
        if cmd_name not in self._modules:
            return None
        found: click.Command = getattr(import_module(self._modules[cmd_name]), cmd_name.replace("-", "_"))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names, and the other arguments."""
        if args[0] not in self._modules and not args[0].startswith("-"):
            from difflib import get_close_matches

            meant = [f"Did you mean '{name}'?" for name in get_close_matches(args[0], self._modules, n=1)]
            ctx.fail(" ".join([f"there is no command '{args[0]}'.", *meant]))
        return super().resolve_command(ctx, args)

    def sections(self, ctx: click.Context) -> dict[str, Rows]:
        """The commands by panel, then the options."""
        width = max(map(len, self._modules))
        commands = {
            panel: [(f"{name:<{width}}", line) for name, (_, line) in commands.items()]
            for panel, commands in self.table.items()
        }
        return {**commands, **super().sections(ctx)}
