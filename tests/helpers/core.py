"""Programs of the native core, written step by step."""

from typing import Any

import numpy as np

from pocketbert.runtime.engine import native_core


def f(*shape: int) -> np.ndarray:
    """The same random numbers for the same shape."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def program(threads: int = 2, width: int = 16, longest: int = 4000) -> Any:
    """Words and positions, attention, and a product in int8, the answer in buffer 2."""
    core = native_core()
    assert core is not None
    made = core(threads)
    for _ in range(3):
        made.buffer(width, False)
    whole = (0, 0, width)
    made.lookup(whole, f(11, width), "word", False)
    made.lookup(whole, f(longest, width), "position", True)
    made.attention(whole, whole, whole, (1, 0, width), 1, True)
    weight = np.ones((width, width), np.int8)
    made.linear_s8((1, 0, width), (2, 0, width), weight, f(width), f(width), 1, "gelu", None, None, None)
    return made


def ask(made: Any, length: int = 300) -> np.ndarray:
    """What `program` computes for a sequence of so many words."""
    ids = np.arange(length, dtype=np.int32) % 11
    answer: np.ndarray = made.run(ids, ids * 0, np.array([0, length], np.int32), [(2, 0, 16)])[0]
    return answer
