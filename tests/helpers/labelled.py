"""Made-up labelled data that a small model learns within a second: reviews, stories, and files of every task."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from helpers.tokenizers import SPECIAL

#: The metrics of a classifier, in their order.
CLASS_METRICS = ["accuracy", "macro_f1", "loss", "brier_loss", "calibration_error"]
GOOD, BAD = ("fine", "great", "lovely", "moving"), ("dull", "awful", "boring", "weak")
NAMES, PLACES, VERBS = ("ann", "bob", "eve", "max"), ("rome", "oslo", "bonn", "lima"), ("lives", "works", "sings")
PIECES = [*SPECIAL, *NAMES, *PLACES, *VERBS, "?", ".", "in", "the", "who", "where", "one", "two"]


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of words that decide the label, and words that do not."""
    chance = random.Random(seed)
    rows = []
    for i in range(count):
        words = [chance.choice(GOOD if i % 2 else BAD)]
        words += [chance.choice(("the", "a", "film", "story", "very", "this")) for _ in range(chance.randint(2, 10))]
        chance.shuffle(words)
        rows.append((" ".join(words), ("bad", "good")[i % 2]))
    return rows


def write_csv(path: Path, rows: Iterable[Sequence[str]], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def stories(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    chance = random.Random(seed)
    return [(chance.choice(NAMES), chance.choice(VERBS), chance.choice(PLACES)) for _ in range(count)]


def squad_file(path: Path, count: int, *, impossible: bool = False, seed: int = 0) -> Path:
    paragraphs = []
    for i, (name, verb, place) in enumerate(stories(count, seed)):
        context = f"the {name} {verb} in {place} ."
        asked = [("who ?", name), ("where ?", place)]
        qas: list[dict[str, Any]] = [
            {"id": f"{i}-{j}", "question": q, "answers": [{"text": a, "answer_start": context.index(a)}]}
            for j, (q, a) in enumerate(asked)
        ]
        if impossible:
            qas.append({"id": f"{i}-x", "question": "one two ?", "answers": [], "is_impossible": True})
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


def conll_file(path: Path, count: int, scheme: str = "iob1", seed: int = 0) -> Path:
    person, place = {"iob1": ("I-PER", "I-LOC"), "iob2": ("B-PER", "B-LOC"), "bioes": ("S-PER", "S-LOC")}[scheme]
    sentences = [
        f"the DT O\n{name} NN {person}\n{verb} VB O\nin IN O\n{town} NN {place}\n"
        for name, verb, town in stories(count, seed)
    ]
    path.write_text("-DOCSTART- -X- O\n\n" + "\n".join(sentences))
    return path


def choices_file(path: Path, count: int, seed: int = 0) -> Path:
    chance, rows = random.Random(seed), []
    for name, verb, place in stories(count, seed):
        options = [f"in {place}", f"in {name}", f"{verb} {verb}"]
        chance.shuffle(options)
        rows.append({"prompt": f"{name} {verb}", "choices": options, "label": options.index(f"in {place}")})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path
