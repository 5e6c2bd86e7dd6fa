"""Questions with several choices, in the layouts of the usual data sets.

- SWAG (Zellers et al. 2018, https://arxiv.org/abs/1808.05326): `.csv` with `sent1`, `sent2`, `ending0` … and `label`.
- CODAH (Chen et al. 2019, https://arxiv.org/abs/1904.04365): `.tsv` without header: category, prompt, endings, number.
- OpenBookQA (Mihaylov et al. 2018, https://arxiv.org/abs/1809.02789), and ARC: `.jsonl` with `question.stem`,
  `question.choices` and `answerKey`, or its `.tsv` with the columns `Question Stem`, `Choices` and `Answer Key`.
- RACE (Lai et al. 2017, https://arxiv.org/abs/1704.04683): `.json` or `.jsonl` with `article`, `questions`, `options`
  and `answers`, one passage per object; a gap written _ is filled with the option.
- Your own: `.jsonl` with `prompt`, `choices` and `label`, the number of the right choice from 0.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pocketbert.data.examples import Examples
from pocketbert.data.files import check_text, json_lines, opened
from pocketbert.errors import DataError


class Choice(NamedTuple):
    """A prompt, its choices, the number of the right choice, and the line in the file."""

    prompt: str
    choices: tuple[str, ...]
    label: int
    line: int


class Choices(Examples[Choice]):
    """The questions of one file."""


def read_choices(path: str | Path) -> Choices:
    """Read questions with choices.

    Raises:
        DataError: the file is missing, empty or of another layout; a question has fewer than two choices, an empty
            choice, or a label that is not among them.
    """
    path = Path(path)
    readers = {".csv": _swag, ".tsv": _tsv, ".json": _json, ".jsonl": _json, ".ndjson": _json}
    with opened(path, *readers):
        questions = list(readers[path.suffix.lower()](path))
    if not questions:
        raise DataError(f"{path}: has no questions")
    return Choices(path, questions)


def _choice(path: Path, line: int, prompt: Any, choices: Sequence[Any], answer: Any) -> Choice:
    where = f"{path}, line {line}"
    texts = tuple(check_text(choice, f"{where}: choice {i}") for i, choice in enumerate(choices, start=1))
    if len(texts) < 2:
        raise DataError(f"{where}: has {len(texts)} choices; two or more are needed")
    written = str(answer).strip()
    # Letters count from A, numbers from 0.
    label = ord(written.upper()) - ord("A") if len(written) == 1 and written.isalpha() else -1
    label = int(written) if written.isdecimal() else label
    if not 0 <= label < len(texts):
        raise DataError(
            f"{where}: the label {answer!r} is not one of the {len(texts)} choices: needed is a number from 0 to "
            f"{len(texts) - 1}, or a letter from A to {chr(ord('A') + len(texts) - 1)}"
        )
    return Choice(check_text(prompt, f"{where}: the prompt"), texts, label, line)


def _swag(path: Path) -> Iterator[Choice]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        names = reader.fieldnames or []
        endings = sorted((name for name in names if re.fullmatch(r"ending\d+", name)), key=lambda name: int(name[6:]))
        if len(endings) < 2 or not {"sent1", "sent2", "label"} <= set(names):
            raise DataError(
                f"{path}: needed are SWAG's columns sent1, sent2, ending0, ending1, … and label; it has: "
                f"{', '.join(names)}"
            )
        line = 2
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {line}: has another number of columns than the header ({len(names)})"
                    )
                beginning = row["sent2"].strip()
                texts = [f"{beginning} {row[name]}".strip() for name in endings]
                yield _choice(path, line, row["sent1"], texts, row["label"])
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: {error}. Is a double quote left open?") from None


def _tsv(path: Path) -> Iterator[Choice]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        rows = [(number, line.rstrip("\r\n").split("\t")) for number, line in enumerate(file, 1) if line.strip()]
    header = rows[0][1] if rows else []
    for (_, first), (line, row) in pairwise(rows):
        if len(row) != len(first):
            raise DataError(
                f"{path}, line {line}: has {len(row)} columns, the previous line has {len(first)}; in a TSV file "
                "every tab separates columns, and quotes are ordinary characters"
            )
    if {"Question Stem", "Choices", "Answer Key"} <= set(header):
        stem, choices, key = (header.index(name) for name in ("Question Stem", "Choices", "Answer Key"))
        for line, row in rows[1:]:
            yield _choice(path, line, row[stem], _lettered(row[choices]), row[key])
        return
    if len(header) < 5 or not header[-1].strip().isdecimal():
        raise DataError(
            f"{path}, line 1: has neither layout: CODAH has no header and the columns category, prompt, choices and "
            "the number of the right choice; OpenBookQA has the columns Question Stem, Choices and Answer Key"
        )
    for line, row in rows:
        yield _choice(path, line, row[1], row[2:-1], row[-1])


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


def _json(path: Path) -> Iterator[Choice]:
    for line, row in _objects(path):
        question = row.get("question")
        if isinstance(row.get("article"), str):
            yield from _race(path, line, row)
        elif isinstance(question, dict) and isinstance(question.get("choices"), list):
            options = [option if isinstance(option, dict) else {} for option in question["choices"]]
            keys, key = [str(option.get("label")) for option in options], row.get("answerKey")
            label = keys.index(str(key)) if str(key) in keys else key
            yield _choice(path, line, question.get("stem"), [option.get("text") for option in options], label)
        elif isinstance(row.get("choices"), list):
            yield _choice(path, line, row.get("prompt"), row["choices"], row.get("label"))
        else:
            raise DataError(
                f"{path}, line {line}: has the keys {', '.join(row)}; needed are prompt, choices and label, or "
                "question.stem, question.choices and answerKey (OpenBookQA), or article, questions, options and "
                "answers (RACE)"
            )


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield objects: one per line, or one object or list that is the whole file."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):  # one per line, then; errors name the line
        yield from json_lines(path)
        return
    for row in whole if isinstance(whole, list) else [whole]:
        if not isinstance(row, dict):
            raise DataError(f"{path}: holds a {type(row).__name__}, not an object with a question")
        yield 1, row


def _race(path: Path, line: int, row: dict[str, Any]) -> Iterator[Choice]:
    parts = [row.get(name) for name in ("questions", "options", "answers")]
    if not all(isinstance(part, list) for part in parts) or len({len(part or []) for part in parts}) != 1:
        raise DataError(f"{path}, line {line}: questions, options and answers must be lists of the same length")
    for question, options, answer in zip(*(part or [] for part in parts), strict=True):
        prompt = check_text(question, f"{path}, line {line}: a question")
        if not isinstance(options, list):
            raise DataError(f"{path}, line {line}: the options of {prompt!r:.40} are not a list")
        texts = [check_text(option, f"{path}, line {line}: an option of {prompt!r:.40}") for option in options]
        filled = [prompt.replace("_", text) if "_" in prompt else f"{prompt} {text}" for text in texts]
        yield _choice(path, line, row["article"], filled, answer)
