"""Minimum of a smooth convex function: L-BFGS (Liu & Nocedal 1989), in NumPy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

_MEMORY = 10  # pairs of steps and changes of the gradient


def minimize(
    function: Callable[[Vector], tuple[float, Vector]], start: Vector, *, tolerance: float = 1e-5, most: int = 500
) -> Vector:
    """Return the point where a function is least.

    Args:
        function: point → its value and its gradient there.
        start: where to begin.
        tolerance: the largest entry of the gradient at which to stop.
        most: iterations.
    """
    point, (value, slope) = start, function(start)
    pairs: deque[tuple[Vector, Vector, float]] = deque(maxlen=_MEMORY)
    for _ in range(most):
        if np.abs(slope).max(initial=0.0) < tolerance:
            break
        direction = -_curved(slope, pairs)
        along = float(slope @ direction)
        size = 1.0 if pairs else min(1.0, 1.0 / float(np.abs(slope).sum()))
        for _ in range(40):  # halve the step until it pays
            there = point + size * direction
            new, new_slope = function(there)
            if new <= value + 1e-4 * size * along:
                break
            size /= 2
        else:
            break  # rounding leaves nothing to gain
        step, change = there - point, new_slope - slope
        if (curvature := float(step @ change)) > 1e-12 * float(change @ change):
            pairs.append((step, change, curvature))
        point, value, slope = there, new, new_slope
    return point


def _curved(slope: Vector, pairs: deque[tuple[Vector, Vector, float]]) -> Vector:
    """The gradient times an estimate of the inverse Hessian, from the latest steps: the two loops of L-BFGS."""
    result, factors = slope.copy(), list[float]()
    for step, change, curvature in reversed(pairs):
        factors.append(float(step @ result) / curvature)
        result -= factors[-1] * change
    if pairs:
        _, change, curvature = pairs[-1]
        result *= curvature / float(change @ change)
    for (step, change, curvature), factor in zip(pairs, reversed(factors), strict=True):
        result += step * (factor - float(change @ result) / curvature)
    return result
