"""Checksums of tensors: a file that was damaged on a disk or on the way is refused, and never computed with.

They stand in the metadata of the safetensors files that PocketBERT writes. Files of others have none, and are read
unchecked. A checksum is the CRC-32 of the sums of the blocks of 4 KiB, and of the rest: it costs a hundredth
of loading a model, where the CRC-32 of all bytes would cost a sixth. It is against accidents, not against forgery.
"""

from __future__ import annotations

import json
import zlib

import numpy as np
import numpy.typing as npt

KEY = "checksums"
_WORDS = 512  # of 8 bytes, per block


def checksum(content: npt.NDArray[np.uint8]) -> str:
    """Return the checksum of bytes, in hexadecimal digits."""
    blocks = len(content) // (8 * _WORDS)
    whole = content[: blocks * 8 * _WORDS].view("<u8").reshape(blocks, _WORDS)
    sums = np.add.reduce(whole, axis=1, dtype=np.uint64).astype("<u8")
    rest = content[blocks * 8 * _WORDS :]
    return f"{zlib.crc32(rest.tobytes(), zlib.crc32(sums.tobytes())):08x}"


def with_checksums(content: bytes) -> tuple[bytes, memoryview]:
    """Return a safetensors file with the checksums of its tensors: the new header, and the rest, which is not copied.

    The library writes metadata of several keys in any order, and equal tensors are to give equal files.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8:start]), np.frombuffer(content, np.uint8, offset=start)
    described = header.pop("__metadata__", {})
    sums = {name: checksum(numbers[slice(*entry["data_offsets"])]) for name, entry in header.items()}
    described[KEY] = json.dumps(dict(sorted(sums.items())), ensure_ascii=False)
    written = {"__metadata__": dict(sorted(described.items())), **header}
    text = json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text, memoryview(content)[start:]


def read_checksums(found: object) -> dict[str, str]:
    """Return the checksums in the metadata of a file; none if they are missing or of another kind."""
    text = found.get(KEY) if isinstance(found, dict) else None
    try:
        sums = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return {name: value for name, value in sums.items() if isinstance(value, str)} if isinstance(sums, dict) else {}
