"""Options from environment variables and files: the same values as on the command line, in this order, or one error."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from helpers.shell import Outcome
from pocketbert import cli
from pocketbert.cli import given
from pocketbert.cli.runs import apply_preset
from pocketbert.errors import ConfigError
from pocketbert.toml import read_toml

Run = Callable[..., Outcome]
ROOT = click.Context(cli.app)
COMMANDS = {name: command for name in cli.app.list_commands(ROOT) if (command := cli.app.get_command(ROOT, name))}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(given.PREFIX)]:
        monkeypatch.delenv(name)


def values_of(name: str, *arguments: str) -> dict[str, Any]:
    """The values that a command gets."""
    parent = click.Context(cli.app)
    return COMMANDS[name].make_context(name, list(arguments), parent=parent).params


def sample(parameter: click.Parameter) -> Any:
    """A value that is not the default, as TOML has it."""
    kind = parameter.type
    if isinstance(kind, click.types.BoolParamType):
        return parameter.default is not True
    if isinstance(kind, click.Choice):
        one: Any = [choice for choice in kind.choices if choice != parameter.default][-1]
    elif isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        one = 3
    else:
        one = "1:3,2:6" if ":" in (parameter.metavar or "") else "7"
    return [one, one] if parameter.multiple or parameter.nargs == -1 else one


def on_the_command_line(parameter: click.Parameter, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield (parameter.opts if value else parameter.secondary_opts)[0]
        return
    for one in value if isinstance(value, list) else [value]:
        yield from [parameter.opts[0]] * isinstance(parameter, click.Option)
        yield str(one)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {parameter: sample(parameter) for parameter in COMMANDS[name].params}
    arguments = [(isinstance(p, click.Argument), list(on_the_command_line(p, value))) for p, value in chosen.items()]
    typed = [word for is_argument, words in arguments if not is_argument for word in words]
    typed += [word for is_argument, words in arguments if is_argument for word in words]
    expected = values_of(name, *typed)
    assert expected.keys() == {parameter.name for parameter in chosen}

    def written(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else repr(value)

    lines = [f"{given.key_of(parameter)} = {written(value)}" for parameter, value in chosen.items()]
    file = tmp_path / "options.toml"
    file.write_text("\n".join([f"[{name}]", *lines]), encoding="utf-8")
    assert values_of(name, "--config", str(file)) == expected

    for parameter, value in chosen.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        monkeypatch.setenv(given.variable(name, parameter), text)
    assert values_of(name) == expected


def test_names_are_clear() -> None:
    """No variable stands for two options, and no key above the tables for a command."""
    names = [given.variable(name, parameter) for name, command in COMMANDS.items() for parameter in command.params]
    keys = {given.key_of(parameter) for command in COMMANDS.values() for parameter in command.params}
    assert len({*names}) == len(names)
    assert not {*names} & given.OTHERS
    assert not any(given._LINKS.fullmatch(name) for name in names)
    assert not keys & COMMANDS.keys()
    assert "config" not in keys


def test_variables_of_the_project_are_known() -> None:
    """What its own code reads is not refused by its commands."""
    root = Path(__file__).parents[2]
    files = [path for folder in ("src", "benchmarks", "tests/helpers") for path in (root / folder).rglob("*.py")]
    files += [path for path in (root / "scripts").iterdir() if path.is_file()]
    read = {
        name
        for path in files
        for name in re.findall(r"environ\W+(?:get\W+)?(POCKETBERT_[A-Z_]+)", path.read_text("utf-8"))
    } | {name for path in files for name in re.findall(r"\$\{?(POCKETBERT_[A-Z_]+)", path.read_text("utf-8"))}
    assert {"POCKETBERT_RESULTS", "POCKETBERT_NATIVE_BUILDS"} <= read <= given.OTHERS


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "options.toml"
    file.write_text('text-column = "all"\n[tag]\nmodel = "of tag"\n[classify]\nmodel = "of the file"\ntop-k = 4\n')
    assert values_of("classify")["top_k"] is None
    monkeypatch.setenv(given.CONFIG, str(file))
    found = values_of("classify")
    assert (found["top_k"], found["model"], found["text_column"]) == (4, "of the file", "all")
    monkeypatch.setenv("POCKETBERT_CLASSIFY_TOP_K", "5")
    monkeypatch.setenv("POCKETBERT_CLASSIFY_MODEL", "")  # as if it were not set
    found = values_of("classify")
    assert (found["top_k"], found["model"]) == (5, "of the file")
    assert values_of("classify", "-k", "6")["top_k"] == 6
    other = tmp_path / "other.toml"
    other.write_text("[classify]\ntop-k = 7\n")
    monkeypatch.delenv("POCKETBERT_CLASSIFY_TOP_K")
    assert values_of("classify", "--config", str(other))["top_k"] == 7
    with pytest.raises(click.MissingParameter, match="model"):
        values_of("choose", "Where?", "here", "there", "--config", str(other))


def test_a_preset_leaves_what_the_file_gives(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('[finetune]\nepochs = 0.5\npreset = "squeezebert"\noutput = "out"\ndata = "a.csv"\n')
    with COMMANDS["finetune"].make_context(
        "finetune", ["--config", str(file)], parent=click.Context(cli.app)
    ) as context:
        values = apply_preset(context.params["preset"], context.params)
    assert (values["epochs"], values["batch_size"]) == (0.5, 16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[serve]\nport = 1\nprt = 1", "FILE, line 3, serve.prt: serve has no option of this name; did you mean port?"),
        ("[serve]\nmax_body = 1", "line 2, serve.max_body: serve has no option of this name; did you mean max-body?"),
        ("\n[srve]\nport = 1", "FILE, line 2, srve: no command has this name; did you mean serve?"),
        ("devise = 'x'", "FILE, line 1, devise: no command has an option of this name; did you mean device?"),
        ("serve = 3", "FILE, line 1, serve: the options of a command are a table: [serve]"),
        ("[tag]\nmodel = 'x'\nprt = 2", "FILE, line 3, tag.prt: tag has no option of this name"),
        ("[serve]\nport = '1'", "FILE, line 2, serve.port: must be a number, not '1'"),
        ("[serve]\nport = 1.5", "FILE, line 2, serve.port: '1.5' is not a valid integer"),
        ("[serve]\nport = true", "FILE, line 2, serve.port: must be a number, not true"),
        ("[serve]\nlog = 1", "FILE, line 2, serve.log: must be true or false, not 1"),
        ("[serve]\nhost = 1979-05-27", "serve.host: must be a text in quotation marks, not datetime.date(1979, 5, 27)"),
        ("serve.host = ['a', 'b']", "FILE, line 1, serve.host: must be one value, not an array"),
        ("[serve]\ncors = [\n'a',\n2]", "FILE, line 2, serve.cors: must be a text in quotation marks, not 2"),
        ("serve = {log = true, port = 99999}", "in [0, 65535] (--port is from FILE, line 1, serve.port)"),
        ('[serve]\nhost = """\nport = 1\n"""\nport = -1', "(--port is from FILE, line 5, serve.port)"),
        ("[classify]\nlabels = ['a,b', 'c']", "line 2, classify.labels: 'a,b' contains a comma, which separates"),
        ("[serve]\nport = ", "FILE, line 2: not TOML: Invalid value"),
        ("[serve]\nport = 1\nport = 2", "FILE, line 3: not TOML: Cannot overwrite a value"),
        (b"[serve]\nhost = '\xff'", "FILE, line 2: not UTF-8"),
        (b"#" * ((1 << 20) + 1), "FILE is larger than 1 MiB"),
        ("a = " + "[" * 5000, "not TOML"),
        (None, "cannot read FILE: No such file or directory"),
    ],
)
def test_wrong_files(run: Run, tmp_path: Path, content: str | bytes | None, message: str) -> None:
    file = tmp_path / "options.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = run("classify" if "classify" in str(content) else "serve", "--config", file)
    assert message.replace("FILE", str(file)) in outcome.error


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("POCKETBERT_SERVE_PORT", "9x", "POCKETBERT_SERVE_PORT: '9x' is not a valid integer"),
        ("POCKETBERT_SERVE_LOG", "maybe", "POCKETBERT_SERVE_LOG: 'maybe' is not a valid boolean"),
        (
            "POCKETBERT_SERVE_PORT",
            "99999",
            "--port 99999 must lie in [0, 65535] (--port is from POCKETBERT_SERVE_PORT)",
        ),
        ("POCKETBERT_SERVE_PROT", "1", "no command has such an option; did you mean POCKETBERT_SERVE_PORT?"),
        ("POCKETBERT_TOP_K", "1", "POCKETBERT_TOP_K is set in the environment, and no command has such an option"),
        ("POCKETBERT_APIKEYS", "1", "did you mean POCKETBERT_API_KEYS?"),
        ("POCKETBERT_TAG_CONFIG", "x", "POCKETBERT_TAG_CONFIG is set in the environment, and no command has"),
        ("POCKETBERT_CONFIG", "nowhere.toml", "cannot read nowhere.toml: No such file"),
    ],
)
def test_wrong_variables(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(name, value)
    assert message in run("serve").error


def test_variables_of_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes and Docker set for a service of this name, and options of other commands."""
    for name in (
        "POCKETBERT_SERVICE_HOST", "POCKETBERT_SERVICE_PORT", "POCKETBERT_SERVICE_PORT_HTTP", "POCKETBERT_PORT",
        "POCKETBERT_PORT_8000_TCP", "POCKETBERT_PORT_8000_TCP_ADDR", "POCKETBERT_SERVE_MAX_BODY",
    ):  # fmt: skip
        monkeypatch.setenv(name, "7")
    assert len(run("classify", "a fine film").lines) == 1


