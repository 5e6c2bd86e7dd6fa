"""Written labels → class ids or numbers; stratified split of a dev set."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from pocketbert.data.batches import random_order
from pocketbert.data.spellings import Label, are_numbers, is_class_number, is_whole, number, read_hot
from pocketbert.data.tables import Table
from pocketbert.errors import DataError


@dataclass(frozen=True)
class Labels:
    """The names of the classes in the order of their ids; no names in a regression.

    With `several`, an example has any number of labels, given as lists in JSON or Parquet, or as their text in CSV.

    A file may also have numbers instead of names, as GLUE's files have: `numbered` lists the names that 0, 1, … stand
    for, which need not be the order of the ids.
    """

    names: tuple[str, ...]
    numbered: tuple[str, ...] = ()
    several: bool = False

    @property
    def regression(self) -> bool:
        """Whether the labels are numbers to predict."""
        return not self.names

    @classmethod
    def of(cls, table: Table, names: Sequence[str] | None = None) -> Self:
        """Return the labels of a training table.

        With `names`, the classes have this order, and numbers from 0 stand for them, also if they are written as 0.0
        and 1.0. Otherwise numbers of which some have decimals mean regression; whole numbers are classes in numerical
        order; all else are classes in alphabetical order. Lists of a 0 or a 1 for each class give classes that are
        called by their numbers.

        Raises:
            DataError: there is only one class, or a label is not among `names`.
        """
        lists = [example for example in table.examples if isinstance(example.label, tuple)]
        hot = read_hot([example.label for example in table.examples], names)
        if names is None and hot != [example.label for example in table.examples]:
            width = len(lists[0].label or ())
            return cls(tuple(map(str, range(width))), several=True)
        table = table.relabelled(hot)
        counts = Counter(name for example in table.examples for name in _names(example.label))
        if names is not None:
            labels = cls(tuple(names), numbered=tuple(names), several=bool(lists))
            labels.encode(table)
            return labels
        if lists:
            labels = cls(tuple(sorted(counts)), several=True)
            labels.encode(table)
            if not counts:
                raise DataError(f"{table.path}: all {len(table)} rows have an empty list of labels; one is needed")
            return labels
        if _are_numbers(table, counts):
            return cls(())
        if len(counts) < 2:
            raise DataError(
                f"{table.path}: all {len(table)} rows have the label {next(iter(counts))!r}; two are needed"
            )
        return cls(tuple(sorted(counts, key=int if all(map(is_whole, counts)) else str)))

    def named(self, table: Table) -> Table:
        """Return a table with the names of labels where it has lists of a 0 or a 1 for each of them."""
        if not self.several:
            return table
        return table.relabelled(read_hot([example.label for example in table.examples], self.numbered or self.names))

    def reordered(self, id2label: Mapping[int, str]) -> Self | None:
        """Return these labels in the order of a checkpoint with the same labels, ignoring case; None for others."""
        own = {name.casefold(): name for name in self.names}
        order = [id2label[i].casefold() for i in sorted(id2label)]
        if len(own) != len(self.names) or sorted(own) != sorted(order):
            return None
        return replace(self, names=tuple(own[name] for name in order))

    def encode(self, table: Table) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
        """Return [examples] the class ids, or the numbers, of a table's labels.

        Raises:
            DataError: a label is unknown or not a number; the message names its line.
        """
        if self.several:
            return self._encode_several(table)
        lists = [i for i, example in enumerate(table.examples) if isinstance(example.label, tuple)]
        self._refuse(table, lists)
        written = [str(example.label or "") for example in table.examples]
        if self.regression:
            numbers = [number(label) for label in written]
            self._refuse(table, [i for i, value in enumerate(numbers) if value is None])
            return np.array(numbers, dtype=np.float32)
        ids = {name: i for i, name in enumerate(self.names)}
        if not ids.keys() >= set(written) and all(map(is_class_number, written)):
            # Spelled otherwise than the names, 1 as +1 or 1.0, or numbers that stand for names.
            written = [str(int(number(label) or 0)) for label in written]
            by_value = {str(int(name)): i for name, i in ids.items()} if all(map(is_whole, ids)) else {}
            if by_value.keys() & set(written):
                ids = by_value
            elif self.numbered:
                ids = {str(i): ids[name] for i, name in enumerate(self.numbered)}
        self._refuse(table, [i for i, label in enumerate(written) if label not in ids])
        return np.array([ids[label] for label in written], dtype=np.int64)

    def _encode_several(self, table: Table) -> npt.NDArray[np.float32]:
        """Return [examples, labels] with 1 where an example has a label."""
        ids = {name: i for i, name in enumerate(self.names)}
        wrong = [
            i
            for i, example in enumerate(table.examples)
            if not isinstance(example.label, tuple) or not ids.keys() >= set(example.label)
        ]
        self._refuse(table, wrong)
        encoded = np.zeros((len(table), len(ids)), dtype=np.float32)
        for row, example in enumerate(table.examples):
            encoded[row, [ids[name] for name in _names(example.label)]] = 1.0
        return encoded

    def _refuse(self, table: Table, wrong: list[int]) -> None:
        if not wrong:
            return
        first = table.examples[wrong[0]]
        known = "a number" if self.regression else f"one of {', '.join(self.names[:20])}"
        known = f"a list of some of {', '.join(self.names[:20])}" if self.several else known
        more = f" (and {len(wrong) - 1} more lines)" if len(wrong) > 1 else ""
        raise DataError(f"{table.path}, line {first.line}: the label {first.label!r} is not {known}{more}")


def _are_numbers(table: Table, written: Collection[str]) -> bool:
    """Return whether the labels of a table are numbers to predict; see `are_numbers`."""
    try:
        return are_numbers(written)
    except DataError as error:
        raise DataError(f"{table.path}: {error}") from None


def _names(label: Label) -> tuple[str, ...]:
    if isinstance(label, tuple):
        return label
    return () if label is None else (label,)


def hold_out(table: Table, fraction: float, seed: int) -> tuple[Table, Table]:
    """Split off a dev set with about `fraction` of the examples of each label.

    The same file, fraction and seed give the same split. A label with a single example stays in the training set;
    numbers (regression) and lists of labels count as one label.

    Returns:
        The training set and the dev set.

    Raises:
        DataError: no label has more than one example.
    """
    written = ["" if isinstance(example.label, tuple) else example.label or "" for example in table.examples]
    if _are_numbers(table, written):
        written = [""] * len(table)
    groups: dict[str, list[int]] = {}
    for index in random_order(seed, "split", 0, len(table)).tolist():
        groups.setdefault(written[index], []).append(index)
    held = {
        index
        for members in groups.values()
        for index in members[: min(len(members) - 1, math.ceil(len(members) * fraction))]
    }
    if not held:
        raise DataError(
            f"{table.path}: no label has two examples, so no dev set can be split off: give a file for evaluation "
            "(--eval-data)"
        )
    return table.part(i for i in range(len(table)) if i not in held), table.part(sorted(held))
