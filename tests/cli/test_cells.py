"""Texts with styles, their width on terminals, and tables of them."""

import io
import random
import sys

import pytest
from rich.cells import cell_len

from pocketbert.cli import console
from pocketbert.cli.cells import Column, Text, cut, grid, joined, styled, table, width, wrapped

TEXTS = [
    "film",
    "中文，标点",
    "한국어",
    "مُمِلّ",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "ｆｕｌｌ",
    "naïve café",
    "😀",
    "",
    "─ ×",
]


class Screen(io.StringIO):
    """What looks like a terminal, or like a file."""

    encoding = "utf-8"

    def __init__(self, *, is_terminal: bool = True) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def random_text(draw: random.Random) -> str:
    return "".join(draw.choice([*TEXTS, " ", " ", "\n"]) for _ in range(draw.randrange(40)))


@pytest.mark.parametrize("text", TEXTS)
def test_width_is_that_of_rich(text: str) -> None:
    assert width(text) == cell_len(text)


def test_lines_are_no_wider_than_they_may_be_and_keep_their_words() -> None:
    draw = random.Random(0)
    for _ in range(300):
        text, columns = random_text(draw), draw.randrange(2, 30)
        whole = joined(Text(part, draw.choice(["", "bold", "red"])) for part in (text[:9], text[9:]))
        lines = wrapped(whole, columns)
        assert all(width(line.plain) <= columns for line in lines)
        assert "".join("".join(line.plain for line in lines).split()) == "".join(text.split())
        assert [
            style for line in lines for c, style in zip(line.plain, line.styles, strict=True) if not c.isspace()
        ] == [style for c, style in zip(whole.plain, whole.styles, strict=True) if not c.isspace()]
        if all(width(word) <= columns for word in text.split()):  # then no word is broken
            assert " ".join(line.plain for line in lines).split() == text.split()
        assert width(cut(whole, columns).plain) <= columns


def test_a_table() -> None:
    rows: list[tuple[str | Text, ...]] = [
        ("a film", Text("positive", "green"), "0.99"),
        ("one two three four five six", "negative", "0.9"),
    ]
    columns = [Column("Text"), Column("Label"), Column("Score", is_number=True)]
    assert [line.plain for line in table(columns, rows, 100)] == [
        "",
        " Text                         Label     Score",
        " ────────────────────────────────────────────",
        " a film                       positive   0.99",
        " one two three four five six  negative    0.9",
        "",
    ]
    assert [line.plain for line in table(columns, rows, 36)][3:] == [
        " a film             positive   0.99",
        " one two three      negative    0.9",
        " four five six",
        "",
    ]


def test_tables_fit_the_terminal_unless_their_numbers_are_wider() -> None:
    draw = random.Random(1)
    for _ in range(100):
        rows = [(random_text(draw), random_text(draw), f"{draw.random():.3f}") for _ in range(3)]
        total = draw.randrange(24, 90)
        lines = table([Column("A\nB"), Column("C"), Column("Score", is_number=True)], rows, total)
        assert all(width(line.plain) <= total for line in lines)
        assert all(row[2] in "\n".join(line.plain for line in lines) for row in rows)


def test_names_and_values() -> None:
    rows = [(Text("name", "dim"), "value " * 5), (Text("x", "dim"), "y")]
    assert [line.plain for line in grid(rows, 20)] == [
        "name  value value",
        "      value value",
        "      value",
        "x     y",
    ]


def test_styles_follow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert styled("a", "bold red") == "\x1b[31m\x1b[1ma\x1b[0m"
    assert str(joined(("a", Text("b", "dim"), "c"))) == "a\x1b[2mb\x1b[0mc"
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("a", "bold red") == "\x1b[1ma\x1b[0m"
    monkeypatch.setenv("TERM", "dumb")
    assert styled("a", "bold red") == "a"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_cells_written_from_right_to_left_are_isolated_on_a_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Screen(is_terminal=is_terminal))
    cells: list[str | Text] = ["رائع 12", "film", Text("مُمِلّ " * 12, "green")]
    text = "\n".join(line.plain for line in table([Column("Text"), Column("Label"), Column("Why")], [cells], 40))
    assert ("\u2068رائع 12\u2069" in text) is is_terminal
    assert "\u2068film" not in text
    lines = text.splitlines()
    assert sum("مُمِلّ" in line for line in lines) > 2  # the last cell takes several lines, each isolated
    assert all(line.count("\u2068") == line.count("\u2069") for line in lines)
    assert text.count("\u2068") == (len([line for line in lines if "مُمِلّ" in line]) + 1 if is_terminal else 0)


def test_lines_that_move_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "dumb")
    with console.busy("working"):
        assert not screen.getvalue()
    monkeypatch.setenv("TERM", "xterm")
    moving = console.MovingLines()
    moving.show([Text("one"), Text("two " * 100)])
    console.print_line("said")  # above them
    moving.show([Text("three")])
    moving.clear()
    console.print_line("end")
    shown = screen.getvalue()
    assert "said\n" in shown
    rows, row = [""], 0  # of a terminal that knows what is used
    for part in shown.replace("\x1b[J", "\0").replace("\x1b[1A", "\1").replace("\r", ""):
        if part == "\1":
            row -= 1
        elif part == "\0":
            rows[row:] = [""]
        elif part == "\n":
            row += 1
            rows[row:] = [""]
        else:
            rows[row] += part
    assert rows == ["said", "end", ""]
