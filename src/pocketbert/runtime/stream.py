"""Streaming inference: any number of inputs, results in their order, bounded memory.

Inputs are read in windows, which are bounded in number and in characters. While one window is computed the next is
tokenised in a thread, and nothing more is read ahead. Within a window inputs are sorted by length and run within a
budget of tokens; the outputs of a run are decoded at once, so only results wait for their turn.

Inputs are read in the caller's thread, because a generator may be bound to it (a cursor of sqlite3 is).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pocketbert.errors import InputError
from pocketbert.features import Features, Predictor

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

#: An element among the inputs that announces a pause: the inputs before it are computed now.
PAUSE: Final = object()

_FIRST_WINDOW = 64  # inputs; later windows hold twice as many each, so that the first answers come soon
_PATIENCE = 0.1  # seconds that an input waits for others to fill its window


@dataclass(frozen=True)
class Job:
    """The steps before and after the model.

    Args:
        encode: some inputs → the features of each, one sequence or several. An `InputError` with a position concerns
            that input alone: the inputs before it are computed first.
        decode: an input, its sequences and the model's outputs for them → the result.
        inputs: maximum number per window.
        characters: maximum number per window, not counting its last input.
        tokens: maximum number per run; longer sequences run alone.
    """

    encode: Callable[[list[Any]], Sequence[Sequence[Features]]]
    decode: Callable[[Any, Sequence[Any], Sequence[Mapping[str, np.ndarray]]], Any]
    inputs: int = 2048
    characters: int = 1 << 17
    tokens: int = 4096


class Answer(NamedTuple):
    """The result for an input, and the sequences that the model read."""

    value: Any
    features: Sequence[Features]


def answers(inputs: Iterable[Any], job: Job, predictor: Predictor) -> Iterator[Answer]:
    """The results of all inputs, in order.

    An error comes after the results of all inputs before it, whether `inputs` raised it or it concerns an input.
    """
    for window in _one_ahead(job.encode, _windows(inputs, job)):
        yield from _computed(window, job, predictor)
        if window.error is not None:
            raise window.error


def _windows(inputs: Iterable[Any], job: Job) -> Iterator[list[Any]]:
    """Inputs, some at a time; an empty window announces a pause."""
    window: list[Any] = []
    size, characters, begun = min(_FIRST_WINDOW, job.inputs), 0, 0.0
    try:
        for one in inputs:
            if one is not PAUSE:
                begun = begun if window else time.monotonic()
                window.append(one)
                characters += _characters(one)
            slow = one is PAUSE or time.monotonic() - begun > _PATIENCE
            if slow or len(window) >= size or characters >= job.characters:
                if window:
                    yield window
                window, characters, size = [], 0, min(2 * size, job.inputs)
            if slow:
                yield []
    except Exception:  # of any kind: `inputs` is the caller's; the results of all before it come first
        yield window
        yield []
        raise
    if window:
        yield window


def _characters(one: Any) -> int:
    """How many characters an input has in its texts."""
    if isinstance(one, str):
        return len(one)
    if isinstance(one, Mapping):
        return sum(map(_characters, one.values()))
    return sum(map(_characters, one)) if isinstance(one, list | tuple) else 0


class _Window(NamedTuple):
    """Some inputs, the features of each, and the error of the input after them."""

    first: int  # the position of the first among all inputs
    inputs: list[Any]
    encoded: Sequence[Sequence[Features]]
    error: InputError | None = None


Encode = Callable[[list[Any]], Sequence[Sequence[Features]]]


def _one_ahead(encode: Encode, windows: Iterable[list[Any]]) -> Iterator[_Window]:
    """Windows, encoded: the first at once, each other in a thread while the one before it is in use."""
    ready: _Window | None = None
    pool: ThreadPoolExecutor | None = None
    first = 0
    try:
        for window in windows:
            if not window:
                if ready is not None:
                    yield ready
                ready = None
                continue
            if ready is None:
                ready = _encoded(encode, first, window)
            else:
                if pool is None:
                    from concurrent.futures import ThreadPoolExecutor

                    pool = ThreadPoolExecutor(1, "pocketbert-tokenize")
                ahead = pool.submit(_encoded, encode, first, window)
                yield ready
                ready = ahead.result()
            first += len(window)
        if ready is not None:
            yield ready
    finally:
        if pool is not None:
            pool.shutdown()


def _encoded(encode: Encode, first: int, inputs: list[Any]) -> _Window:
    try:
        return _Window(first, inputs, encode(inputs))
    except InputError as error:
        if error.position is None:
            raise
        before = inputs[: error.position]
        absolute = InputError(error.message, first + error.position)
        return _Window(first, before, encode(before) if before else [], absolute)


def _computed(window: _Window, job: Job, predictor: Predictor) -> list[Answer]:
    """The results of a window."""
    results: list[Any] = [None] * len(window.inputs)
    outputs: list[list[Any]] = [[None] * len(group) for group in window.encoded]
    missing = [len(group) for group in window.encoded]
    places = [(i, j) for i, group in enumerate(window.encoded) for j in range(len(group))]
    for run in _runs(places, [len(window.encoded[i][j]) for i, j in places], job.tokens):
        for (i, j), output in zip(run, predictor([window.encoded[i][j] for i, j in run]), strict=True):
            outputs[i][j] = output
            missing[i] -= 1
            if not missing[i]:
                results[i] = job.decode(window.inputs[i], window.encoded[i], outputs[i])
                outputs[i] = []
    return [Answer(value, group) for value, group in zip(results, window.encoded, strict=True)]


def _runs(places: list[tuple[int, int]], lengths: list[int], tokens: int) -> Iterator[list[tuple[int, int]]]:
    """`places` with the longest first, as many at a time as would fit into `tokens` if all were that long."""
    order = sorted(range(len(places)), key=lambda n: -lengths[n])
    start = 0
    while start < len(order):
        end = start + max(1, tokens // lengths[order[start]])
        yield [places[n] for n in order[start:end]]
        start = end
