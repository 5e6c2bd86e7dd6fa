"""Near-duplicates of earlier documents, from MinHash signatures.

Signatures are cut into bands; documents that agree in a whole band are compared (locality-sensitive hashing; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3). `datasketch` computes the bands for a threshold. Its own
index is a Python dictionary of all documents; sorting one band at a time takes eight bytes per document.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from pocketbert.corpus.documents import PERMUTATIONS

_AT_ONCE = 1 << 14  # pairs per comparison


def near_duplicates(signatures: npt.NDArray[np.uint32], threshold: float) -> npt.NDArray[np.bool_]:
    """Return [documents] whether the estimated Jaccard similarity to an earlier document is at least `threshold`.

    Args:
        signatures: [documents, permutations], memory-mapped or in memory.
        threshold: from 0 to 1.
    """
    from datasketch import MinHashLSH

    # Documents that agree in a band by chance are compared and kept; those that agree in no band are not compared.
    bands = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
    repeated = np.zeros(len(signatures), dtype=bool)
    for band in range(bands.b):
        keys = _keys(signatures, band * bands.r, (band + 1) * bands.r)
        order = np.argsort(keys, kind="stable")
        begins = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] ^ np.uint64(1)))
        first = order[np.repeat(begins, np.diff(begins, append=len(order)))]  # the first document with the same key
        candidates = (first != order) & ~repeated[order]
        for start in range(0, int(candidates.sum()), _AT_ONCE):
            earlier = first[candidates][start : start + _AT_ONCE]
            later = order[candidates][start : start + _AT_ONCE]
            repeated[later] |= (signatures[earlier] == signatures[later]).mean(axis=1) >= threshold
    return repeated


def _keys(signatures: npt.NDArray[np.uint32], start: int, stop: int) -> npt.NDArray[np.uint64]:
    """Return [documents] a hash of some columns."""
    odd = np.frombuffer(hashlib.blake2b(b"band", digest_size=64).digest(), dtype="<u8")
    keys = np.zeros(len(signatures), dtype=np.uint64)
    for i, column in enumerate(range(start, stop)):
        keys = (keys ^ signatures[:, column]) * (odd[i % len(odd)] | np.uint64(1))
        keys ^= keys >> np.uint64(29)
    return keys
