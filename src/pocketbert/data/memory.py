"""Labelled data that a caller has in memory, as rows for the readers of files.

Columns with their names: a DataFrame of pandas or polars, an Arrow table, a `datasets.Dataset`, a dictionary of
columns, or a list of dictionaries, one for each row. Columns in a fixed order, whose names are then text, text_pair and
label: a tuple of columns, `(texts, labels)` or `(texts, second texts, labels)`, each a list, array or Series; or a list
of such rows. None of these libraries is imported: whoever has their objects has imported them.

Numbers that stand for the names of classes in a `datasets.Dataset` are these names. Rows count from 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np

from pocketbert.errors import DataError

_FIXED = {2: ("text", "label"), 3: ("text", "text_pair", "label")}
_NAME = Path("data in memory")


class Memory:
    """Rows in memory.

    Attributes:
        path: stands for the name of a file in messages.
        columns: the names of the columns.
        names: column → the names of the numbers 0, 1, … in it, where the data has them.
    """

    path = _NAME

    def __init__(
        self,
        columns: Sequence[Any],
        rows: Callable[[], Iterator[Sequence[Any]]],
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.columns, self._rows, self.names = [str(name) for name in columns], rows, dict(names or {})

    def rows(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield the number of each row, and its values as Python's own types."""
        for number, row in enumerate(self._rows(), start=1):
            yield number, [plain(value) for value in row]

    def objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number of each row, and its values by column."""
        return ((number, dict(zip(self.columns, row, strict=True))) for number, row in self.rows())

    def sha256(self) -> str:
        """Return the hash of all rows."""
        digest = hashlib.sha256(json.dumps(self.columns).encode())
        for _, row in self.rows():
            digest.update(json.dumps(row, default=str).encode())
        return digest.hexdigest()

    def __str__(self) -> str:
        return str(_NAME)

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # options are copied for `run.json`; rows do not change


def as_source(data: Any) -> Path | Memory:
    """Return the path of a file, or the rows of data in memory.

    Raises:
        DataError: the data is nothing of the kind, or its columns differ in length.
    """
    if isinstance(data, Memory):
        return data
    return Path(data) if isinstance(data, str | Path) else in_memory(data)


def in_memory(data: Any) -> Memory:
    """Return the rows of data in memory; errors as of `as_source`."""
    library = type(data).__module__.partition(".")[0]
    if library == "pandas" and hasattr(data, "itertuples"):
        return Memory(list(data.columns), lambda: data.itertuples(index=False, name=None))
    if library == "polars" and hasattr(data, "iter_rows"):
        return Memory(data.columns, data.iter_rows)
    if library == "pyarrow" and hasattr(data, "column_names"):
        return Memory(data.column_names, lambda: zip(*(column.to_pylist() for column in data.columns), strict=True))
    if library == "datasets":
        return _dataset(data)
    if isinstance(data, Mapping):
        return _columns(list(data), list(data.values()))
    if isinstance(data, tuple) and len(data) in _FIXED and not any(isinstance(part, str) for part in data):
        return _columns(_FIXED[len(data)], data)
    rows = list(data) if isinstance(data, Sequence | np.ndarray) and not isinstance(data, str | bytes) else None
    if rows and all(isinstance(row, Mapping) for row in rows):
        names = list(dict.fromkeys(chain.from_iterable(rows)))
        return Memory(names, lambda: ([row.get(name) for name in names] for row in rows))
    lengths = {len(row) if isinstance(row, Sequence | np.ndarray) and not isinstance(row, str) else 0
               for row in rows or ()}  # fmt: skip
    if rows and len(lengths) == 1 and (width := lengths.pop()) in _FIXED:
        return Memory(_FIXED[width], lambda: iter(rows))
    if rows is not None and not rows:
        raise DataError(f"{_NAME}: has no rows")
    raise DataError(
        f"{_NAME}: a {type(data).__name__} is not labelled data: pass the path of a file, a DataFrame, an Arrow "
        "table, a Dataset, a dictionary of columns, a list of dictionaries, or a tuple (texts, labels)"
    )


def _columns(names: Sequence[Any], columns: Sequence[Any]) -> Memory:
    listed = []
    for name, column in zip(names, columns, strict=True):
        if isinstance(column, str | bytes) or not hasattr(column, "__len__") or not hasattr(column, "__iter__"):
            raise DataError(f"{_NAME}: column {name!r} is a {type(column).__name__}, not a list of values")
        listed.append(column.to_pylist() if hasattr(column, "to_pylist") else list(column))
    lengths = {str(name): len(column) for name, column in zip(names, listed, strict=True)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {count:,}" for name, count in lengths.items())
        raise DataError(f"{_NAME}: the columns differ in length: {counts}")
    return Memory(names, lambda: zip(*listed, strict=True))


def _dataset(data: Any) -> Memory:
    """Return the rows of a `datasets.Dataset`, with the names of its classes."""
    if isinstance(data, Mapping):
        raise DataError(f"{_NAME}: a {type(data).__name__} has several splits ({', '.join(data)}): choose one of them")
    if not hasattr(data, "column_names") or not hasattr(data, "__len__"):
        raise DataError(f"{_NAME}: a {type(data).__name__} can be iterated only once: pass a Dataset")
    data = data.with_format(None)  # of another format, such as PyTorch's, rows hold that library's types
    columns = list(data.column_names)
    names = {}
    for column, feature in data.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(getattr(inner, "names", None), list):
            names[column] = tuple(map(str, inner.names))
    named = [names.get(column) for column in columns]

    def rows() -> Iterator[list[Any]]:
        for row in data:
            yield [_by_name(row[column], names) for column, names in zip(columns, named, strict=True)]

    return Memory(columns, rows, names)


def _by_name(value: Any, names: Sequence[str] | None) -> Any:
    if names is None:
        return value
    if isinstance(value, list):
        return [_by_name(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None  # -1 is a missing label


def plain(value: Any) -> Any:
    """Return a value as Python's own types; what libraries write for a missing one as None."""
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, np.generic | np.ndarray):
        value = value.item() if value.ndim == 0 else value.tolist()
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    return None if type(value).__name__ in ("NAType", "NaTType") else value
