"""Questions about passages in the layout of SQuAD 1.1 and 2.0.

Rajpurkar et al. 2016 (https://arxiv.org/abs/1606.05250) and 2018 (https://arxiv.org/abs/1806.03822). A `.json` file is
the official one, articles of paragraphs of questions, or a list of paragraphs or of single questions, under "data" or
alone. A `.jsonl` file has one question per line, as `datasets` writes them: `{"id", "question", "context", "answers":
{"text": […], "answer_start": […]}}`; a `.parquet` file has such rows. A question without answers is unanswerable.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from pocketbert.data.bad_rows import BadRows
from pocketbert.data.examples import Examples
from pocketbert.data.files import check_text, json_lines, opened, parquet_rows
from pocketbert.data.memory import Memory
from pocketbert.errors import DataError

_LINE = '{"id": …, "question": …, "context": …, "answers": {"text": […], "answer_start": […]}}'
_OFFICIAL = (
    'SQuAD\'s layout, {"data": [{"paragraphs": [{"context": …, "qas": [{"id": …, "question": …, "answers": […]}]}]}]}'
)


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

    def check_offsets(self, *, skip_bad: bool = False) -> Self:
        """Return the questions whose answers are at their offsets in the passage, as training needs.

        Raises:
            DataError: an answer is not; with `skip_bad` such questions join the bad rows.
        """
        bad = BadRows(self.path, skip=skip_bad)
        wrong: set[int] = set()
        for number, question in enumerate(self.examples):
            for start, text in question.answers:
                actual = question.context[start : start + len(text)]
                if actual != text and number not in wrong:
                    position = question.context.find(text)
                    where = f"it is at {position}" if position >= 0 else "it is not in the passage"
                    problem = (
                        f"question {question.id}: the answer {text!r:.60} is not at character {start} of its passage "
                        f"({actual!r:.60} is); {where}. answer_start counts characters of the passage as it is in the "
                        "file: count again, or leave the question out"
                    )
                    if not skip_bad:
                        raise DataError(f"{self.path}, {problem}")
                    bad(0, problem, question._asdict())
                    wrong.add(number)
        bad.check(len(self) - len(wrong))
        left = self.part(i for i in range(len(self)) if i not in wrong)
        return replace(left, bad=(*self.bad, *bad.found), skipped=self.skipped + len(bad.found))


class _Row(NamedTuple):
    """A question as the file has it: where it stands, its line (0 in the official layout), and its passage."""

    where: str
    line: int
    content: Any
    context: Any


def read_squad(source: str | Path | Memory, *, skip_bad: bool = False) -> Questions:
    """Read questions, passages and answers.

    Args:
        source: the file, or rows in memory as `datasets` has them.
        skip_bad: skip and list questions that cannot be used.

    Raises:
        DataError: the file is missing, empty, not JSON or of another layout; a question lacks a field, has an empty
            text, or shares its id with another.
    """
    if isinstance(source, Memory):
        bad = BadRows(source.path, skip=skip_bad)
        return _checked(list(_questions(source.path, _flat(source.objects()), bad)), bad, source.sha256())
    path = Path(source)
    bad = BadRows(path, skip=skip_bad)
    with opened(path, ".json", ".jsonl", ".ndjson", ".parquet"):
        if path.suffix.lower() == ".parquet":
            rows = _flat(parquet_rows(path)[0])
        else:
            rows = _official(path, bad) if path.suffix.lower() == ".json" else _flat(json_lines(path, bad))
        questions = list(_questions(path, rows, bad))
    return _checked(questions, bad)


def _checked(questions: list[Question], bad: BadRows, digest: str | None = None) -> Questions:
    bad.check(len(questions))
    if not questions:
        raise DataError(f"{bad.path}: has no questions")
    return Questions(bad.path, questions, skipped=len(bad.found), bad=tuple(bad.found), digest=digest)


def _questions(path: Path, rows: Iterable[_Row], bad: BadRows) -> Iterator[Question]:
    """Yield the questions; one that has no id gets its number, counted from 1."""
    ids: set[str] = set()
    for number, row in enumerate(rows, start=1):
        try:
            question = _question(path, row, number)
            if question.id in ids:
                raise DataError(
                    f"{path}, {row.where}: an earlier question has the id {question.id!r} too; ids must differ"
                )
        except DataError as error:
            if not bad.skip:
                raise
            bad(row.line, str(error).removeprefix(f"{path}, "), row.content)
            continue
        ids.add(question.id)
        yield question


def _official(path: Path, bad: BadRows) -> Iterator[_Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        if "Extra data" in str(error):  # one object per line, then
            yield from _flat(json_lines(path, bad))
            return
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}{line}: is not JSON: {error}") from None
    yield from _nested(path, "" if isinstance(content, list) else "the file", content)


def _nested(path: Path, where: str, value: Any) -> Iterator[_Row]:
    """Yield the questions of articles, paragraphs or rows of one question, or of lists of any of them."""
    inside = "" if where == "the file" else f"{where}."
    if isinstance(value, list):
        for i, one in enumerate(value):
            yield from _nested(path, f"{where}[{i}]", one)
    elif not isinstance(value, dict):
        yield _Row(where, 0, value, None)  # which is no question
    elif "qas" in value:
        for k, row in enumerate(_list(path, where, value, "qas")):
            yield _Row(f"{inside}qas[{k}]", 0, row, value.get("context"))
    elif "question" in value:
        yield _Row(where, 0, value, value.get("context"))
    else:
        name = "data" if where == "the file" and "paragraphs" not in value else "paragraphs"
        yield from _nested(path, f"{inside}{name}", _list(path, where, value, name))


def _flat(rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[_Row]:
    for line, row in rows:
        yield _Row(f"line {line}", line, row, row.get("context"))


def _question(path: Path, row: _Row, number: int) -> Question:
    """Return a question, whose answers are a list of objects, an object of lists, or an object with one answer."""
    where, content = f"{path}, {row.where}", row.content
    if not isinstance(content, dict):
        raise DataError(f"{where}: is a {type(content).__name__}, not an object")
    context = check_text(row.context, f"{where}: 'context'")
    key = number if content.get("id") is None else content["id"]
    if not isinstance(key, str | int) or isinstance(key, bool) or key == "":
        raise DataError(f'{where}: "id" is {key!r:.40}, not a text or a number')
    # SQuAD 2.0 marks unanswerable questions; some have plausible answers under another name.
    answers = [] if content.get("is_impossible") is True else _answers(where, content.get("answers"), flat=row.line > 0)
    found = tuple(_answer(f"{where}.answers[{n}]", answer) for n, answer in enumerate(answers))
    return Question(str(key), check_text(content.get("question"), f"{where}: 'question'"), context, found)


def _answers(where: str, answers: Any, *, flat: bool) -> list[Any]:
    if isinstance(answers, dict) and isinstance(answers.get("text"), str):
        return [answers]
    if isinstance(answers, dict):
        if not all(isinstance(answers.get(key), list) for key in ("text", "answer_start")):
            raise DataError(f'{where}: has no "answers": {{"text": […], "answer_start": […]}}')
        if len(answers["text"]) != len(answers["answer_start"]):
            raise DataError(f'{where}: "text" and "answer_start" of "answers" have different lengths')
        pairs = zip(answers["text"], answers["answer_start"], strict=True)
        return [{"text": text, "answer_start": start} for text, start in pairs]
    if not isinstance(answers, list):
        raise DataError(f"{where}: has no list 'answers'; expected {_LINE if flat else _OFFICIAL}")
    return answers


def _answer(where: str, answer: Any) -> tuple[int, str]:
    if not isinstance(answer, dict):
        raise DataError(f"{where}: is a {type(answer).__name__}, not an object")
    text = check_text(answer.get("text"), f"{where}: 'text'")
    start = answer.get("answer_start")
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise DataError(f'{where}: "answer_start" is {start!r}, not the number of a character')
    return start, text


def _list(path: Path, where: str, row: dict[str, Any], name: str) -> list[Any]:
    value = row.get(name)
    if not isinstance(value, list):
        raise DataError(f"{path}, {where}: has no list {name!r}; expected {_OFFICIAL}")
    return value
