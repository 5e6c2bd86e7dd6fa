"""Questions on passages in the layout of SQuAD 1.1 and 2.0.

Rajpurkar et al. 2016 (https://arxiv.org/abs/1606.05250) and 2018 (https://arxiv.org/abs/1806.03822). A `.json` file is
the official one: articles of paragraphs of questions. A `.jsonl` file has one question a line, as `datasets` writes
them: `{"id", "question", "context", "answers": {"text": […], "answer_start": […]}}`. A question without answers is one
that its passage does not answer.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pocketbert.data.examples import Examples
from pocketbert.data.files import check_text, json_lines, opened
from pocketbert.errors import DataError


class Question(NamedTuple):
    """A question, its passage, and the answers that people gave."""

    id: str
    question: str
    context: str
    #: First character and text of each; none where the passage does not answer.
    answers: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Questions(Examples[Question]):
    """The questions of one file."""

    @property
    def unanswerable(self) -> int:
        """How many have no answer; over 0 makes it a task of SQuAD 2.0."""
        return sum(not one.answers for one in self.examples)

    def references(self) -> dict[str, list[str]]:
        """Question id → the texts of its answers: what `metrics.squad` compares with."""
        return {one.id: [text for _, text in one.answers] for one in self.examples}

    def check_offsets(self) -> None:
        """Raise `DataError` unless every answer stands in its passage where it says: needed to learn from it."""
        for one in self.examples:
            for start, text in one.answers:
                if one.context[start : start + len(text)] != text:
                    place = one.context.find(text)
                    where = f"it stands at {place}" if place >= 0 else "it is nowhere in the passage"
                    raise DataError(
                        f"{self.path}, question {one.id}: the answer {text!r:.60} is not at character {start} of its "
                        f"passage ({one.context[start : start + len(text)]!r:.60} is); {where}. answer_start counts "
                        "characters of the passage as it is in the file: count again, or leave the question out"
                    )


def read_squad(path: str | Path) -> Questions:
    """Read questions, passages and answers.

    Raises:
        DataError: the file is missing, empty, not JSON or of another layout; a question lacks a field, has an empty
            text, or shares its id with another.
    """
    path = Path(path)
    with opened(path, ".json", ".jsonl", ".ndjson"):
        found = list(_official(path) if path.suffix.lower() == ".json" else _flat(path))
    if not found:
        raise DataError(f"{path}: has no questions")
    seen: set[str] = set()
    for where, one in found:
        if one.id in seen:
            raise DataError(f"{path}, {where}: a question before it has the id {one.id!r} too; ids must differ")
        seen.add(one.id)
    return Questions(path, [one for _, one in found])


def _official(path: Path) -> Iterator[tuple[str, Question]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        hint = "; one object a line is called .jsonl" if "Extra data" in str(error) else ""
        raise DataError(f"{path}{line}: is not JSON: {error}{hint}") from None
    for i, article in enumerate(_list(path, "the file", content, "data")):
        for j, paragraph in enumerate(_list(path, f"data[{i}]", article, "paragraphs")):
            there = f"data[{i}].paragraphs[{j}]"
            context = _text(path, there, paragraph, "context")
            for k, row in enumerate(_list(path, there, paragraph, "qas")):
                where = f"{there}.qas[{k}]"
                # SQuAD 2.0 says so; some of its questions carry answers that only seem to be some, under another name.
                impossible = isinstance(row, dict) and row.get("is_impossible") is True
                pairs = () if impossible else _list(path, where, row, "answers")
                answers = tuple(_answer(path, f"{where}.answers[{n}]", one) for n, one in enumerate(pairs))
                yield where, _question(path, where, row, context, answers)


def _flat(path: Path) -> Iterator[tuple[str, Question]]:
    for number, row in json_lines(path):
        where = f"line {number}"
        given = row.get("answers")
        if not isinstance(given, dict) or not all(isinstance(given.get(key), list) for key in ("text", "answer_start")):
            raise DataError(f'{path}, {where}: has no "answers": {{"text": […], "answer_start": […]}}')
        if len(given["text"]) != len(given["answer_start"]):
            raise DataError(f'{path}, {where}: "text" and "answer_start" of "answers" are not equally many')
        answers = tuple(
            _answer(path, where, {"text": text, "answer_start": start})
            for text, start in zip(given["text"], given["answer_start"], strict=True)
        )
        yield where, _question(path, where, row, _text(path, where, row, "context"), answers)


def _question(path: Path, where: str, row: Any, context: str, answers: tuple[tuple[int, str], ...]) -> Question:
    key = row.get("id")
    if not isinstance(key, str | int) or isinstance(key, bool) or key == "":
        raise DataError(f'{path}, {where}: has no "id"; predictions need one')
    return Question(str(key), _text(path, where, row, "question"), context, answers)


def _answer(path: Path, where: str, answer: Any) -> tuple[int, str]:
    text = _text(path, where, answer, "text")
    start = answer.get("answer_start")
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise DataError(f'{path}, {where}: "answer_start" is {start!r}, not the number of a character')
    return start, text


def _text(path: Path, where: str, row: Any, name: str) -> str:
    if not isinstance(row, dict):
        raise DataError(f"{path}, {where}: is a {type(row).__name__}, not an object")
    return check_text(row.get(name), f"{path}, {where}: {name!r}")


def _list(path: Path, where: str, row: Any, name: str) -> list[Any]:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, list):
        raise DataError(
            f"{path}, {where}: has no list {name!r}; needed is SQuAD's layout, "
            '{"data": [{"paragraphs": [{"context": …, "qas": [{"id": …, "question": …, "answers": […]}]}]}]}'
        )
    return value
