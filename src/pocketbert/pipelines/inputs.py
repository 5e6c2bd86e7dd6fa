"""What callers give to a pipeline: one input, a list, an array, a column, rows of a data set, a generator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

from pocketbert.errors import InputError

# A key of a row that looks as if it were meant for the second text of a pair.
_SECOND = re.compile(r"pair|^(?:text|sentence)_?[2b]$|^(?:hypothesis|premise)$", re.IGNORECASE)


class Results(Iterator[Any]):
    """The results of inputs whose number is known, computed as they are taken."""

    def __init__(self, values: Iterator[Any], count: int) -> None:
        self._values, self._count = values, count

    def __next__(self) -> Any:
        return next(self._values)

    def __len__(self) -> int:
        """The number of all results, taken or not."""
        return self._count


def several(inputs: Any) -> list[Any] | Iterable[Any] | None:
    """Several inputs, a list where they are in memory; None if `inputs` is one input.

    Lists, tuples, arrays and columns of tables become a list. Data sets, which may be larger than the memory,
    generators, files and all else are read as they are answered.

    Raises:
        InputError: a table, of which one column is meant.
    """
    if isinstance(inputs, str | bytes | Mapping):
        return None
    if isinstance(inputs, list | tuple):
        return list(inputs)
    names = getattr(inputs, "columns", None)
    if names is not None and not callable(names):
        raise InputError(
            f"a {type(inputs).__name__} is a table, not a row of texts: pass one of its columns, as table['text'], "
            "or its rows as dictionaries, as table.to_dict('records')"
        )
    # Of Arrow, of NumPy and pandas, of Polars; data sets have such a method, too, but no type of their elements.
    for method, kind in {"to_pylist": "type", "tolist": "dtype", "to_list": "dtype"}.items():
        if hasattr(inputs, kind) and callable(values := getattr(inputs, method, None)):
            found = values()
            return found if isinstance(found, list) else None
    if isinstance(inputs, Iterable):
        return inputs
    if hasattr(inputs, "__getitem__") and isinstance(inputs, Sized):  # PyTorch's data sets
        return _Indexed(inputs)
    return None


class _Indexed:
    """A data set that has items and a length but no iterator."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return (self._items[i] for i in range(len(self._items)))


def text_of(row: Mapping[Any, Any]) -> Any:
    """The text of a row, which has it under `text`."""
    return _text(row, "a text, or a dictionary with the key text")


def pair_of(row: Mapping[Any, Any]) -> Any:
    """The text of a row, or `{"text", "text_pair"}` if it has a second one."""
    text = _text(row, "a dictionary with the keys text, text_pair")
    if wrong := [key for key in row if isinstance(key, str) and key != "text_pair" and _SECOND.search(key)]:
        raise InputError(f"the key {wrong[0]!r} is not known: the second text of a pair is text_pair")
    return text if row.get("text_pair") is None else {"text": text, "text_pair": row["text_pair"]}


def _text(row: Mapping[Any, Any], wanted: str) -> Any:
    if "text" not in row:
        raise InputError(f"an input must be {wanted}, not {dict(row)!r:.80}")
    text = row["text"]
    if isinstance(text, list | tuple):
        raise InputError("the dictionary holds columns, not one row: pass its list of texts")
    return text


def fields_of(row: Any, *names: str) -> dict[str, Any]:
    """Of an input with at least the keys `names`, these alone."""
    if not isinstance(row, Mapping) or not set(names) <= row.keys():
        raise InputError(f"an input must be a dictionary with the keys {', '.join(names)}, not {row!r:.80}")
    return {name: row[name] for name in names}
