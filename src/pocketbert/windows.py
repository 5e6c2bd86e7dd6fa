"""Texts of any length: inputs that are too long for a model in windows, and one output from those of its windows.

A window repeats whatever surrounds the text (special tokens, a prompt, the other text of a pair) and shows as many of
the text's tokens as fit. Windows overlap, and the last one ends with the text. Each token is decided by the window in
which it stands farthest from an edge, of two equally far by the earlier one. With the usual overlap, a quarter of what
a window shows, it has an eighth of a window around it on either side, or an end of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import InputError
from pocketbert.features import WHOLE, Features, TokenIds, Tokens, check_texts, encode_ids, encode_tokens, encode_words
from pocketbert.shortening import shorten

if TYPE_CHECKING:
    from pocketbert.tokenization import BertTokenizer

F = TypeVar("F", bound=Features)
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Part(Features, Generic[F]):
    """One window of an input that is too long for a model."""

    whole: F
    decided: slice  # the tokens of the whole whose outputs are taken from this window
    shift: int  # a token that is decided here stands so many places earlier than in the whole
    share: int  # how many of them belong to the text

    @property
    def own(self) -> slice:
        """The tokens of this window that it decides."""
        return slice(self.decided.start - self.shift, self.decided.stop - self.shift)


def divide(whole: F, text: slice, length: int, overlap: int | None = None) -> list[F | Part[F]]:
    """Return an input as it is if it has at most `length` tokens, or else its windows.

    Args:
        whole: the input.
        text: its tokens that windows show in part; all others are in every window.
        length: maximum tokens per window.
        overlap: tokens that consecutive windows share [default: a quarter of what a window shows].

    Raises:
        InputError: a window would show none of the text, or no more than the overlap.
    """
    if len(whole) <= length:
        return [whole]
    room = length - len(whole) + text.stop - text.start
    if room < 1:
        raise InputError(
            f"the {length} tokens of a window leave no room for the text beside the tokens of every window"
        )
    overlap = room // 4 if overlap is None else overlap
    if not 0 <= overlap < room:
        raise InputError(f"stride={overlap} must be at least 0 and less than {room}, what a window shows of a text")
    last = text.stop - room
    starts = [*range(text.start, last, room - overlap), last]
    # All windows are equally long: up to the middle of what two show, a token is farther from the edges of the earlier.
    turns = [(earlier + later + room - 1) // 2 + 1 for earlier, later in pairwise(starts)]
    bounds = [text.start, *turns, text.stop]
    parts = []
    for number, start in enumerate(starts):
        shown = np.r_[: text.start, start : start + room, text.stop : len(whole)]
        first, end = bounds[number], bounds[number + 1]
        decided = slice(first if number else 0, end if start < last else len(whole))
        parts.append(
            Part(
                whole.input_ids[shown],
                whole.token_type_ids[shown],
                whole,
                decided,
                start - text.start,
                end - first,
                cut=whole.cut,
            )
        )
    return list(parts)


def merge(inputs: Sequence[F | Part[F]], outputs: Sequence[Floats]) -> tuple[F, Floats]:
    """Return an input that may have been divided, and its output [tokens, …] from those of its windows."""
    [first, *_] = inputs
    if not isinstance(first, Part):
        return first, outputs[0]
    parts = zip(inputs, outputs, strict=True)
    return first.whole, np.concatenate([output[part.own] for part, output in parts if isinstance(part, Part)])


def mean(inputs: Sequence[Features], outputs: Sequence[Floats]) -> Floats:
    """Return the mean of one output of each window, weighted by the tokens of the text that each of them decides."""
    shares = [part.share for part in inputs if isinstance(part, Part)]
    if not shares:
        return outputs[0]
    return np.average(np.stack(outputs), axis=0, weights=shares).astype(outputs[0].dtype)


def groups(inputs: Sequence[Features]) -> list[slice]:
    """Return where each of several inputs that follow each other has its windows; one that was not divided is alone."""
    wholes = [part.whole if isinstance(part, Part) else part for part in inputs]
    starts = [i for i, whole in enumerate(wholes) if i == 0 or whole is not wholes[i - 1]]
    return [slice(start, end) for start, end in pairwise([*starts, len(inputs)])]


# ── texts of any length as inputs ──


def encode_long_tokens(
    tokenizer: BertTokenizer, texts: Sequence[Any], *, max_length: int, overlap: int | None = None, split: bool = False
) -> list[list[Tokens | Part[Tokens]]]:
    """Return the windows of texts, or of sentences that are `split` into words, for token classification."""
    encode = encode_words if split else encode_tokens
    found = []
    for tokens in encode(tokenizer, texts, max_length=WHOLE):
        inside = np.flatnonzero(tokens.word_ids >= 0)
        text = slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0)
        found.append(divide(tokens, text, max_length, overlap))
    return found


def encode_long_ids(
    tokenizer: BertTokenizer, inputs: Sequence[TokenIds], before: Sequence[int] = (), *, max_length: int
) -> list[list[Features]]:
    """Return the windows of token ids, each with the ids `before` of a prompt; see `features.encode_ids`."""
    wholes = encode_ids(tokenizer, inputs, before, max_length=WHOLE)
    return [[*divide(whole, slice(1 + len(before), len(whole) - 1), max_length)] for whole in wholes]


def encode_long_texts(
    tokenizer: BertTokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int,
    repeated: int = 0,
    first: bool = False,
) -> list[list[Features]]:
    """Return the windows of texts or pairs for a classifier or an encoder.

    Of a pair the longer text is divided. The other is in every window, up to half of its room: the rest of it is cut.

    Args:
        tokenizer: of the model.
        texts: single texts, or the first texts of pairs.
        pairs: the second texts.
        max_length: maximum tokens per window.
        repeated: tokens at the beginning of single texts that every window repeats, a prompt.
        first: whether it is always the first text of a pair that is divided.
    """
    if not texts:
        return []
    check_texts(texts)
    check_texts(pairs or ())
    encoded = tokenizer(
        [shorten(tokenizer, text).text for text in texts],
        None if pairs is None else [shorten(tokenizer, text).text for text in pairs],
        truncation=False,
        return_attention_mask=False,
        verbose=False,
    )
    found: list[list[Features]] = []
    for row, (ids, types) in enumerate(zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)):
        whole = Features(np.asarray(ids, np.int32), np.asarray(types, np.int32))
        if len(whole) <= max_length:
            found.append([whole])
            continue
        owners = np.array([-1 if owner is None else owner for owner in encoded.sequence_ids(row)])
        tokens = [np.flatnonzero(owners == number) for number in (0, 1)]
        divided = 0 if (first and len(tokens[0])) or len(tokens[0]) > len(tokens[1]) else 1
        half = (max_length - int((owners < 0).sum())) // 2
        if pairs is not None and len(tokens[1 - divided]) > half:
            kept = np.delete(np.arange(len(whole)), tokens[1 - divided][half:])
            whole = Features(whole.input_ids[kept], whole.token_type_ids[kept], cut=True)
            tokens = [np.flatnonzero(owners[kept] == number) for number in (0, 1)]
        text = slice(int(tokens[divided][0]) + repeated, int(tokens[divided][-1]) + 1)
        found.append([*divide(whole, text, max_length)])
    return found
