"""Evaluations of every task with predictions that no model made, for reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from helpers.labelled import PIECES
from helpers.tokenizers import tokenizer_of
from pocketbert.data.choices import Choice, Choices
from pocketbert.data.columns import Columns
from pocketbert.data.conll import Sentence, Sentences
from pocketbert.data.labels import Labels
from pocketbert.data.squad import Question, Questions
from pocketbert.data.tables import Example, Table
from pocketbert.tasks.choices import ChoiceEvaluation
from pocketbert.tasks.classification import TextEvaluation
from pocketbert.tasks.evaluation import Evaluation
from pocketbert.tasks.questions import AnswerEvaluation, AnswerPrediction
from pocketbert.tasks.tagging import TagEvaluation, TagPrediction

NAMES = ("bad", "fine", "<b>good</b>")


def classes(count: int = 80, seed: int = 0, *, sure: float = 2.0, pairs: bool = False) -> Evaluation[Any, Any]:
    """Texts with one of three labels; `sure` is how far the logit of the label is above the others."""
    rng = np.random.default_rng(seed)
    gold = [i % 3 for i in range(count)]
    logits = np.random.default_rng(seed + 1).normal(size=(count, 3)) + sure * np.eye(3)[gold]
    examples = [
        Example(f"text <i>{i}</i> & {rng.integers(9)}", "a <u>second</u>" if pairs else None, NAMES[label], i + 2)
        for i, label in enumerate(gold)
    ]
    return _texts(examples, Labels(NAMES), logits)


def several(count: int = 80, seed: int = 0) -> Evaluation[Any, Any]:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, (count, 3))
    logits = rng.normal(size=(count, 3)) + 2.0 * gold - 1.0
    examples = [
        Example(f"text {i}", None, tuple(name for name, has in zip(NAMES, row, strict=True) if has), i + 2)
        for i, row in enumerate(gold)
    ]
    return _texts(examples, Labels(NAMES, several=True), logits)


def numbers(count: int = 80, seed: int = 0) -> Evaluation[Any, Any]:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 11, count) / 2  # with ties
    examples = [Example(f"text {i}", None, f"{value}", i + 2) for i, value in enumerate(gold)]
    return _texts(examples, Labels(()), np.round(gold + rng.normal(size=count), 1)[:, None])


def _texts(examples: list[Example], labels: Labels, logits: np.ndarray) -> TextEvaluation:
    table = Table(Path("held.csv"), examples, columns=Columns("text", None, "label"))
    evaluation = TextEvaluation({"dev": table}, labels, tokenizer_of(PIECES), 32)
    return _predicted(evaluation, [*logits.astype(np.float32)])


def tags(count: int = 40, seed: int = 0) -> Evaluation[Any, Any]:
    rng = np.random.default_rng(seed)
    known = ("O", "B-PER", "I-PER", "B-LOC")
    sentences, predictions = [], []
    for i in range(count):
        gold = tuple(str(tag) for tag in rng.choice(["O", "B-PER", "B-LOC"], 5))
        guess = [tag if rng.random() < 0.8 else str(rng.choice(["O", "B-PER", "B-LOC"])) for tag in gold]
        sentences.append(Sentence(("ann", "lives", "in", "rome", "."), gold, 6 * i + 1))
        predictions.append(TagPrediction(guess, 0, [float(x) for x in rng.random(5)]))
    rows = Sentences(Path("held.txt"), sentences)
    return _predicted(TagEvaluation({"dev": rows}, known, tokenizer_of(PIECES), 32), predictions)


def answers(count: int = 40, seed: int = 0) -> Evaluation[Any, Any]:
    rng = np.random.default_rng(seed)
    context = "the ann lives in rome ."
    questions, predictions = [], []
    for i in range(count):
        found = ((4, "ann"),) if i % 2 else ((8, "lives in rome"), (17, "rome")) if i % 4 else ()
        questions.append(Question(f"q{i}", "who ?", context, found))
        start, end = ((4, 7), (8, 13), (17, 21))[int(rng.integers(3))]
        predictions.append(AnswerPrediction(np.array([[start, end, 2.0, 2.0]]), float(rng.normal(4))))
    rows = Questions(Path("held.json"), questions)
    return _predicted(AnswerEvaluation({"dev": rows}, tokenizer_of(PIECES), 32), predictions)


def choices(count: int = 60, seed: int = 0) -> Evaluation[Any, Any]:
    rng = np.random.default_rng(seed)
    rows = Choices(
        Path("held.jsonl"), [Choice(f"prompt {i}", ("in rome", "in ann"), i % 2, i + 1) for i in range(count)]
    )
    predictions = [*(rng.normal(size=(count, 2)) + np.eye(2)[[i % 2 for i in range(count)]]).astype(np.float32)]
    return _predicted(ChoiceEvaluation({"dev": rows}, tokenizer_of(PIECES), 32), predictions)


def _predicted(evaluation: Any, predictions: list[Any]) -> Any:
    evaluation.predicted = {"dev": predictions}
    return evaluation


#: Kind of outcomes → an evaluation of it.
EVALUATIONS: dict[str, Callable[..., Evaluation[Any, Any]]] = {
    "classes": classes, "several": several, "numbers": numbers, "tags": tags, "answers": answers, "choices": choices,
}  # fmt: skip
