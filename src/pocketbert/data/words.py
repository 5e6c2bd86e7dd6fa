"""The words of a text, also where a script puts no spaces between them: there, a character counts as a word."""

import re
from collections.abc import Iterator

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
