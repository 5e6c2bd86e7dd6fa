"""From labels as they are written to the numbers that a model learns, and the split that keeps some back."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from pocketbert.data.batches import random_order
from pocketbert.data.tables import Table
from pocketbert.errors import DataError


def _is_whole(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Labels:
    """The names of the classes in the order of their ids; no names at all means that the label is a number.

    A file may also write numbers instead of names, as those of GLUE do: `numbered` says what 0, 1, … mean there, which
    need not be the ids.
    """

    names: tuple[str, ...]
    numbered: tuple[str, ...] = ()

    @property
    def regression(self) -> bool:
        """Whether the labels are numbers to be predicted."""
        return not self.names

    @classmethod
    def of(cls, table: Table, names: Sequence[str] | None = None) -> Self:
        """The labels of a training table.

        With `names`, these in this order, or numbers from 0 that stand for them. Otherwise numbers, some written with a
        decimal point, mean regression; whole numbers are classes in the order of their size; anything else, classes
        in alphabetical order.

        Raises:
            DataError: there is one class only, or a label is not among `names`.
        """
        found = Counter(example.label for example in table.examples if example.label is not None)
        if names is not None:
            labels = cls(tuple(names), numbered=tuple(names))
            labels.encode(table)
            return labels
        if all(_number(label) is not None for label in found) and not all(map(_is_whole, found)):
            return cls(())
        if len(found) < 2:
            raise DataError(f"{table.path}: all {len(table)} rows have the label {next(iter(found))!r}; two are needed")
        return cls(tuple(sorted(found, key=int if all(map(_is_whole, found)) else str)))

    def reordered(self, id2label: Mapping[int, str]) -> Self | None:
        """These labels in the order of a checkpoint that has the same ones, case aside; None if it has others."""
        mine = {name.casefold(): name for name in self.names}
        theirs = [id2label[i].casefold() for i in sorted(id2label)]
        if len(mine) != len(self.names) or sorted(mine) != sorted(theirs):
            return None
        return replace(self, names=tuple(mine[name] for name in theirs))

    def encode(self, table: Table) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
        """[examples] the class ids, or the numbers, of a table's labels.

        Raises:
            DataError: a label is unknown, or not a number; names its line.
        """
        written = [example.label or "" for example in table.examples]
        if self.regression:
            numbers = [_number(label) for label in written]
            self._refuse(table, [i for i, number in enumerate(numbers) if number is None])
            return np.array(numbers, dtype=np.float32)
        ids = {name: i for i, name in enumerate(self.names)}
        if self.numbered and not ids.keys() & set(written) and all(map(_is_whole, written)):
            ids = {str(i): ids[name] for i, name in enumerate(self.numbered)}
        self._refuse(table, [i for i, label in enumerate(written) if label not in ids])
        return np.array([ids[label] for label in written], dtype=np.int64)

    def _refuse(self, table: Table, wrong: list[int]) -> None:
        if not wrong:
            return
        first = table.examples[wrong[0]]
        known = "a number" if self.regression else f"one of {', '.join(self.names[:20])}"
        more = f" (and {len(wrong) - 1} more lines)" if len(wrong) > 1 else ""
        raise DataError(f"{table.path}, line {first.line}: the label {first.label!r} is not {known}{more}")


def hold_out(table: Table, fraction: float, seed: int) -> tuple[Table, Table]:
    """Split a table in two, for training and evaluation: of each label about `fraction` goes to the second.

    The same file, fraction and seed give the same split. A label with a single row stays in the first; numbers
    (regression) count as one label.

    Raises:
        DataError: no label has more than one row.
    """
    numeric = all(_number(example.label or "") is not None for example in table.examples)
    whole = numeric and all(_is_whole(example.label or "") for example in table.examples)
    groups: dict[str, list[int]] = {}
    for index in random_order(seed, "split", 0, len(table)).tolist():
        groups.setdefault("" if numeric and not whole else table.examples[index].label or "", []).append(index)
    held = {
        index
        for members in groups.values()
        for index in members[: min(len(members) - 1, math.ceil(len(members) * fraction))]
    }
    if not held:
        raise DataError(
            f"{table.path}: no label has two rows, so that one could be kept back; give a file for evaluation "
            "(--eval-data)"
        )
    return table.part(i for i in range(len(table)) if i not in held), table.part(sorted(held))
