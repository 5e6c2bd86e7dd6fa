"""Cleaning, sentences and signature of one document: pure functions.

Cleaning has three rules: whitespace within a line becomes single spaces; lines without a letter are left out (page
numbers, rules, remains of tables); documents of fewer than ten words are left out, or of ten characters where a script
puts no spaces between words.
"""

import hashlib
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pocketbert.words import bare_words, count_words

if TYPE_CHECKING:
    from datasketch import MinHash

PERMUTATIONS = 128  # of a signature, which estimates similarities to within about 0.04
_SHORTEST = 10  # minimum words of a document
_SHINGLE = 5  # consecutive words that are compared
_AT_ONCE = 1 << 13  # shingles per batch, so that a book needs no more memory than an article


def clean(text: str) -> list[str]:
    """Return the paragraphs of a document; none if it is too short."""
    paragraphs = (" ".join(line.split()) for line in text.split("\n"))
    kept = [line for line in paragraphs if any(map(str.isalpha, line))]
    return kept if sum(map(count_words, kept)) >= _SHORTEST else []


def sentences(paragraphs: list[str], language: str) -> list[str]:
    """Return the sentences of all paragraphs, by `sentencex` for a language (ISO 639, such as "en")."""
    from sentencex import segment

    stripped = (sentence.strip() for paragraph in paragraphs for sentence in segment(language, paragraph))
    return [sentence for sentence in stripped if sentence]


def signature(paragraphs: list[str]) -> npt.NDArray[np.uint32]:
    """Return [PERMUTATIONS] the MinHash of five-word shingles, ignoring case and punctuation, by `datasketch`."""
    words = [word for line in paragraphs for word in bare_words(line)]
    hashes = _empty_hash().copy()
    last = max(1, len(words) - _SHINGLE + 1)
    for start in range(0, last, _AT_ONCE):
        stop = min(start + _AT_ONCE, last)
        hashes.update_batch([" ".join(words[i : i + _SHINGLE]).encode() for i in range(start, stop)])
    return np.asarray(hashes.hashvalues, dtype=np.uint32)


@lru_cache(maxsize=1)
def _empty_hash() -> "MinHash":
    from datasketch import MinHash

    return MinHash(PERMUTATIONS, seed=1, hashfunc=zlib.crc32, scheme="affine32")


def is_held_out(paragraphs: list[str], fraction: float, seed: int) -> bool:
    """Return whether a document is held out; its text decides, so that copies of it are in the same split."""
    digest = hashlib.blake2b("\n".join(paragraphs).encode(), digest_size=8, salt=seed.to_bytes(16, "little"))
    return int.from_bytes(digest.digest(), "little") < int(fraction * 2**64)
