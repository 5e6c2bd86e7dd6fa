"""Explanations on a terminal: words in colours, and the strongest of them in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pocketbert.cli import console
from pocketbert.cli.cells import Text

_WEAKEST = 0.1  # of the strongest contribution: words below stay without colour
_STRONG = 0.5  # … from which on they are bold
_FOR, _AGAINST = "green", "red"


def coloured(
    text: str, words: Sequence[Mapping[str, Any]], *, other: bool = False, start: int = 0, end: int | None = None
) -> Text:
    """A text whose words for the label are green and those against it red, the strong ones bold.

    Args:
        text: the text, or the other one of two: the second of a pair, a question.
        words: as the pipeline explains them.
        other: whether it is the other text.
        start: the first character that is shown.
        end: the last one, exclusive; by default all to the end.
    """
    most = max((abs(word["score"]) for word in words), default=0.0)
    marked, place, end = Text(), start, len(text) if end is None else end
    for word in words:
        share = abs(word["score"]) / most if most else 0.0
        first, last = max(word["start"], place), min(word["end"], end)
        if bool(word.get("text_pair") or word.get("question")) is not other or share < _WEAKEST or first >= last:
            continue
        colour = _FOR if word["score"] > 0 else _AGAINST
        marked.append(console.plain(text[place:first]))
        marked.append(console.plain(text[first:last]), f"bold {colour}" if share >= _STRONG else colour)
        place = last
    return marked.append(console.plain(text[place:end]))


def strongest(words: Sequence[Mapping[str, Any]], count: int = 3) -> str:
    """The words that contribute most, with signs, for terminals without colours."""
    ranked = sorted(words, key=lambda word: -abs(word["score"]))[:count]
    return ", ".join(f"{console.directed(word['word'])} {word['score']:+.2f}" for word in ranked)
