"""Texts without characters on which no token depends: words of a megabyte, runs of spaces and of invisible characters.

WordPiece makes one unknown token of a word of more than 100 characters, but `tokenizers` takes about a microsecond for
each character first. A long text is shortened before, at a hundredth of that: in the middle of runs of spaces, of
characters that normalisation drops, and of words that are too long anyway. Every token stays, and each knows where it
was in the whole text.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pocketbert.tokenization.vocabulary import Vocabulary

WORTHWHILE = 4096  # characters of a text; shorter ones are tokenised as they are
RUN = 256  # characters: shorter runs stay
_OTHER, _SPACE, _SOLID, _MARK, _DROPPED = range(5)
_PLANES = 0x20000  # the characters that have a kind
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))


class Shortened(NamedTuple):
    """A text, and for each of its characters the index in the whole text; None if nothing was left out."""

    text: str
    kept: NDArray[np.int64] | None = None

    def restored(self, offsets: NDArray[np.int32]) -> NDArray[np.int32]:
        """Offsets [tokens, 2] in the whole text."""
        if self.kept is None or not len(offsets):
            return offsets
        starts, ends = offsets[:, 0], offsets[:, 1]
        last = len(self.kept) - 1
        found = np.stack([self.kept[np.minimum(starts, last)], self.kept[np.maximum(ends, 1) - 1] + 1], axis=1)
        return np.where((ends > starts)[:, None], found, offsets).astype(np.int32)

    def place(self, index: int) -> int:
        """The character for one of the whole text: itself, or the next that was kept, in the same word."""
        return index if self.kept is None else int(np.searchsorted(self.kept, index))


def shorten(tokenizer: Vocabulary, text: str) -> Shortened:
    """A text to the same tokens; the text itself if it is short, or if the tokenizer reads every character."""
    if len(text) < WORTHWHILE or (longest := tokenizer.longest_word) is None:
        return Shortened(text)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    kinds = _kinds(bool(tokenizer.clean_text), _strips(tokenizer))[np.minimum(codes, _PLANES)]
    keep = np.ones(len(text), dtype=bool)
    for kind in (_SPACE, _DROPPED):
        for start, end in _runs(kinds == kind):
            keep[start + 1 : end - 1] = False
    solid = kinds == _SOLID
    for start, end in _runs(solid | (kinds == _DROPPED)):
        places = start + np.flatnonzero(solid[start:end])
        if len(places) > longest + 2:
            keep[places[longest] + 1 : places[-1]] = False
    if keep.all():
        return Shortened(text)
    kept = np.flatnonzero(keep)
    return Shortened(codes[kept].tobytes().decode("utf-32-le"), kept)


def _runs(inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end of runs of at least `RUN`."""
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= RUN
    return list(zip(starts[long].tolist(), ends[long].tolist(), strict=True))


def is_split(character: str) -> bool:
    """Whether BERT's words end at an ASCII character."""
    return character.isascii() and character.isprintable() and not character.isalnum()


def _strips(tokenizer: Vocabulary) -> bool:
    return bool(tokenizer.do_lower_case if tokenizer.strip_accents is None else tokenizer.strip_accents)


@cache
def _kinds(cleans: bool, strips: bool) -> NDArray[np.uint8]:
    """The kind of each character, with these steps of normalisation."""
    kinds = _all_kinds().copy()
    if not cleans:
        kinds[kinds == _DROPPED] = _OTHER
    kinds[kinds == _MARK] = _DROPPED if strips else _SOLID
    return kinds


@cache
def _all_kinds() -> NDArray[np.uint8]:
    """By category: letters, digits and symbols are solid, each at least one character of a word after normalisation.

    Of marks and invisible characters `tokenizers` knows those that are old.
    """
    kinds = np.full(_PLANES + 1, _OTHER, np.uint8)
    old = unicodedata.ucd_3_2_0.category
    for code in range(_PLANES):
        character = chr(code)
        category = unicodedata.category(character)
        if (
            category[0] in "LN"
            or category == "Cn"
            or (category[0] == "S" and not _is_composed(character))
            or (category in ("Mc", "Me") and old(character) == category)
        ):
            kinds[code] = _SOLID
        elif category[0] == "Z" or character in "\t\n\r":
            kinds[code] = _SPACE
        elif category == "Mn" and old(character) == "Mn":
            kinds[code] = _MARK
        elif category in ("Cc", "Cf", "Co") and old(character) == category:
            kinds[code] = _DROPPED
    kinds[[code for code in range(128) if is_split(chr(code)) and code != ord(" ")]] = _OTHER  # punctuation to BERT
    kinds[[0x166D, 0xFFFD]] = _OTHER  # punctuation once; dropped
    kinds[0x200B] = _DROPPED  # a space once
    for first, last in _IDEOGRAPHS:
        kinds[first : last + 1] = _OTHER
    return kinds


def _is_composed(symbol: str) -> bool:
    decomposition = unicodedata.decomposition(symbol)
    return bool(decomposition) and not decomposition.startswith("<")
