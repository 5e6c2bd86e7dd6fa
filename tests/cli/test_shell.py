"""What holds for every command: help, exit status, streams and signals; checked from outside, as a shell sees it."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import click
import pytest

from helpers.shell import Outcome, shell, start
from pocketbert import __version__, cli

Run = Callable[..., Outcome]
COMMANDS = (
    "classify",
    "tag",
    "answer",
    "fill-mask",
    "choose",
    "embed",
    "rank",
    "prepare",
    "pretrain",
    "transfer",
    "finetune",
    "distill",
    "check",
    "evaluate",
    "compare",
    "quantize",
    "export",
    "serve",
    "info",
    "bench",
)


def test_version(run: Run) -> None:
    assert run("--version").text == f"pocketbert {__version__}\n"


def test_help_names_all_commands(run: Run) -> None:
    text = run("--help").text
    assert all(f" {name} " in text for name in COMMANDS)
    assert "Examples" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_examples(run: Run, command: str) -> None:
    text = run(command, "--help").text
    examples = text[text.index("Examples") :]
    assert f"pocketbert {command}" in examples
    assert "\\" not in text  # escaped markup that was not read as such
    assert max(map(len, text.splitlines())) <= 80


def test_the_lines_of_the_table_begin_the_help_of_the_commands() -> None:
    context = click.Context(cli.app)
    for panel in cli.COMMANDS.values():
        for name, (_, line) in panel.items():
            command = cli.app.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert str(command.help).startswith(line), name
    assert tuple(cli.app.list_commands(context)) == COMMANDS


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["clasify"], "Did you mean 'classify'?"),
        (["classify", "--top-k", "0", "x"], "--top-k"),
        (["classify", "x", "--file", "y"], "not both"),
        (["classify", "x", "--text-column", "y"], "columns"),
        (["classify", "x", "--labels", "a,b"], "--model"),
        (["classify", "--file", "a.csv", "--pair", "x"], "--text-pair-column"),
        (["classify", "x", "-m", "m", "--labels", "a,b", "--template", "{x}"], "--template"),
        (["choose", "x", "y", "z"], "--model"),
        (["answer", "--model", "m", "q", "--context", "x", "--file", "y"], "not both"),
        (["choose", "--model", "m", "p", "one"], "two or more choices"),
        (["embed", "--model", "m", "x", "--pooling", "sum"], "'cls', 'max', 'mean'"),
        (["finetune", "data.csv"], "--output"),
        (["info"], "MODEL"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], says: str) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert says in outcome.err


def test_errors_are_one_line_and_a_status() -> None:
    outcome = shell("info", "./nowhere")
    assert outcome.error == "'./nowhere': no such folder, and not a valid name of a model on the hub"


def test_debug_shows_the_traceback() -> None:
    outcome = shell("info", "./nowhere", env={"POCKETBERT_DEBUG": "1"})
    assert outcome.code == 1
    assert outcome.err.startswith("Traceback")
    assert "CheckpointError" in outcome.err.splitlines()[-1]


def test_what_torch_needs_is_said_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, models: dict[str, Path]
) -> None:
    monkeypatch.setattr("pocketbert.errors.find_spec", lambda name: None)
    advice = "pip install 'pocketbert[train]'"
    assert run("classify", "--model", models["classify"], "x").code == 0  # answering needs none
    assert advice in run("finetune", "data.csv", "--model", "m", "--output", "o").error
    assert advice in run("evaluate", "m", "data.csv", "--device", "cpu").error


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, ""), (None, 141, "")],
    ids=["Ctrl-C", "kill", "head"],
)
def test_lines_are_answered_at_once_until_it_ends(number: int | None, code: int, says: str) -> None:
    process = start(["classify"])
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write("the film is great\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["label"] == "positive"
    if number is not None:
        process.send_signal(number)
    else:  # the reader goes away, as `head` does
        process.stdout.close()
        process.stdin.write("the film is dull\n")
        process.stdin.flush()
    assert process.wait(300) == code
    assert process.stderr.read() == says
    process.stdin.close()
    process.stdout.close()
    process.stderr.close()


def unread(pipe: IO[str]) -> int:
    """The bytes that wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_no_line_is_torn(number: int, models: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    file.write_text("the film\n" * 20_000)
    process = start(["embed", "--model", models["embed"], "--file", file], stdin=subprocess.DEVNULL)
    assert process.stdout
    assert process.stderr
    first = process.stdout.readline()
    written = -1
    while written != (written := unread(process.stdout)):  # it fills the pipe, and waits in the middle of a line
        time.sleep(0.3)
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(300) == 128 + number
    assert rest.endswith("\n")
    lines = [first, *rest.splitlines(keepends=True)]
    assert 1 < len(lines) < 20_000
    assert set(lines) == {first}
    process.stdout.close()
    process.stderr.close()


def test_half_a_line_is_answered_with_the_other_half() -> None:
    process = start(["classify"])
    assert process.stdin
    process.stdin.write("the film\nis ")
    process.stdin.flush()
    assert process.stdout
    assert json.loads(process.stdout.readline())["text"] == "the film"
    out, err = process.communicate("great\n\ndull", timeout=300)
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["is great", "dull"]
    assert err == "note: skipped lines without text: 1\n"


def on_terminal(*arguments: str | Path, **environment: str) -> tuple[int, str]:
    """Run a command where both streams are a terminal of 80 columns: its status, and what is seen."""
    leader, follower = pty.openpty()
    streams: dict[str, int] = dict.fromkeys(("stdin", "stdout", "stderr"), follower)
    process = start(arguments, env={"TERM": "xterm-256color", "COLUMNS": "80", **environment}, **streams)
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while block := os.read(leader, 1024):
            seen += block
    os.close(leader)
    return process.wait(300), seen.decode()


def test_a_bar_for_those_who_wait_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    file.write_text("the film is great, and long, and it has a plot\n" * 100_000)
    leader, follower = pty.openpty()
    process = start(
        ["classify", "--file", file],
        env={"TERM": "xterm-256color", "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while b" left" not in seen:
        seen += os.read(leader, 1024)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):
        while block := os.read(leader, 1024):
            seen += block
    os.close(leader)
    assert process.wait(300) == 130
    assert re.search(r"\d+ texts · [\d,]+/s .* \d+:\d\d:\d\d left", seen.decode())
    assert seen.decode().strip().endswith("interrupted")


def test_people_get_colours(models: dict[str, Path]) -> None:
    status, seen = on_terminal("tag", "--model", models["tag"], "Marie Curie was born in Warsaw.")
    assert status == 0
    assert "loading the model" in seen
    assert "{" not in seen
    assert re.search(r"\x1b\[3\dm\[(PER|LOC) ", seen)


@pytest.mark.parametrize("plain", [False, True])
def test_no_colours_for_those_who_do_not_want_them(plain: bool) -> None:
    status, seen = on_terminal("info", "./nowhere", **({"NO_COLOR": "1"} if plain else {}))
    assert status == 1
    assert ("\x1b[31m\x1b[1merror: \x1b[0m" in seen) != plain
    assert "nowhere" in seen


def test_no_text_on_a_terminal_is_wrong_usage() -> None:
    status, seen = on_terminal("classify")
    assert status == 2
    assert "--file" in re.sub(r"\x1b\[[\d;]*m", "", seen)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("cl", ["plain,classify"]),
        ("fi", ["plain,fill-mask", "plain,finetune"]),
        ("classify --to", ["plain,--top-k"]),
        ("classify --file ", ["file,"]),
        ("evaluate my-model ", ["file,"]),
    ],
)
def test_completion(typed: str, completed: list[str]) -> None:
    words = f"pocketbert {typed}"
    environment = {
        "_POCKETBERT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)
    }  # fmt: skip
    code = "from pocketbert.cli import main; main()"
    assert shell(command=[sys.executable, "-c", code], env=environment).out.splitlines() == completed


@pytest.mark.parametrize(("name", "says"), [("bash", "complete"), ("zsh", "#compdef pocketbert"), ("fish", "complete")])
def test_completion_is_installed_by_what_the_shell_reads(name: str, says: str) -> None:
    environment = {"_POCKETBERT_COMPLETE": f"{name}_source"}
    outcome = shell(command=[sys.executable, "-c", "from pocketbert.cli import main; main()"], env=environment)
    assert says in outcome.text
    assert "_POCKETBERT_COMPLETE" in outcome.out


def test_several_commands_in_one_process_note_everything_once() -> None:
    code = """
import logging, sys
from pocketbert.cli import main

for _ in range(3):
    sys.argv = ["pocketbert", "--version"]
    try:
        main()
    except SystemExit:
        logging.getLogger("pocketbert").warning("a message")
"""
    assert shell(command=[sys.executable, "-c", code]).err == "note: a message\n" * 3
