"""Input and output types of tokenizers: batches of texts, and arrays with the way back into the texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from tokenizers import Encoding

from pocketbert.errors import MissingExtraError, TokenizerError
from pocketbert.tokenization.files import one_of


class BatchEncoding(dict[str, Any]):
    """Output of a tokenizer: named arrays of ids and masks, and the way back from tokens to words and characters.

    A dict, so `model(**encoding)` works; keys are attributes too, and a whole number gives the `Encoding` of that row.
    `encodings` is None if the values were not made from a text (`BertTokenizer.pad`).
    """

    def __init__(self, data: Mapping[str, Any], encodings: Sequence[Encoding] | None = None) -> None:
        super().__init__(data)
        self.encodings = encodings

    def __getitem__(self, key: str | int) -> Any:
        return self._row(key) if isinstance(key, int) else super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this encoding has no {name!r}; it has {', '.join(self)}") from None

    def _row(self, index: int) -> Encoding:
        if self.encodings is None:
            raise TokenizerError("these values carry no text: call the tokenizer itself to map tokens to words")
        return self.encodings[index]

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Token strings of one row."""
        return list(self._row(batch_index).tokens)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of one row the number of its word, None for special tokens."""
        return list(self._row(batch_index).word_ids)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of one row 0 (first text), 1 (second text) or None (special token)."""
        return list(self._row(batch_index).sequence_ids)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Token at a character: `(char)` of the first row or `(row, char)`; None where no token covers it."""
        row, char = (0, batch_or_char_index) if char_index is None else (batch_or_char_index, char_index)
        return self._row(row).char_to_token(char, sequence_index)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> tuple[int, int] | None:
        """(start, end) of a token in its text: `(token)` of the first row or `(row, token)`; None for special ones."""
        row, token = (0, batch_or_token_index) if token_index is None else (batch_or_token_index, token_index)
        return self._row(row).token_to_chars(token)

    def to(self, device: Any, *, non_blocking: bool = False) -> Self:
        """Move every tensor to `device`, in place."""
        for key, value in self.items():
            if hasattr(value, "to"):
                self[key] = value.to(device, non_blocking=non_blocking)
        return self


def as_batch(text: Any, text_pair: Any, split: bool) -> tuple[list[Any], bool]:
    """Inputs as `tokenizers` takes them (a text, or a tuple of two), and whether a batch was given."""
    batched = _is_list(text) and (not split or (len(text) > 0 and _is_list(text[0])))
    texts = text if batched else [text]
    if text_pair is not None:
        seconds = text_pair if batched else [text_pair]
        if not _is_list(seconds) or len(seconds) != len(texts):
            raise TokenizerError(f"{len(texts)} texts need a list of as many second texts, not {seconds!r:.60}")
        items = list(zip(texts, seconds, strict=True))
    else:
        items = [
            tuple(item) if _is_list(item) and len(item) == 2 and (not split or _is_list(item[0])) else (item,)
            for item in texts
        ]
    inputs = [
        tuple(_as_text(part, split, f"{name} {i}") for part, name in zip(item, ("text", "text_pair"), strict=False))
        for i, item in enumerate(items)
    ]
    return [item if len(item) == 2 else item[0] for item in inputs], batched


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _as_text(value: Any, split: bool, where: str) -> str | list[str]:
    if not split and isinstance(value, str):
        return value
    if split and _is_list(value) and all(isinstance(word, str) for word in value):
        return list(value)
    wanted = "a list of words" if split else "a string"
    raise TokenizerError(f"{where} must be {wanted}, not {type(value).__name__}: {value!r:.60}")


def broken_text(inputs: Iterable[Any]) -> str | None:
    """The error message for a text with an unpaired surrogate, which that of `tokenizers` does not name."""
    for position, item in enumerate(inputs):
        try:
            json.dumps(item, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return (
                f"text {position} contains the unpaired surrogate {error.object[error.start]!r}: "
                "it was decoded with the wrong encoding"
            )
    return None


def as_list(value: Any) -> Any:
    """An array or tensor as lists; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def as_tensors(data: dict[str, Any], kind: str | None) -> dict[str, Any]:
    """Values as lists (None), int64 arrays ("np") or tensors ("pt", "tf")."""
    if kind is None:
        return data
    one_of("return_tensors", kind, "np", "pt", "tf")
    arrays = {}
    for name, value in data.items():
        try:
            arrays[name] = np.asarray(value, dtype=np.int64)
        except ValueError:
            raise TokenizerError(
                f"{name} has rows of different lengths: pass padding=True, or truncation too"
            ) from None
    if kind == "np":
        return arrays
    try:
        if kind == "pt":
            import torch

            return {name: torch.from_numpy(array) for name, array in arrays.items()}
        import tensorflow as tf

        return {name: tf.constant(array) for name, array in arrays.items()}
    except ImportError:
        needed, extra = ("PyTorch", "train") if kind == "pt" else ("TensorFlow", "tf")
        advice = f"pip install 'pocketbert[{extra}]'"
        raise MissingExtraError(f"return_tensors={kind!r} needs {needed}: {advice}") from None
