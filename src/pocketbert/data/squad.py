"""Questions about passages in the layout of SQuAD 1.1 and 2.0.

Rajpurkar et al. 2016 (https://arxiv.org/abs/1606.05250) and 2018 (https://arxiv.org/abs/1806.03822). A `.json` file is
the official one, articles of paragraphs of questions, or a list of paragraphs or of single questions, under "data" or
alone. A `.jsonl` file has one question per line, as `datasets` writes them: `{"id", "question", "context", "answers":
{"text": […], "answer_start": […]}}`. A question without answers is unanswerable.
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
    """A question, its passage and its answers."""

    id: str
    question: str
    context: str
    #: First character and text of each answer; none for unanswerable questions.
    answers: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Questions(Examples[Question]):
    """The questions of one file."""

    @property
    def unanswerable(self) -> int:
        """Number of unanswerable questions; with any, the task is that of SQuAD 2.0."""
        return sum(not question.answers for question in self.examples)

    def references(self) -> dict[str, list[str]]:
        """Return question id → the texts of its answers, for `metrics.squad`."""
        return {question.id: [text for _, text in question.answers] for question in self.examples}

    def check_offsets(self) -> None:
        """Raise `DataError` unless every answer is at its offset in the passage, as training needs."""
        for question in self.examples:
            for start, text in question.answers:
                actual = question.context[start : start + len(text)]
                if actual != text:
                    position = question.context.find(text)
                    where = f"it is at {position}" if position >= 0 else "it is not in the passage"
                    raise DataError(
                        f"{self.path}, question {question.id}: the answer {text!r:.60} is not at character {start} of "
                        f"its passage ({actual!r:.60} is); {where}. answer_start counts characters of the passage as "
                        "it is in the file: count again, or leave the question out"
                    )


def read_squad(path: str | Path) -> Questions:
    """Read questions, passages and answers.

    Raises:
        DataError: the file is missing, empty, not JSON or of another layout; a question lacks a field, has an empty
            text, or shares its id with another.
    """
    path = Path(path)
    with opened(path, ".json", ".jsonl", ".ndjson"):
        questions = list(_official(path) if path.suffix.lower() == ".json" else _flat(path))
    if not questions:
        raise DataError(f"{path}: has no questions")
    ids: set[str] = set()
    for where, question in questions:
        if question.id in ids:
            raise DataError(f"{path}, {where}: an earlier question has the id {question.id!r} too; ids must differ")
        ids.add(question.id)
    return Questions(path, [question for _, question in questions])


def _official(path: Path) -> Iterator[tuple[str, Question]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        hint = "; a file with one object per line is called .jsonl" if "Extra data" in str(error) else ""
        raise DataError(f"{path}{line}: is not JSON: {error}{hint}") from None
    yield from _nested(path, "" if isinstance(content, list) else "the file", content)


def _nested(path: Path, where: str, value: Any) -> Iterator[tuple[str, Question]]:
    """Yield the questions of articles, paragraphs or rows of one question, or of lists of any of them."""
    inside = "" if where == "the file" else f"{where}."
    if isinstance(value, list):
        for i, one in enumerate(value):
            yield from _nested(path, f"{where}[{i}]", one)
    elif not isinstance(value, dict):
        raise DataError(f"{path}, {where}: is a {type(value).__name__}, not an object")
    elif "qas" in value:
        context = _text(path, where, value, "context")
        for k, row in enumerate(_list(path, where, value, "qas")):
            yield f"{inside}qas[{k}]", _row(path, f"{inside}qas[{k}]", row, context)
    elif "question" in value:
        yield where, _row(path, where, value, _text(path, where, value, "context"))
    else:
        name = "data" if where == "the file" and "paragraphs" not in value else "paragraphs"
        yield from _nested(path, f"{inside}{name}", _list(path, where, value, name))


def _flat(path: Path) -> Iterator[tuple[str, Question]]:
    for number, row in json_lines(path):
        where = f"line {number}"
        yield where, _row(path, where, row, _text(path, where, row, "context"))


def _row(path: Path, where: str, row: Any, context: str) -> Question:
    """Return a question, whose answers are a list of objects, or an object of lists."""
    # SQuAD 2.0 marks unanswerable questions; some have plausible answers under another name.
    if isinstance(row, dict) and row.get("is_impossible") is True:
        return _question(path, where, row, context, ())
    answers = row.get("answers") if isinstance(row, dict) else None
    if isinstance(answers, dict):
        if not all(isinstance(answers.get(key), list) for key in ("text", "answer_start")):
            raise DataError(f'{path}, {where}: has no "answers": {{"text": […], "answer_start": […]}}')
        if len(answers["text"]) != len(answers["answer_start"]):
            raise DataError(f'{path}, {where}: "text" and "answer_start" of "answers" have different lengths')
        pairs = zip(answers["text"], answers["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
    else:
        answers = _list(path, where, row, "answers")
    found = tuple(_answer(path, f"{where}.answers[{n}]", answer) for n, answer in enumerate(answers))
    return _question(path, where, row, context, found)


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
