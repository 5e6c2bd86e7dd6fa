"""Options of commands: made of the fields of the dataclasses that Python callers pass, and of nothing else."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest

from helpers.imports import imported, packages
from helpers.shell import Outcome
from pocketbert import cli
from pocketbert.bench.options import BenchOptions
from pocketbert.checks.options import CheckOptions
from pocketbert.cli import options as cli_options
from pocketbert.cli.commands import command
from pocketbert.corpus.prepare_options import PrepareOptions
from pocketbert.errors import ConfigError
from pocketbert.exporters.options import ExportOptions
from pocketbert.options import Options, Panel, argument, option, option_fields
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.transfer_options import TransferOptions
from pocketbert.reports.options import CompareOptions
from pocketbert.runtime.quantize_options import QuantizeOptions
from pocketbert.serve.settings import Limits, Settings
from pocketbert.tasks.evaluate_options import EvaluateOptions

Run = Callable[..., Outcome]
NAMES = list(cli.app.list_commands(click.Context(cli.app)))

# Command → the least that it can be called with, and the same in Python.
CALLS: dict[str, tuple[Sequence[str], Sequence[Any]]] = {
    "prepare": (
        ["a.txt", "out", "--vocab-size", "99"],
        [PrepareOptions(sources=("a.txt",), output=Path("out"), vocab_size=99)],
    ),
    "pretrain": (
        ["corpus", "out", "--preset", "ib-bert"],
        [PretrainOptions(corpus=Path("corpus"), output=Path("out"), preset="ib-bert")],
    ),
    "transfer": (
        ["corpus", "out", "--teacher", "t"],
        [TransferOptions(corpus=Path("corpus"), output=Path("out"), teacher="t")],
    ),
    "finetune": (
        ["a.csv", "--output", "out", "--model", "m"],
        [FinetuneOptions(data=Path("a.csv"), output=Path("out"), model="m")],
    ),
    "distill": (
        ["a.csv", "--output", "out", "--student", "m", "--teacher", "t"],
        [DistillOptions(data=Path("a.csv"), output=Path("out"), model="m", teacher=("t",))],
    ),
    "check": (["a.csv"], [CheckOptions(data=Path("a.csv"))]),
    "evaluate": (["model", "a.csv"], [EvaluateOptions(model="model", data=Path("a.csv"))]),
    "compare": (["a", "b"], [CompareOptions(first=Path("a"), second=Path("b"))]),
    "quantize": (["model", "out"], [QuantizeOptions(model="model", output=Path("out"))]),
    "export": (["model", "out"], [ExportOptions(model="model", output=Path("out"))]),
    "serve": ([], [Settings(models=()), Limits()]),
    "bench": ([], [BenchOptions()]),
}
# What only the command line has: the form of the output, several runs in one command, files that it reads itself.
OF_THE_COMMAND_LINE = {
    **{name: {"json"} for name in NAMES},
    "export": {"json", "calibrate", "text"},
    "serve": {"model", "api_keys"},
    "finetune": {"json", "preset", "seeds", "search", "dry_run"},
    "distill": {"json", "preset", "seeds", "search", "dry_run"},
    "pretrain": {"json", "dry_run"},
    "transfer": {"json", "dry_run"},
}
# A student shares its teacher's tokens, and in a transfer its embeddings and heads.
NOT_OFFERED = {"distill": {"vocab_size", "class_weights", "label_smoothing"}, "transfer": {"model"}}
# Their counterparts in Python are the arguments of pipelines, or there is none.
WITHOUT_DATACLASS = {"classify", "tag", "answer", "fill-mask", "choose", "embed", "rank", "info"}


def command_named(name: str) -> click.Command:
    found = cli.app.get_command(click.Context(cli.app), name)
    assert found is not None
    return found


def test_every_command_is_known_here() -> None:
    assert {*CALLS, *WITHOUT_DATACLASS} == set(NAMES)


@pytest.mark.parametrize("name", CALLS)
def test_every_option_is_a_field_and_every_field_an_option(name: str) -> None:
    described = {field.name for options in CALLS[name][1] for field, _ in option_fields(type(options))}
    offered = {parameter.name for parameter in command_named(name).params}
    assert offered == (described - NOT_OFFERED.get(name, set())) | OF_THE_COMMAND_LINE[name]


@pytest.mark.parametrize("name", CALLS)
def test_the_command_line_passes_what_a_caller_in_python_does(name: str) -> None:
    arguments, expected = CALLS[name]
    values = command_named(name).make_context(name, list(arguments)).params
    for options in expected:
        names = {field.name for field, _ in option_fields(type(options))} & values.keys()
        assert dataclasses.replace(options, **{name: values[name] for name in names}) == options


def test_panels_name_the_groups(run: Run) -> None:
    text = run("--help").text
    assert re.findall(r"^(\w+):$", text, re.MULTILINE) == [
        "Inference", "Training", "Serving", "Inspection", "Options", "Examples",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_help_states_defaults_in_one_form(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for columns in ("80", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        text = " ".join(run(name, "--help").text.split())
        outside = re.sub(r"\[default: [^]]+\]", "", text)
        assert not re.search(r"\b(else|otherwise|when not given|if not given|by default|[Dd]efault)\b", outside)
    for parameter in command_named(name).params:
        shown = getattr(parameter, "help", None)
        assert shown, f"{parameter.name} has no help"
        assert shown[0].isupper()
        assert re.search(r"(\.|…|\])$", shown), shown


def test_help_imports_click_alone() -> None:
    """Of every command: what it needs to compute is imported when it does."""
    for_each = f"[app([name, '--help'], standalone_mode=False) for name in {NAMES}]"
    modules = imported(f"from pocketbert.cli import app; {for_each}")
    assert packages(modules) == {"click", "pocketbert"}


# ── a dataclass of every kind of field ──

LOOKS = Panel("Looks")


@dataclass(frozen=True, kw_only=True)
class Sample(Options):
    source: str | Path = field(metadata=argument("Source."))
    extras: tuple[str, ...] = field(default=(), metadata=argument("Extras.", repeated=True))
    output: Path | str = field(metadata=option("Output.", "FOLDER", names=["--output", "-o"]))
    colour: str = field(default="red", metadata=LOOKS.option("Colour.", choices=["red", "green"]))
    width: int | None = field(default=None, metadata=LOOKS.option("Width.", "N", default="as wide as the source"))
    shiny: bool = field(default=False, metadata=LOOKS.option("Shiny."))
    frame: bool = field(default=True, metadata=LOOKS.option("Frame."))
    weights: tuple[float, ...] | None = field(default=None, metadata=option("Weights.", "X,X"))
    names: tuple[str, ...] = field(default=("a", "b"), metadata=option("Names.", "A,B"))
    pairs: tuple[tuple[int, int], ...] | None = field(default=None, metadata=option("Pairs.", "1:3,2:6"))
    copies: tuple[int, ...] = field(default=(1, 8), metadata=option("Copies.", "N", repeated=True))
    untold: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("output", str(self.output) != "out/of/bounds", "is out of bounds")
        self._check("weights", sum(self.weights or ()) < 10, "are too much")


@pytest.fixture
def parsed(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    seen: list[Sample] = []

    @command(examples=[])
    @cli_options.options_of(Sample)
    def sample(**values: Any) -> None:
        """Parse options."""
        seen.append(cli_options.build(Sample, values))

    from click.testing import CliRunner

    def parse(*arguments: str) -> Any:
        seen.clear()
        outcome = CliRunner().invoke(sample, list(arguments), env={"COLUMNS": "80"})
        return seen[0] if seen else outcome

    return parse


def test_values_are_of_the_types_of_the_fields(parsed: Callable[..., Any]) -> None:
    assert parsed("here", "-o", "out") == Sample(source="here", output=Path("out"))
    assert parsed(
        "here", "more", "and more", "--output", "out", "--colour", "green", "--width", "3", "--shiny", "--no-frame",
        "--weights", "1,2.5", "--names", "x, y", "--pairs", "0:0,2:6", "--copies", "2", "--copies", "4",
    ) == Sample(
        source="here", extras=("more", "and more"), output=Path("out"), colour="green", width=3, shiny=True,
        frame=False, weights=(1.0, 2.5), names=("x", "y"), pairs=((0, 0), (2, 6)), copies=(2, 4),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["here"], "Missing option '--output' / '-o'"),
        (["here", "-o", "out", "--weights", "1,x"], "'1,x' must be numbers such as 0.5,0.1"),
        (["here", "-o", "out", "--pairs", "1-3"], "'1-3' must be pairs such as 1:3,2:6"),
        (["here", "-o", "out", "--colour", "blue"], "'blue' is not one of 'red', 'green'"),
        (["here", "-o", "out/of/bounds"], "--output out/of/bounds is out of bounds"),
        (["here", "-o", "out", "--weights", "9,9.5"], "--weights 9.0,9.5 are too much"),
    ],
)
def test_what_is_refused_is_wrong_usage(parsed: Callable[..., Any], arguments: list[str], message: str) -> None:
    outcome = parsed(*arguments)
    assert outcome.exit_code == 2
    assert message in outcome.stderr


def test_choices_hold_for_callers_in_python_too() -> None:
    with pytest.raises(ConfigError, match=re.escape("--colour blue must be one of red, green")):
        Sample(source="here", output="out", colour="blue")


def test_the_page_has_panels_and_defaults(parsed: Callable[..., Any]) -> None:
    text = parsed("--help").stdout
    assert re.findall(r"^(\w+):$", text, re.MULTILINE) == ["Arguments", "Options", "Looks", "Examples"]
    assert "untold" not in text
    defaults = ["a, b", "1, 8", "POCKETBERT_CONFIG, if set", "red", "as wide as the source", "frame"]
    assert re.findall(r"\[default: ([^]]+)\]", " ".join(text.split())) == defaults
