"""What a file holds, by its first line, where its name does not tell."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketbert.data.columns import LABELS, PAIRS, TEXTS

LABEL_PREFIX = "__label__"
"""Begins the labels in fastText's files."""

_LABEL = re.compile(rf"(?<!\S){LABEL_PREFIX}(\S+)")
_TABLES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def has_label_prefix(path: Path) -> bool:
    """Whether a file begins as fastText's files do."""
    with path.open("rb") as file:
        start = file.read(len(LABEL_PREFIX) + 3).removeprefix(b"\xef\xbb\xbf")
    return start.startswith(LABEL_PREFIX.encode())


def fasttext_rows(lines: Iterator[str]) -> Iterator[tuple[int, list[Any]]]:
    """Yield the text and the labels of each line of a fastText file, whose labels stand between spaces in the line."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            labels = [label.rstrip(",") for label in _LABEL.findall(line)]
            text = " ".join(_LABEL.sub("", line).split()).removeprefix(", ")
            yield number, [text, labels or None]


def row_format(first: str) -> tuple[str, str] | None:
    """Return what a file is that begins with this line, and the suffix of such files; None for plain text."""
    text = first.strip()
    if text.startswith(("{", "[")):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return ("a list of JSON objects", ".json") if re.match(r"\[\s*(\{|$)", text) else None
        if isinstance(value, list):
            objects = value and all(isinstance(one, dict) for one in value)
            return ("a list of JSON objects", ".json") if objects else None
        texts = [one for one in value.values() if isinstance(one, str) or (isinstance(one, list) and one)]
        return ("JSON lines", ".jsonl") if texts else None
    if text.startswith(LABEL_PREFIX):
        return "training data of fastText", ".fasttext"
    for separator, name in _TABLES.items():
        cells = [cell.strip().strip('"').casefold() for cell in text.split(separator)]
        texts = [cell for cell in cells if cell in TEXTS or any(cell in pair for pair in PAIRS)]
        others = [cell for cell in cells if cell in LABELS or cell in ("id", "")]
        if texts and len(cells) > 1 and (others or len(texts) > 1):
            return f"a table with columns separated by {name}", ".tsv" if separator == "\t" else ".csv"
    return None


def not_a_table(first: str) -> str | None:
    """Return what is wrong with a table that begins with this line, if it plainly holds something else."""
    text = first.strip().casefold()
    if "\0" in text:
        return "is UTF-16; save it as UTF-8 (iconv -f UTF-16LE -t UTF-8)"
    if text.startswith(("<!doctype html", "<html", "<table")):
        return "is an HTML page; save the table in it as CSV"
    if text.startswith("<?xml"):
        return "is XML; save the sheet as CSV"
    if text.startswith("{"):
        return "holds JSON; rename it to end in .jsonl, with one object per line" if row_format(first) else None
    return None
