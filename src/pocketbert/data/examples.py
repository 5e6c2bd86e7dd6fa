"""The examples of one file, of any task, and the split of a dev set."""

import hashlib
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Self, TypeVar

from pocketbert.data.bad_rows import BadRow
from pocketbert.data.batches import random_order
from pocketbert.errors import DataError

Example_co = TypeVar("Example_co", covariant=True)


@dataclass(frozen=True)
class Examples(Generic[Example_co]):
    """The examples of one file (or of a part of it)."""

    path: Path
    examples: list[Example_co]
    #: Number of damaged lines that were skipped.
    skipped: int = field(default=0, kw_only=True)
    #: Rows that were skipped because the caller wished so.
    bad: tuple[BadRow, ...] = field(default=(), kw_only=True)
    #: The hash of rows that are in no file.
    digest: str | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.examples)

    def part(self, indices: Iterable[int]) -> Self:
        """Return these examples only."""
        return replace(self, examples=[self.examples[i] for i in indices])

    def sha256(self) -> str:
        """Return the hash of the whole file, or of all rows where there is none."""
        if self.digest is not None:
            return self.digest
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


ExamplesT = TypeVar("ExamplesT", bound=Examples[object])


def hold_out_groups(
    examples: ExamplesT, group: Callable[[int], Hashable], fraction: float, seed: int
) -> tuple[ExamplesT, ExamplesT]:
    """Split off a dev set of whole groups.

    Args:
        examples: all examples.
        group: number of an example → its group, such as a passage with all its questions.
        fraction: fraction of the groups in the dev set; at least one group.
        seed: seed of the split.

    Returns:
        The training set and the dev set.

    Raises:
        DataError: there is only one group.
    """
    groups: dict[Hashable, list[int]] = {}
    for index in range(len(examples)):
        groups.setdefault(group(index), []).append(index)
    if len(groups) < 2:
        raise DataError(
            f"{examples.path}: too few examples to split off a dev set: give a file for evaluation (--eval-data)"
        )
    chosen = random_order(seed, "split", 0, len(groups))[: min(len(groups) - 1, math.ceil(len(groups) * fraction))]
    members = list(groups.values())
    held = {index for number in chosen.tolist() for index in members[number]}
    return examples.part(i for i in range(len(examples)) if i not in held), examples.part(sorted(held))
