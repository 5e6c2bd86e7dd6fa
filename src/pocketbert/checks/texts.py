"""Checks of texts alone: the same text twice, other scripts and languages."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pocketbert.words import bare_words

_NEAR = 0.7  # of the pairs of words that two texts have, how many both must have
_CLOSE = 0.85  # cosine of the vectors of texts that are compared
_BLOCK = 1024  # rows of the matrix of cosines that are in memory at a time

#: The commonest words of some languages; words of several of them are left out.
_COMMON = {
    "English": "the and is of that it was with this are not be have you they which from were",
    "German": "und der die das ist nicht ein eine ich mit den auf für sich auch wird dem",  # codespell:ignore
    "French": "le les et est des une pas pour dans qui sur avec vous nous je du cette",
    "Spanish": "el los las y una por con para está pero muy su como más lo del",  # codespell:ignore
    "Italian": "il che di è non sono gli della anche per una questo più ho nel",  # codespell:ignore
    "Portuguese": "o os não uma é com para mais foi muito são isso você ao da",  # codespell:ignore
    "Dutch": "het een van niet dat ik zijn op te voor met maar ook wel heeft",  # codespell:ignore
    "Polish": "i w nie się na że jest to do jak co ale tak po",
    "Turkish": "ve bir bu için çok ile değil ben ama da daha gibi",  # codespell:ignore
    "Arabic": "في من على أن إلى هذا هذه التي الذي لا عن مع كان ذلك لم قد ما كل بعد",
    "Persian": "در به از که این را است با برای آن می ها شد کرد تا بود یک",
    "Urdu": "کے میں کی ہے اور سے کا کو نے پر یہ ہیں تھا نہیں",
    "Chinese": "的 了 是 不 我 在 有 这 那 他 她 们 就 也 很 和 都 吗 呢 這 來 個 們",
    "Japanese": "の に は を た が で て と し れ さ も な す る い",
}
_WORDS: dict[str, set[str]] = {language: set(bare_words(words)) for language, words in _COMMON.items()}
_SHARED = {word for word, count in Counter(w for words in _WORDS.values() for w in words).items() if count > 1}


def normal(text: str) -> str:
    """Return a text by which equal ones are found: its bare words with single spaces between them."""
    return " ".join(bare_words(text)) or " ".join(text.split())


def near_duplicates(
    texts: Sequence[str], vectors: npt.NDArray[np.float32], others: Sequence[str], other: npt.NDArray[np.float32]
) -> list[tuple[int, int, float]]:
    """Return (index, index of another text, likeness) of the texts that have a nearly equal one among others.

    Where both are the same list, an earlier one. Only texts whose vectors are close are compared; the likeness is the
    Jaccard coefficient of their pairs of words.

    Args:
        texts: normal texts.
        vectors: [texts, H], of length 1.
        others: normal texts.
        other: [others, H], of length 1.
    """
    same = texts is others
    first, second = [_pairs(text) for text in texts], [_pairs(text) for text in others]
    sizes, other_sizes = (np.array([len(pairs) for pairs in side]) for side in (first, second))
    found: dict[int, tuple[int, float]] = {}
    for start in range(0, len(texts), _BLOCK):
        close = vectors[start : start + _BLOCK] @ other.T >= _CLOSE
        size = sizes[start : start + _BLOCK, None]
        close &= (size >= _NEAR * other_sizes) & (other_sizes >= _NEAR * size)  # or too few words are common
        if same:
            close &= np.arange(len(others)) < np.arange(start, start + len(close))[:, None]
        for row, column in zip(*np.nonzero(close), strict=True):
            i, j = start + int(row), int(column)
            if texts[i] == others[j]:
                continue
            likeness = len(first[i] & second[j]) / max(1, len(first[i] | second[j]))
            if likeness >= _NEAR and likeness > found.get(i, (0, 0.0))[1]:
                found[i] = j, likeness
    return [(i, j, likeness) for i, (j, likeness) in sorted(found.items())]


def _pairs(text: str) -> set[str]:
    words = f" {text} ".split(" ")
    return {f"{a} {b}" for a, b in pairwise(words)}


def script_of(text: str) -> str | None:
    """Return the script of most words of a text, such as LATIN; None without letters. Kana count as CJK."""
    letters = (letter for word in bare_words(text) if (letter := word[0]).isalpha())
    counts = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in letters)
    for kana in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"):  # Japanese is written in all of them
        if kana in counts:
            counts["CJK"] += counts.pop(kana)
    return counts.most_common(1)[0][0] if counts else None


def language_of(text: str) -> str | None:
    """Return the language of a text by its commonest words; None where these do not tell."""
    words = [word for word in bare_words(text) if word not in _SHARED]
    counts = Counter(language for word in set(words) for language, common in _WORDS.items() if word in common)
    ranked = [*counts.most_common(2), ("", 0), ("", 0)]
    (language, most), (_, second) = ranked[:2]
    return language if most >= 3 and most >= 3 * second else None
