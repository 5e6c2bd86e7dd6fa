"""Texts with styles, and tables of them, in the columns of a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from typing import NamedTuple
from unicodedata import category, east_asian_width

import click

_LEAST = 4  # columns of a cell that can be wrapped
_GAP = 2  # columns between two
_WORD = re.compile(r"\S+\s*|\s+")
_ISOLATE, _END_OF_ISOLATE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
_UNSEEN = {"Mn", "Me", "Cf"}  # categories of characters without a width: marks and formats


def styled(text: str, style: str) -> str:
    """A text in a style: `bold`, `dim`, `reverse` and a colour, with spaces between them.

    `click.echo` removes the style where the output is no terminal.
    """
    words = set(style.split())
    if not words or os.environ.get("TERM") == "dumb":
        return text
    colours = words - {"bold", "dim", "reverse"} if not os.environ.get("NO_COLOR") else set[str]()
    on: dict[str, bool] = dict.fromkeys(words & {"bold", "dim", "reverse"}, True)
    return click.style(text, fg=next(iter(colours), None), **on)


class Text:
    """A text whose characters have styles."""

    def __init__(self, text: str = "", style: str = "") -> None:
        self.plain, self.styles = text.replace("\t", " "), [style] * len(text)

    def append(self, text: str | Text, style: str = "") -> Text:
        """Add a text, and return the whole."""
        more = text if isinstance(text, Text) else Text(text, style)
        self.plain += more.plain
        self.styles += more.styles
        return self

    def stylize(self, style: str) -> None:
        """Add a style to what there is."""
        self.styles = [f"{before} {style}" for before in self.styles]

    def __getitem__(self, part: slice) -> Text:
        found = Text()
        found.plain, found.styles = self.plain[part], self.styles[part]
        return found

    def __str__(self) -> str:
        """With the codes of the styles."""
        parts = groupby(zip(self.plain, self.styles, strict=True), key=lambda pair: pair[1])
        return "".join(styled("".join(character for character, _ in pairs), style) for style, pairs in parts)


def joined(parts: Iterable[str | Text]) -> Text:
    """One text of several."""
    whole = Text()
    for part in parts:
        whole.append(part)
    return whole


def width(text: str) -> int:
    """The columns that a text takes on a terminal: two for wide characters, none for marks."""
    if text.isascii():
        return len(text)
    return sum(0 if category(c) in _UNSEEN else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: Text, columns: int) -> Text:
    """The beginning of a text that takes at most so many columns."""
    used = 0
    for place, character in enumerate(text.plain):
        used += width(character)
        if used > columns:
            return text[:place]
    return text


def wrapped(text: Text, columns: int) -> list[Text]:
    """The lines of a text, broken at spaces, and inside of words that are longer than a line."""
    lines, start = [], 0
    for line in text.plain.split("\n"):
        lines += [isolated(text[start + first : start + last]) for first, last in _breaks(line, columns)]
        start += len(line) + 1
    return lines


def _breaks(line: str, columns: int) -> Iterator[tuple[int, int]]:
    """Where the parts of a line begin and end, without the spaces at which it is broken."""
    first = last = used = 0  # of the part so far
    for word in _WORD.findall(line):
        if used + width(word.rstrip()) > columns and last > first:
            yield first, first + len(line[first:last].rstrip())
            first, used = last, 0
        for character in word:
            size = width(character)
            if used + size > columns and last > first and not character.isspace():
                yield first, last
                first, used = last, 0
            last, used = last + 1, used + size
    yield first, first + len(line[first:last].rstrip())


def isolated(line: Text) -> Text:
    """A line that keeps its place between others where a terminal orders them by the directions of scripts.

    Otherwise a number or bracket after Arabic moves to its left, by Unicode's bidirectional algorithm (annex 9).
    """
    from pocketbert.words import is_right_to_left  # which imports NumPy, that --help does without

    if line.plain.isascii() or not sys.stdout.isatty() or not is_right_to_left(line.plain):
        return line
    return joined((_ISOLATE, line, _END_OF_ISOLATE))


class Column(NamedTuple):
    """A column of a table: its head, and whether it holds numbers, which are right-aligned and never wrapped."""

    head: str
    is_number: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], total: int) -> list[Text]:
    """The lines of a table with a rule below its bold head, at most `total` columns wide if its numbers let it."""
    heads = [Text(column.head, "bold") for column in columns]
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = [
        max(width(line) for cell in of_column for line in cell.plain.split("\n"))
        for of_column in zip(heads, *cells, strict=True)
    ]
    flexible = [number for number, column in enumerate(columns) if not column.is_number]
    while sum(widths) + _GAP * (len(widths) - 1) + 2 > total:
        widest = max(flexible, key=lambda number: widths[number], default=None)
        if widest is None or widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
    right = [column.is_number for column in columns]
    rule = Text(" " + _shown("─", "-") * (sum(widths) + _GAP * (len(widths) - 1)))
    lines = [*_row(heads, widths, right), rule, *(line for row in cells for line in _row(row, widths, right))]
    return [Text(), *(joined((" ", line)) if line is not rule else line for line in lines), Text()]


def grid(rows: Sequence[tuple[Text, str | Text]], total: int) -> list[Text]:
    """The lines of names and their values."""
    names = max((width(name.plain) for name, _ in rows), default=0)
    cells = [(name, value if isinstance(value, Text) else Text(value)) for name, value in rows]
    widths = names, max(_LEAST, total - names - _GAP)
    return [line for row in cells for line in _row(row, widths, (False, False))]


def _row(row: Sequence[Text], widths: Sequence[int], right: Sequence[bool]) -> Iterator[Text]:
    """The lines of a row."""
    cells = [wrapped(cell, size) for cell, size in zip(row, widths, strict=True)]
    for parts in zip_longest(*cells, fillvalue=Text()):
        spaces = [" " * (size - width(part.plain)) for part, size in zip(parts, widths, strict=True)]
        line = Text()
        for number, (part, space) in enumerate(zip(parts, spaces, strict=True)):
            line.append(" " * _GAP if number else "")
            line.append(space if right[number] else "").append(part)
            line.append("" if right[number] or number == len(parts) - 1 else space)
        yield line[: len(line.plain.rstrip(" "))]


def _shown(character: str, otherwise: str) -> str:
    """A character, if standard output can show it."""
    try:
        character.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return otherwise
    return character
