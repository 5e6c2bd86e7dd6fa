"""Questions with several choices, in the layouts of the usual data sets.

- SWAG (Zellers et al. 2018, https://arxiv.org/abs/1808.05326): `.csv` with `sent1`, `sent2`, `ending0` … and `label`.
- CODAH (Chen et al. 2019, https://arxiv.org/abs/1904.04365): `.tsv` without header: category, prompt, endings, number.
- OpenBookQA (Mihaylov et al. 2018, https://arxiv.org/abs/1809.02789), and ARC: `.jsonl` with `question.stem`,
  `question.choices` and `answerKey`, or its `.tsv` with the columns `Question Stem`, `Choices` and `Answer Key`.
- RACE (Lai et al. 2017, https://arxiv.org/abs/1704.04683): `.json` or `.jsonl` with `article`, `questions`, `options`
  and `answers`, one passage per object; a gap written _ is filled with the option.
- Your own: `.jsonl` with `prompt`, `choices` and `label`, the number of the right choice from 0.

Objects and the rows of `.parquet` files may have any of these layouts, and those in which `datasets` has them:
`question` or `question_stem` with `choices: {"text": […], "label": […]}` and `answerKey`; RACE with one question a row.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from pocketbert.data.bad_rows import BadRows
from pocketbert.data.examples import Examples
from pocketbert.data.files import check_text, json_lines, opened, parquet_rows, type_of
from pocketbert.data.memory import Memory
from pocketbert.errors import DataError


class Choice(NamedTuple):
    """A prompt, its choices, the number of the right choice, and the line in the file."""

    prompt: str
    choices: tuple[str, ...]
    label: int
    line: int


class Choices(Examples[Choice]):
    """The questions of one file."""


def read_choices(source: str | Path | Memory, *, skip_bad: bool = False) -> Choices:
    """Read questions with choices.

    Args:
        source: the file, or rows in memory with the keys of one of its objects.
        skip_bad: skip and list questions that cannot be used.

    Raises:
        DataError: the file is missing, empty or of another layout; a question has fewer than two choices, an empty
            choice, or a label that is not among them.
    """
    if isinstance(source, Memory):
        bad = BadRows(source.path, skip=skip_bad)
        rows = (row for line, value in source.objects() for row in _object(source.path, line, value, bad))
        return _choices(list(_kept(rows, bad)), bad, source.sha256())
    path = Path(source)
    bad = BadRows(path, skip=skip_bad)
    readers = {".csv": _swag, ".tsv": _tsv, **dict.fromkeys((".json", ".jsonl", ".ndjson", ".parquet"), _json)}
    with opened(path, *readers):
        questions = list(_kept(readers[path.suffix.lower()](path, bad), bad))
    return _choices(questions, bad)


def _choices(questions: list[Choice], bad: BadRows, digest: str | None = None) -> Choices:
    bad.check(len(questions))
    if not questions:
        raise DataError(f"{bad.path}: has no questions")
    return Choices(bad.path, questions, skipped=len(bad.found), bad=tuple(bad.found), digest=digest)


class _Row(NamedTuple):
    """A question as the file has it: its line, prompt, choices, and the number or letter of the right one."""

    line: int
    prompt: Any
    choices: Any
    answer: Any


def _kept(rows: Iterable[_Row], bad: BadRows) -> Iterator[Choice]:
    for row in rows:
        try:
            yield _choice(bad.path, *row)
        except DataError as error:
            if not bad.skip:
                raise
            problem = str(error).removeprefix(f"{bad.path}, line {row.line}: ")
            bad(row.line, problem, {"prompt": row.prompt, "choices": row.choices, "label": row.answer})


def _choice(path: Path, line: int, prompt: Any, choices: Any, answer: Any) -> Choice:
    where = f"{path}, line {line}"
    if not isinstance(choices, list | tuple):
        raise DataError(f"{where}: the choices are {type_of(choices)}, not a list")
    texts = tuple(check_text(choice, f"{where}: choice {i}") for i, choice in enumerate(choices, start=1))
    if len(texts) < 2:
        raise DataError(f"{where}: has {len(texts)} choices; two or more are needed")
    written = str(answer).strip()
    # Letters count from A, numbers from 0.
    label = ord(written.upper()) - ord("A") if len(written) == 1 and written.isalpha() else -1
    label = int(written) if written.isdecimal() else label
    if not 0 <= label < len(texts):
        raise DataError(
            f"{where}: the label {answer!r} is not one of the {len(texts)} choices: it must be a number from 0 to "
            f"{len(texts) - 1}, or a letter from A to {chr(ord('A') + len(texts) - 1)}"
        )
    return Choice(check_text(prompt, f"{where}: the prompt"), texts, label, line)


def _endings(names: Iterable[str]) -> list[str]:
    return sorted((name for name in names if re.fullmatch(r"ending\d+", name)), key=lambda name: int(name[6:]))


def _ended(line: int, row: Mapping[str, Any], endings: Sequence[str]) -> _Row:
    """Return a row of SWAG: the second sentence is the beginning of every ending."""
    beginning = str(row["sent2"] or "").strip()
    return _Row(line, row["sent1"], [f"{beginning} {row[name] or ''}".strip() for name in endings], row["label"])


def _swag(path: Path, bad: BadRows) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        names = reader.fieldnames or []
        endings = _endings(names)
        if len(endings) < 2 or not {"sent1", "sent2", "label"} <= set(names):
            raise DataError(
                f"{path}: expected SWAG's columns sent1, sent2, ending0, ending1, … and label; it has: "
                f"{', '.join(names)}"
            )
        line = 2
        try:
            for row in reader:
                if None in row or None in row.values():
                    bad(line, f"has another number of columns than the header ({len(names)})", row)
                else:
                    yield _ended(line, row, endings)
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: {error}. Is a double quote left open?") from None


def _tsv(path: Path, bad: BadRows) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        rows = [(number, line.rstrip("\r\n").split("\t")) for number, line in enumerate(file, 1) if line.strip()]
    header = rows[0][1] if rows else []
    has_names = {"Question Stem", "Choices", "Answer Key"} <= set(header)
    if not has_names and (len(header) < 5 or not header[-1].strip().isdecimal()):
        raise DataError(
            f"{path}, line 1: has neither layout: CODAH has no header and the columns category, prompt, choices and "
            "the number of the right choice; OpenBookQA has the columns Question Stem, Choices and Answer Key"
        )
    for line, row in rows[has_names:]:
        if len(row) != len(header):
            problem = (
                f"has {len(row)} columns, the first line has {len(header)}; in a TSV file every tab separates columns, "
                "and quotes are ordinary characters"
            )
            bad(line, problem, row)
        elif has_names:
            stem, choices, key = (row[header.index(name)] for name in ("Question Stem", "Choices", "Answer Key"))
            yield _Row(line, stem, _lettered(choices), key)
        else:
            yield _Row(line, row[1], row[2:-1], row[-1])


def _lettered(text: str) -> list[str]:
    """Return the parts of "(A) puppies (B) children"; a letter out of order belongs to the text."""
    parts, rest = [], text
    for letter in "ABCDEFGH":
        before, mark, after = rest.partition(f"({letter}) ")
        if not mark:
            break
        parts.append(before.strip())
        rest = after
    return [*parts[1:], rest.strip()]


def _json(path: Path, bad: BadRows) -> Iterator[_Row]:
    rows = parquet_rows(path)[0] if path.suffix.lower() == ".parquet" else _objects(path, bad)
    for line, row in rows:
        yield from _object(path, line, row, bad)


def _object(path: Path, line: int, row: dict[str, Any], bad: BadRows) -> Iterator[_Row]:
    """Yield the questions of an object in one of the layouts."""
    question, choices = row.get("question"), row.get("choices")
    inner = question if isinstance(question, dict) else {}
    stem = inner.get("stem") or row.get("question_stem") or question
    if isinstance(row.get("article"), str):
        yield from _race(path, line, row, bad)
    elif isinstance(inner.get("choices"), list):
        options = [option if isinstance(option, dict) else {} for option in inner["choices"]]
        yield _keyed(line, stem, [(option.get("label"), option.get("text")) for option in options], row)
    elif isinstance(choices, dict) and isinstance(choices.get("text"), list):
        keys = choices.get("label") or range(len(choices["text"]))
        yield _keyed(line, stem, list(zip_longest(keys, choices["text"])), row)
    elif {"sent1", "sent2", "label"} <= row.keys() and _endings(row):
        yield _ended(line, row, _endings(row))
    elif isinstance(choices, list):
        yield _Row(line, row.get("prompt"), choices, row.get("label"))
    else:
        problem = (
            f"has the keys {', '.join(row)}; expected prompt, choices and label, or question.stem, "
            f"question.choices "
            "and answerKey (OpenBookQA), or article, questions, options and answers (RACE)"
        )
        bad(line, problem, row)


def _keyed(line: int, stem: Any, options: Sequence[tuple[Any, Any]], row: Mapping[str, Any]) -> _Row:
    """Return a question whose choices have letters or numbers of their own."""
    keys, key = [str(label) for label, _ in options], row.get("answerKey")
    return _Row(line, stem, [text for _, text in options], keys.index(str(key)) if str(key) in keys else key)


def _objects(path: Path, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield objects: one per line, or one object or list that is the whole file."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):  # one per line, then; errors name the line
        yield from json_lines(path, bad)
        return
    for row in whole if isinstance(whole, list) else [whole]:
        if isinstance(row, dict):
            yield 1, row
        else:
            bad(1, f"holds a {type(row).__name__}, not an object with a question", row)


def _race(path: Path, line: int, row: dict[str, Any], bad: BadRows) -> Iterator[_Row]:
    if "questions" not in row:  # one question in each row
        row = {
            **row,
            **{f"{name}s": [row.get(name)] for name in ("question", "answer")},
            "options": [row.get("options")],
        }
    parts = [row.get(name) for name in ("questions", "options", "answers")]
    if not all(isinstance(part, list) for part in parts) or len({len(part or []) for part in parts}) != 1:
        bad(line, "questions, options and answers must be lists of the same length", row)
        return
    for question, options, answer in zip(*(part or [] for part in parts), strict=True):
        if not isinstance(question, str):
            bad(line, f"a question holds {type_of(question)} instead of text", row)
        elif not isinstance(options, list) or not all(isinstance(one, str) and one.strip() for one in options):
            bad(line, f"the options of {question!r:.40} are not a list of texts", row)
        else:
            filled = [question.replace("_", one) if "_" in question else f"{question} {one}" for one in options]
            yield _Row(line, row["article"], filled, answer)
