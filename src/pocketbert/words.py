"""The words of a text in any script. Where a script puts no spaces between words, a character counts as a word."""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Han with its marks and extensions, kana, Thai, Lao, Myanmar, Khmer, in which no space ends a word.
_UNSPACED = (
    "\u3005-\u3007\u3021-\u3029\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d"
    "\U00020000-\U000323af\u0e01-\u0e30\u0e32-\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2-\u0eb3\u0ec0-\u0ec6\u1000-\u102a"
    "\u1780-\u17b3"
)
_MARKS = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u17b4-\u17d3"
# Such a character with the marks that follow it, or a run of all else.
_UNITS = re.compile(f"[{_UNSPACED}][{_MARKS}]*|[^{_UNSPACED}]+")
_CHARACTER = re.compile(f"[{_UNSPACED}]")
# Vowel signs and other marks of Arabic and Hebrew, which most writers leave out, and the stroke that lengthens a word.
_POINTS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7"
    "\u06e8\u06ea-\u06ed\u08d3-\u08e1\u08e3-\u08ff]"
)
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")


def words_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield the words of a text, each with the space before it: none at the beginning, and between characters."""
    space = ""
    for part in text.split():
        for unit in [part] if part.isascii() else _UNITS.findall(part):
            yield space, unit
            space = ""
        space = " "


def count_words(line: str) -> int:
    """Return the number of words of a line with single spaces; of a part without spaces, at least one."""
    if line.isascii():
        return line.count(" ") + 1
    return sum(max(1, len(_CHARACTER.findall(part))) for part in line.split(" "))


def word_places(text: str) -> list[tuple[int, int]]:
    """Return start and end (exclusive) of the words of a text, as `words_of` divides it."""
    places = []
    for part in re.finditer(r"\S+", text):
        if part[0].isascii():
            places.append(part.span())
        else:
            places += [unit.span() for unit in _UNITS.finditer(text, part.start(), part.end())]
    return places


def bare_words(text: str) -> list[str]:
    """Return words by which texts are compared: Unicode's compatible form, case folded, without punctuation.

    Arabic and Hebrew have neither vowel signs nor lengthened words; marks of other scripts stay.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    if text.isascii():
        return re.findall(r"\w+", text)
    runs = _runs_of_letters().findall(_POINTS.sub("", text))
    return [word for run in runs for _, word in words_of(run)]


def is_unspaced(text: str) -> bool:
    """Whether a text has characters of a script without spaces between words."""
    return not text.isascii() and _CHARACTER.search(text) is not None


def is_right_to_left(text: str) -> bool:
    """Whether a text has letters that are written from right to left."""
    return not text.isascii() and _RIGHT_TO_LEFT.search(text) is not None


def with_marks(text: str, offsets: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the places of tokens in a text, [tokens, 2], each with the combining marks that follow it.

    A tokenizer that drops marks leaves them out of its offsets where they are the last of a word. A token ends no later
    than the next one begins.
    """
    if not len(offsets) or not text or max(text) < "\u0300":
        return offsets
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    marks = _marks()[np.minimum(codes, len(_marks()) - 1)]
    if not marks.any():
        return offsets
    places = np.append(np.where(marks, len(text), np.arange(len(text))), len(text))
    after = np.minimum.accumulate(places[::-1])[::-1]  # [characters + 1] the first from each on that is no mark
    starts, ends = offsets[:, 0], offsets[:, 1]
    following = np.append(starts[1:], len(text))
    limit = np.where(following >= ends, following, len(text))  # special tokens are at 0
    longer = np.minimum(after[np.minimum(ends, len(text))], limit)
    return np.stack([starts, np.where(ends > starts, longer, ends)], axis=1).astype(np.int32)


@cache
def _marks() -> NDArray[np.bool_]:
    """Whether each character is a combining mark; the last entry is for all characters beyond."""
    table = np.zeros(0x1F001, dtype=bool)
    for block in (range(0x300, 0x3400), range(0xA000, 0xAC00), range(0xF900, 0x1F000)):  # the others have none
        categories = "".join(map(unicodedata.category, map(chr, block)))  # two letters each
        table[block.start : block.stop] = np.frombuffer(categories.encode()[::2], np.uint8) == ord("M")
    return table


@cache
def _runs_of_letters() -> re.Pattern[str]:
    """Letters and digits with their marks."""
    edges = np.flatnonzero(np.diff(_marks(), prepend=False)).tolist()
    ranges = (f"{chr(first)}-{chr(last - 1)}" for first, last in zip(edges[::2], edges[1::2], strict=True))
    return re.compile(rf"[\w{''.join(ranges)}]+")
