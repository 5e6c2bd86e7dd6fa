"""Tagged words of a file, in any of its forms.

- `.jsonl`, `.ndjson`, `.json`: one object per line, with a list of words and a list of tags of the same length.
- `.csv` with both lists as text, under their names.
- `.parquet`: rows with both lists. Tags may be numbers if the file names them, as `datasets` writes it.
- any other name: columns, see `conll`.

Sentences of JSON lines and Parquet have the number of their line or row.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from pocketbert.data.bad_rows import BadRows
from pocketbert.data.conll import Sentence, Sentences, checked, read_conll
from pocketbert.data.files import check_file, check_text, json_lines, opened, parquet_rows, type_of
from pocketbert.data.memory import Memory
from pocketbert.data.separated import csv_rows, header_of
from pocketbert.data.spellings import read_list
from pocketbert.errors import ConfigError, DataError

# Names of columns to detect, best first.
_WORDS = ("tokens", "words")
_TAGS = ("ner_tags", "tags", "labels", "entities", "pos_tags", "upos")
_TABLES = (".jsonl", ".ndjson", ".json", ".parquet")


def read_tagged(
    source: str | Path | Memory,
    words: str | None = None,
    tags: str | None = None,
    names: Sequence[str] | None = None,
    *,
    known: Collection[str] = (),
    skip_bad: bool = False,
) -> Sentences:
    """Read sentences of tagged words.

    Args:
        source: the file, or rows in memory with a list of words and a list of tags each.
        words: the column of words: its number in a file of columns, its name elsewhere [default: detected].
        tags: the column of tags, likewise.
        names: the tags that the numbers 0, 1, … stand for.
        known: tags of a model, which are used as they are written; others are written B-PER.
        skip_bad: skip and list sentences that cannot be used.

    Raises:
        ConfigError: a column of a file of columns is not a number.
        DataError: the file cannot be read as sentences; see `read_conll` and `checked`.
    """
    if isinstance(source, Memory):
        bad = BadRows(source.path, skip=skip_bad)
        found = list(_sentences(source.path, source.objects(), words, tags, {}, names, bad))
        bad.check(len(found))
        sentences = Sentences(source.path, found, skipped=len(bad.found), bad=tuple(bad.found), digest=source.sha256())
        return checked(sentences, names, known)
    path = Path(source)
    bad = BadRows(path, skip=skip_bad)
    lists = path.suffix.lower() == ".csv" and path.is_file() and _has_lists(path, words)
    if path.suffix.lower() not in _TABLES and not lists:
        numbers = {}
        for name, flag, value in (("word", "text", words), ("tag", "label", tags)):
            if value is not None and (not value.isdecimal() or int(value) < 1):
                raise ConfigError(f"--{flag}-column {value}: columns of CoNLL files are numbers, from 1")
            numbers[f"{name}_column"] = None if value is None else int(value)
        _refuse_json(path)
        return read_conll(path, **numbers, names=names, known=known, bad=bad)
    check_file(path)
    with opened(path):
        if path.suffix.lower() == ".parquet":
            rows, stored = parquet_rows(path)
        elif lists:
            rows, stored = _csv(path, bad), {}
        else:
            rows, stored = json_lines(path, bad), {}
        found = list(_sentences(path, rows, words, tags, stored, names, bad))
    bad.check(len(found))
    return checked(Sentences(path, found, skipped=len(bad.found), bad=tuple(bad.found)), names, known)


def _has_lists(path: Path, words: str | None) -> bool:
    """Whether a CSV file has a column of lists of words."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        first = file.readline(1 << 20).removeprefix("\ufeff").strip()
        names = {name.strip().strip('"') for name in re.split("[,;]", first)}
        return bool(names & {*_WORDS, words}) and "[" in file.readline(1 << 20)


def _csv(path: Path, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a CSV file, with lists where a cell holds one as text."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv_rows(path, file, bad)
        names = header_of(path, rows)
        for line, row in rows:
            lists = map(read_list, row)
            cells = [cell if items is None else list(items) for cell, items in zip(row, lists, strict=True)]
            yield line, dict(zip(names, cells, strict=False))  # cells at the end of a row may be missing


def _refuse_json(path: Path) -> None:
    """Raise `DataError` where a file of another name holds JSON."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.readline(1 << 20).removeprefix(b"\xef\xbb\xbf").strip()
    if start[:1] in (b"{", b"["):
        try:
            json.loads(start)
        except ValueError:
            return
        raise DataError(f"{path}: holds JSON; rename it to end in .jsonl, with one sentence per line")


def _sentences(
    path: Path,
    rows: Iterator[tuple[int, dict[str, Any]]],
    words: str | None,
    tags: str | None,
    stored: dict[str, Sequence[str]],
    names: Sequence[str] | None,
    bad: BadRows,
) -> Iterator[Sentence]:
    for line, row in rows:
        where = f"{path}, line {line}"
        try:
            sentence = _sentence(where, line, row, words, tags, stored, names)
        except DataError as error:
            if not bad.skip:
                raise
            bad(line, str(error).removeprefix(where).lstrip(": "), row)
            continue
        if sentence.words:
            yield sentence


def _sentence(
    where: str,
    line: int,
    row: dict[str, Any],
    words: str | None,
    tags: str | None,
    stored: dict[str, Sequence[str]],
    names: Sequence[str] | None,
) -> Sentence:
    words, tags = words or _column(where, row, _WORDS, "text"), tags or _column(where, row, _TAGS, "label")
    for name in (words, tags):
        if not isinstance(row.get(name), list):
            raise DataError(f"{where}: column {name!r} holds {type_of(row.get(name))} instead of a list")
    if len(row[words]) != len(row[tags]):
        raise DataError(f"{where}: has {len(row[words])} words in {words!r} and {len(row[tags])} tags in {tags!r}")
    return Sentence(
        tuple(check_text(word, f"{where}: word {i}") for i, word in enumerate(row[words], start=1)),
        tuple(_tag(tag, f"{where}: tag {i}", stored.get(tags) or names) for i, tag in enumerate(row[tags], start=1)),
        line,
    )


def _column(where: str, row: dict[str, Any], names: Sequence[str], flag: str) -> str:
    found = next((name for name in names if name in row), None)
    if found is None and isinstance(row.get("text"), str):
        raise DataError(
            f"{where}: holds a text and no list of words; if its entities are given by their characters, write the "
            'words and a tag for each: {"tokens": […], "ner_tags": […]}'
        )
    if found is None:
        raise DataError(
            f"{where}: has none of the columns {', '.join(names)}; name one with --{flag}-column; the columns are: "
            f"{', '.join(row)}"
        )
    return found


def _tag(tag: Any, where: str, names: Sequence[str] | None) -> str:
    if isinstance(tag, int) and not isinstance(tag, bool):
        if names is None:
            raise DataError(f"{where} is a number; name the tags in the order of their numbers (--labels O,B-PER,…)")
        if not 0 <= tag < len(names):
            raise DataError(f"{where} is {tag}, and there are {len(names)} tags: {', '.join(names)}")
        return names[tag]
    return check_text(tag, where)
