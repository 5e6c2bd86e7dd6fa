"""Which heads and which units of a feed-forward network share a group.

The order of heads in a layer, and of units, is free: permuted queries, keys, values and columns of the next matrix
compute the same. A matrix with groups sees only the inputs of its group, so the order decides what it can compute. The
cost of an item in a place is the error that it would have there; the assignment with the least total cost is found
exactly.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_TINY = np.finfo(np.float64).tiny


def assign(cost: Floats, capacity: Integers) -> Integers:
    """Return [items] the places of all items, such that the sum of their costs is least.

    Every item begins in the place that it likes best. As long as a place has more items than it holds, a chain of moves
    ends in a place with room, by way of other places, that costs least: after each chain no other distribution of the
    same numbers is cheaper (successive shortest paths of a flow). Places are few, so a chain is found at once.

    Args:
        cost: [items, places].
        capacity: [places] how many items each holds; their sum is the number of items.
    """
    items, places = cost.shape
    assert capacity.sum() == items
    chosen = cost.argmin(1)
    excess = np.bincount(chosen, minlength=places) - capacity
    while (excess > 0).any():
        # steps[a, b]: the least cost of moving one item of a to b.
        steps, movers = np.full((places, places), np.inf), np.zeros((places, places), np.int64)
        for a in range(places):
            members = np.flatnonzero(chosen == a)
            if len(members):
                change = cost[members] - cost[members, a, None]
                movers[a], steps[a] = members[change.argmin(0)], change.min(0)
        source = int(np.flatnonzero(excess > 0)[0])
        distance, previous = _shortest_paths(steps, source)
        target = int(np.where(excess < 0, distance, np.inf).argmin())
        excess[source] -= 1
        excess[target] += 1
        path = [target]
        while path[-1] != source:
            path.append(int(previous[path[-1]]))
        for to, from_ in pairwise(path):
            chosen[movers[from_, to]] = to
    return chosen


def _shortest_paths(steps: Floats, source: int) -> tuple[Floats, Integers]:
    """Return the costs of all places from `source`, and the place before each (Bellman and Ford: steps may gain)."""
    places = len(steps)
    distance, previous = np.full(places, np.inf), np.full(places, source)
    distance[source] = 0.0
    for _ in range(places - 1):
        through = distance[:, None] + steps
        best = through.argmin(0)
        shorter = through[best, np.arange(places)] < distance - 1e-12  # rounding must not close a circle
        if not shorter.any():
            break
        previous[shorter] = best[shorter]
        distance[shorter] = through[best, np.arange(places)][shorter]
    return distance, previous


def order_heads(unexplained: list[Floats], variance: list[Floats], heads: int) -> Integers:
    """Return [heads] the head of the teacher for each head of the student.

    The cost of a head is the share of the variance of its rows that is left unexplained, summed over the matrices.

    Args:
        unexplained: of queries, keys and values [width, groups]: see `Covariance.unexplained`.
        variance: of the same [width].
        heads: number of heads.
    """
    groups = [_groups(len(left), left.shape[1]).reshape(heads, -1) for left in unexplained]  # [heads, rows of a head]
    places, place_of = _distinct(np.concatenate(groups, axis=1))
    cost = np.zeros((heads, len(places)))
    for left, whole, group in zip(unexplained, variance, groups, strict=True):
        rows = left.reshape(heads, group.shape[1], -1)
        total = np.maximum(whole.reshape(heads, -1).sum(1), _TINY)
        for place, head in enumerate(places):  # a head of the student that stands for the place
            at_place = np.take_along_axis(rows, group[None, head, :, None], axis=2)
            cost[:, place] += at_place.sum((1, 2)) / total
    return _ordered(cost, place_of)


def order_units(unexplained: Floats, variance: Floats, activity: Floats, output: Floats, groups: int) -> Integers:
    """Return [units] the unit of the teacher for each unit of the student.

    The cost of a unit is the variance that the output loses with it: the share of its own variance that is left
    unexplained, and all that it says to rows of the output outside its group.

    Args:
        unexplained: of the units before the activation [units, groups before].
        variance: of the same [units].
        activity: variance after the activation [units].
        output: the next matrix [width, units].
        groups: of the next matrix.
    """
    units = len(activity)
    power = np.square(output)
    whole, within = power.sum(0), power.reshape(groups, -1, units).sum(1)  # [units]; [groups, units]
    share = unexplained / np.maximum(variance, _TINY)[:, None]
    group = np.stack([_groups(units, unexplained.shape[1]), _groups(units, groups)], axis=1)
    places, place_of = _distinct(group)
    before, after = group[places].T
    cost = activity[:, None] * (share[:, before] * whole[:, None] + whole[:, None] - within[after].T)
    return _ordered(cost, place_of)


def _groups(rows: int, groups: int) -> Integers:
    """Return [rows] the group of each row."""
    return np.arange(rows) * groups // rows


def _distinct(signatures: Integers) -> tuple[Integers, Integers]:
    """Return a row for each distinct row, and [rows] which of them each row equals."""
    _, first, which = np.unique(signatures, axis=0, return_index=True, return_inverse=True)
    return first, which.reshape(-1)


def _ordered(cost: Floats, place_of: Integers) -> Integers:
    """Return [items] the item at each position, where `place_of` [items] is the place of each position."""
    chosen = assign(cost, np.bincount(place_of, minlength=cost.shape[1]))
    order = np.empty(len(cost), np.int64)
    order[np.argsort(place_of, kind="stable")] = np.argsort(chosen, kind="stable")
    return order
