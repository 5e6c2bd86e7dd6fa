"""What is done to the text of one document before it becomes tokens: pure functions.

Cleaning is three rules: whitespace within a line becomes single spaces; a line without a letter is left out (numbers of
pages, rules, debris of tables); a document of fewer than ten words is left out.
"""

import hashlib
import re
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from datasketch import MinHash

PERMUTATIONS = 128  # of a signature: a similarity is estimated to within about 0.04
_SHORTEST = 10  # words of a document
_SHINGLE = 5  # words in a row that are compared
_AT_ONCE = 1 << 13  # shingles, so that a book needs no more memory than an article


def clean(text: str) -> list[str]:
    """The paragraphs of a document; none if there is too little of it."""
    paragraphs = (" ".join(line.split()) for line in text.split("\n"))
    kept = [line for line in paragraphs if any(map(str.isalpha, line))]
    return kept if sum(line.count(" ") + 1 for line in kept) >= _SHORTEST else []


def sentences(paragraphs: list[str], language: str) -> list[str]:
    """The sentences of all paragraphs, by `sentencex`, which knows the abbreviations of a language (ISO 639, "en")."""
    from sentencex import segment

    found = (sentence.strip() for paragraph in paragraphs for sentence in segment(language, paragraph))
    return [sentence for sentence in found if sentence]


def signature(paragraphs: list[str]) -> npt.NDArray[np.uint32]:
    """[PERMUTATIONS] the MinHash of five words in a row, without regard to case and punctuation, by `datasketch`."""
    words = [word for line in paragraphs for word in re.findall(r"\w+", line.lower())]
    hashes = _no_hashes().copy()
    last = max(1, len(words) - _SHINGLE + 1)
    for start in range(0, last, _AT_ONCE):
        stop = min(start + _AT_ONCE, last)
        hashes.update_batch([" ".join(words[i : i + _SHINGLE]).encode() for i in range(start, stop)])
    return np.asarray(hashes.hashvalues, dtype=np.uint32)


@lru_cache(maxsize=1)
def _no_hashes() -> "MinHash":
    from datasketch import MinHash

    return MinHash(PERMUTATIONS, seed=1, hashfunc=zlib.crc32, scheme="affine32")


def is_held_out(paragraphs: list[str], fraction: float, seed: int) -> bool:
    """Whether a document is kept back: its own text decides, so that copies of it stay together."""
    digest = hashlib.blake2b("\n".join(paragraphs).encode(), digest_size=8, salt=seed.to_bytes(16, "little"))
    return int.from_bytes(digest.digest(), "little") < int(fraction * 2**64)
