"""Written labels → class ids or numbers; stratified split of a dev set."""

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from pocketbert.data.bad_rows import BadRow
from pocketbert.data.batches import random_order
from pocketbert.data.spellings import (
    Label,
    are_numbers,
    is_class_number,
    is_whole,
    joined,
    merged,
    number,
    odd_among_numbers,
    read_hot,
    whole,
)
from pocketbert.data.tables import Table
from pocketbert.errors import DataError

logger = logging.getLogger("pocketbert")


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
        and 1.0; labels with columns of their own have the order of these. Otherwise numbers of which some have decimals
        mean regression; whole numbers are classes in numerical order; all else are classes in alphabetical order. Lists
        of a 0 or a 1 for each class give classes that are called by their numbers.

        Raises:
            DataError: there is only one class, or a label is not among `names`.
        """
        lists = [example for example in table.examples if isinstance(example.label, tuple)]
        names = names or table.classes or None
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
            _refuse_probabilities(table, lists[0].label, counts)
            labels = cls(tuple(sorted(counts)), several=True)
            labels.encode(table)
            if not counts:
                raise DataError(f"{table.path}: {_all(table)} an empty list of labels; one is needed")
            return labels
        if _are_numbers(table, counts):
            if len(set(map(number, counts))) < 2:
                raise DataError(f"{table.path}: {_all(table)} the number {next(iter(counts))}; two are needed")
            if all(map(is_class_number, counts)):
                logger.warning(
                    "%s: the labels %s are read as numbers (regression); if they are classes, name them in the "
                    "order of their ids with --labels", table.path, ", ".join(sorted(counts)[:5])
                )  # fmt: skip
            return cls(())
        if len(counts) < 2:
            raise DataError(f"{table.path}: {_all(table)} the label {next(iter(counts))!r}; two are needed")
        return cls(tuple(sorted(counts, key=whole if all(map(is_whole, counts)) else str)))

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
        """Return [examples] the class ids, or the numbers, of a table's labels; of several, [examples, labels] 0 or 1.

        Raises:
            DataError: a label is unknown or not a number; the message names its line.
        """
        if wrong := self.unusable(table):
            first = table.examples[wrong[0]]
            more = f" (and {len(wrong) - 1} more lines)" if len(wrong) > 1 else ""
            raise DataError(f"{table.path}, line {first.line}: {self._problem(first.label)}{more}")
        if self.several:
            ids = {name: i for i, name in enumerate(self.names)}
            encoded = np.zeros((len(table), len(ids)), dtype=np.float32)
            for row, example in enumerate(table.examples):
                encoded[row, [ids[name] for name in _names(example.label)]] = 1.0
            return encoded
        written = [str(example.label) for example in table.examples]
        if self.regression:
            return np.array(list(map(number, written)), dtype=np.float32)
        ids = self._ids(written)
        return np.array([ids[label] for label in written], dtype=np.int64)

    def unusable(self, table: Table) -> list[int]:
        """Return the indices of the examples whose labels are unknown or not numbers."""
        labels = [example.label for example in table.examples]
        if self.several:
            known = set(self.names)
            return [i for i, label in enumerate(labels) if not isinstance(label, tuple) or not known >= set(label)]
        if self.regression:
            return [i for i, label in enumerate(labels) if not isinstance(label, str) or number(label) is None]
        ids = self._ids([label for label in labels if isinstance(label, str)])
        return [i for i, label in enumerate(labels) if label not in ids]

    def without_unusable(self, table: Table) -> Table:
        """Return a table without those examples, which join its bad rows."""
        wrong = self.unusable(table)
        examples = [table.examples[i] for i in wrong]
        bad = [BadRow(one.line, self._problem(one.label), {"text": one.text, "label": one.label}) for one in examples]
        left = table.part(sorted({*range(len(table))} - {*wrong}))
        lines = sorted((*table.bad, *bad), key=lambda row: row.line)
        return replace(left, bad=tuple(lines), skipped=table.skipped + len(bad))

    def _ids(self, written: Sequence[str]) -> dict[str, int]:
        """Return label → class for labels as written: by name, spelled otherwise (1 as +1 or 1.0), or by number."""
        ids = {name: i for i, name in enumerate(self.names)}
        others = {label for label in written if label not in ids and is_class_number(label)}
        if not others or not all(map(is_class_number, ids.keys() & set(written))):
            return ids
        by_value = {str(whole(name)): i for name, i in ids.items()} if all(map(is_whole, ids)) else {}
        if not by_value and self.numbered:
            by_value = {str(i): ids[name] for i, name in enumerate(self.numbered)}
        return ids | {label: by_value[str(whole(label))] for label in others if str(whole(label)) in by_value}

    def _problem(self, label: Label) -> str:
        known = "a number" if self.regression else f"one of {', '.join(self.names[:20])}"
        known = f"a list of some of {', '.join(self.names[:20])}" if self.several else known
        return f"the label {label!r} is not {known}"


def merged_labels(path: Path | str, counts: Mapping[str, int], names: Sequence[str], *, merge: bool) -> dict[str, str]:
    """Return label → its replacement, of those that differ in case or spaces alone; unless `merge`, only note them."""
    other = merged(counts, names)
    if other:
        listed = [f"{label!r} ({counts[label]:,}) beside {kept!r}" for label, kept in list(other.items())[:5]]
        listed += ["…"] if len(other) > 5 else []
        what = "merged" if merge else "are different labels; --merge-labels merges them"
        logger.warning("%s: labels that differ only in case or spaces %s: %s", path, what, ", ".join(listed))
    return other if merge else {}


def tidied(table: Table, names: Sequence[str] = (), *, merge: bool = False, skip_bad: bool = False) -> Table:
    """Return a table whose labels were looked through: what is merged or left out, or only noted in the log.

    Args:
        table: the table.
        names: spellings of labels that count.
        merge: make one label of those that differ in case or spaces alone.
        skip_bad: leave out labels that are no numbers, where nearly all are.
    """
    counts = Counter(name for example in table.examples for name in _names(example.label))
    if other := merged_labels(table.path, counts, names, merge=merge):
        table = table.relabelled([_renamed(example.label, other) for example in table.examples])
    if (one := joined(counts)) is not None:
        logger.warning(
            "%s: the label %r joins other labels, and counts as another class; write several labels of a text as a "
            "list: in JSON lines, or in a cell as ['a', 'b']", table.path, one
        )  # fmt: skip
    if skip_bad and not names and odd_among_numbers(counts):
        table = Labels(()).without_unusable(table)
    return table


def _renamed(label: Label, other: Mapping[str, str]) -> Label:
    if isinstance(label, tuple):
        return tuple(dict.fromkeys(other.get(name, name) for name in label))
    return None if label is None else other.get(label, label)


def _are_numbers(table: Table, written: Collection[str]) -> bool:
    """Return whether the labels of a table are numbers to predict; see `are_numbers`."""
    if odd := odd_among_numbers(written):
        line = next(example.line for example in table.examples if example.label == odd[0])
        raise DataError(
            f"{table.path}, line {line}: the label {odd[0]!r} is not a number, and {len(written) - len(odd):,} "
            f"others are; correct it, or leave such rows out (--skip-bad)"
        )
    try:
        return are_numbers(written)
    except DataError as error:
        raise DataError(f"{table.path}: {error}") from None


def _all(table: Table) -> str:
    return "the only row has" if len(table) == 1 else f"all {len(table):,} rows have"


def _refuse_probabilities(table: Table, first: Label, counts: Collection[str]) -> None:
    """Raise `DataError` for lists of numbers with decimals."""
    if all(number(name) is not None for name in counts) and not all(map(is_class_number, counts)):
        raise DataError(
            f"{table.path}: the label {list(_names(first))} holds numbers with decimals, which are not labels: a list "
            "needs the names of a text's labels, or a 0 or a 1 for each label"
        )


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
