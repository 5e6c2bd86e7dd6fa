"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, at some hundred megabytes a second in plain NumPy.

A long text is cut into lanes of equal length, which one loop walks side by side; since the sum is linear, two
neighbouring lanes are joined by pushing the left one's sum through as many zero bytes as the right one has.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bits reversed
_LANES = 2**14


def crc32c(data: np.ndarray) -> int:
    """The checksum of an array of bytes (uint8, one dimension)."""
    lanes = _LANES
    while lanes > 1 and len(data) < 64 * lanes:
        lanes //= 2
    words = len(data) // (4 * lanes)
    body = data[: 4 * lanes * words]
    crc = np.zeros(lanes, np.uint32)
    crc[0] = 0xFFFFFFFF
    low, high = _word_tables()
    word: np.ndarray
    for word in np.ascontiguousarray(body.view("<u4").reshape(lanes, words).T):
        crc ^= word
        crc = low[crc & 0xFFFF] ^ high[crc >> 16]
    length = 4 * words
    while len(crc) > 1:
        crc = _push_zeros(crc[::2], length) ^ crc[1::2]
        length *= 2
    rest, table = int(crc[0]), _byte_table()
    for byte in data[len(body) :].tolist():
        rest = table[(rest ^ byte) & 0xFF] ^ (rest >> 8)
    return rest ^ 0xFFFFFFFF


def unmask(masked: int) -> int:
    """The checksum under TensorFlow's and LevelDB's mask: rotated and shifted, as it may be part of its own data."""
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


@cache
def _byte_table() -> list[int]:
    """The contribution of each byte."""
    table = list(range(256))
    for _ in range(8):
        table = [entry >> 1 ^ (_POLYNOMIAL if entry & 1 else 0) for entry in table]
    return table


@cache
def _word_tables() -> tuple[np.ndarray, np.ndarray]:
    """The contributions of the lower and the upper half of a 32-bit word."""
    table = np.array(_byte_table(), np.uint32)
    high = np.arange(2**16, dtype=np.uint32)
    for _ in range(2):
        high = table[high & 0xFF] ^ (high >> 8)
    low = high
    for _ in range(2):
        low = table[low & 0xFF] ^ (low >> 8)
    return low, high


def _push_zeros(crc: np.ndarray, count: int) -> np.ndarray:
    """The sums after `count` zero bytes more: a matrix over GF(2), squared for each bit of `count`."""
    table = np.array(_byte_table(), np.uint32)
    columns = np.uint32(1) << np.arange(32, dtype=np.uint32)
    operator = table[columns & 0xFF] ^ (columns >> 8)  # column i: bit i after one zero byte
    while count:
        if count & 1:
            crc = _apply(operator, crc)
        operator = _apply(operator, operator)
        count >>= 1
    return crc


def _apply(columns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    bits = (vectors[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    product: np.ndarray = np.bitwise_xor.reduce(bits * columns, axis=1)
    return product
