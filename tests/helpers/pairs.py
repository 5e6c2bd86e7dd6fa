"""Few cases out of many: every value with every value of any other factor, though not every combination of all."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product
from typing import Any

Case = tuple[Any, ...]
Factors = Sequence[tuple[int, int]]  # the numbers of each two factors


def pairs_of(case: Case, together: Factors | None = None) -> set[tuple[int, int, Any, Any]]:
    """Each two values of a case (or those of the factors that matter), with the numbers of their factors."""
    return {(i, j, case[i], case[j]) for i, j in together or combinations(range(len(case)), 2)}


def pairwise(
    *factors: Sequence[Any], allowed: Callable[..., object] = lambda *_: True, together: Factors | None = None
) -> list[Case]:
    """Cases in which any two values of two factors occur together, where some allowed case has both.

    Args:
        factors: the values of each factor; hashable.
        allowed: whether a combination may be a case, such as a head that a family has.
        together: the pairs of factors that matter, by number; all of them unless given.

    Returns:
        The same cases for the same arguments: again and again the first combination that adds the most pairs.
    """
    candidates = {case: pairs_of(case, together) for case in product(*factors) if allowed(*case)}
    missing = set().union(*candidates.values())
    cases = []
    while missing:
        best = max(candidates, key=lambda case: len(candidates[case] & missing))
        missing -= candidates.pop(best)
        cases.append(best)
    return cases


def in_turn(groups: Iterable[tuple[Sequence[Any], Sequence[Any]]]) -> list[Case]:
    """Of each group (one factor, another) every value at least once, whichever value of the other comes with it."""
    return [
        (ones[i % len(ones)], others[i % len(others)])
        for ones, others in groups
        for i in range(max(len(ones), len(others)))
    ]