def test_the_help_page_shows_what_is_given(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("options.toml")
    file.write_text("[serve]\nport = 9000\nworkers = 2\n")
    monkeypatch.setenv("POCKETBERT_SERVE_WORKERS", "3")
    text = " ".join(run("serve", "--config", file, "--help").text.split())
    assert f"[default: 9000, from {file}, line 2, serve.port]" in text
    assert "[default: 3, from POCKETBERT_SERVE_WORKERS]" in text
    assert "POCKETBERT_SERVE_NAME for --name" in text
    monkeypatch.setenv("POCKETBERT_NONSENSE", "1")
    assert "--port N" in run("serve", "--help").text
    assert "--config" not in run("--help").text


VALUES = (
    "KEY = 1",
    "  'KEY' = 'a # b'  # [c]",
    '"KEY" = """\n[t]\nx = "" 1\\""""  # ]',
    "KEY = '''\ny = 1\n[z]\n''''",
    "KEY.in = []",
    'KEY = [ # ]\n  "]", ["["],\n  1,\n]',
    'KEY = {a = "}", b = [{c = 1}]}',
    "KEY = 1979-05-27T07:32:00Z",
    'KEY = "\\"[\\\\" # "',
)


def test_lines_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('"b c" = 1\n[a.x]\n# y = 1\nz = """\ny = 2\n"""\n y= 3\n[a]\ny = [\n1,\n]\nx2.w = 2')
    found = read_toml(file)
    expected = {("b c",): 1, ("a", "x"): 2, ("a", "x", "y"): 7, ("a", "y"): 9, ("a", "x", "z"): 4}
    assert {keys: found.place(*keys) for keys in expected} == {
        keys: f"{file}, line {line}, {'.'.join(keys)}" for keys, line in expected.items()
    }
    for _ in range(100):  # random files of such statements
        lines, expected, table = list[str](), {}, tuple[str, ...]()
        for number in range(12):
            name = f"k{number}"
            if random.random() < 0.2:
                table = (f"t{number}", "in side")
                expected[table] = len(lines) + 1
                lines += [f'[t{number} . "in side"]  # [x]']
            expected[*table, name] = len(lines) + 1
            lines += random.choice(VALUES).replace("KEY", name).split("\n")
        file.write_text("\n".join(lines))
        found = read_toml(file)
        assert {keys: found.place(*keys) for keys in expected} == {
            keys: f"{file}, line {line}, {'.'.join(keys)}" for keys, line in expected.items()
        }
    with pytest.raises(ConfigError, match="Is a directory"):
        read_toml(tmp_path)
