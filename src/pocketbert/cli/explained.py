"""Explanations on a terminal: words in colours, and the strongest of them in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pocketbert.cli import console

if TYPE_CHECKING:
    from rich.text import Text

_WEAKEST = 0.1  # of the strongest contribution: words below stay without colour
_STRONG = 0.5  # … from which on they are bold
_FOR, _AGAINST = "green", "red"


def coloured(text: str, words: Sequence[Mapping[str, Any]], *, second: bool = False) -> Text:
    """A text whose words for the label are green and those against it red, the strong ones bold.

    Args:
        text: the text, or the second one of a pair.
        words: as the pipeline explains them.
        second: whether it is the second text.
    """
    from rich.text import Text

    most = max((abs(word["score"]) for word in words), default=0.0)
    marked, end = Text(), 0
    for word in words:
        share = abs(word["score"]) / most if most else 0.0
        if word.get("text_pair", False) is not second or share < _WEAKEST:
            continue
        colour = _FOR if word["score"] > 0 else _AGAINST
        marked.append(console.plain(text[end : word["start"]]))
        style = f"bold {colour}" if share >= _STRONG else colour
        marked.append(console.plain(text[word["start"] : word["end"]]), style)
        end = word["end"]
    return marked.append(console.plain(text[end:]))


def strongest(words: Sequence[Mapping[str, Any]], count: int = 3) -> str:
    """The words that contribute most, with signs, for terminals without colours."""
    ranked = sorted(words, key=lambda word: -abs(word["score"]))[:count]
    return ", ".join(f"{word['word']} {word['score']:+.2f}" for word in ranked)
