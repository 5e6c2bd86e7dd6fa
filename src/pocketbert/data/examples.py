"""The examples of one file, whatever an example is, and the split that keeps some back."""

import hashlib
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Self, TypeVar

from pocketbert.data.batches import random_order
from pocketbert.errors import DataError

Example_co = TypeVar("Example_co", covariant=True)


@dataclass(frozen=True)
class Examples(Generic[Example_co]):
    """The examples of one file (or of a part of it)."""

    path: Path
    examples: list[Example_co]
    #: How many lines of the file were left out because they are damaged.
    skipped: int = field(default=0, kw_only=True)

    def __len__(self) -> int:
        return len(self.examples)

    def part(self, indices: Iterable[int]) -> Self:
        """These examples alone."""
        return replace(self, examples=[self.examples[i] for i in indices])

    def sha256(self) -> str:
        """The hash of the whole file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


ExamplesT = TypeVar("ExamplesT", bound=Examples[object])


def hold_out_groups(
    examples: ExamplesT, group: Callable[[int], Hashable], fraction: float, seed: int
) -> tuple[ExamplesT, ExamplesT]:
    """Split examples in two, for training and evaluation: about `fraction` of the groups go to the second, whole.

    Args:
        examples: all of them.
        group: the number of an example → what must not be parted, such as a passage with all its questions.
        fraction: which part to keep back; at least one group.
        seed: decides which.

    Raises:
        DataError: there is one group only.
    """
    groups: dict[Hashable, list[int]] = {}
    for index in range(len(examples)):
        groups.setdefault(group(index), []).append(index)
    if len(groups) < 2:
        raise DataError(
            f"{examples.path}: there is too little in it to keep a part back; give a file for evaluation (--eval-data)"
        )
    chosen = random_order(seed, "split", 0, len(groups))[: min(len(groups) - 1, math.ceil(len(groups) * fraction))]
    members = list(groups.values())
    held = {index for number in chosen.tolist() for index in members[number]}
    return examples.part(i for i in range(len(examples)) if i not in held), examples.part(sorted(held))
