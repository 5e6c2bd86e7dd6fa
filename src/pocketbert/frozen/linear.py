"""Regularised linear heads: logistic regression of classes and of several labels, ridge regression of numbers.

The strength of regularisation is chosen by cross-validation on the examples themselves. Vectors are centred and scaled
by one number, which is folded into weights and bias, so that a head reads vectors as they are.

Shapes: n examples, H numbers of a vector, L labels (1 of a number).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pocketbert.data.batches import random_order
from pocketbert.decode import sigmoid, softmax
from pocketbert.frozen.minimize import minimize

Floats = npt.NDArray[np.floating]
Wide = npt.NDArray[np.float64]
Groups = Sequence[int] | npt.NDArray[np.integer]

CLASSES, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"
STRENGTHS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""What cross-validation chooses from: scikit-learn's `C`, the inverse of the penalty on weights."""
USUAL = 1.0
FOLDS = 5
_TEMPERATURES = tuple(np.geomspace(0.02, 5.0, 60).tolist())
_MOST_CHOSEN_ON = 2000  # examples that a strength is chosen on; with more it hardly changes


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear head: logits = vectors · weightᵀ + bias.

    Attributes:
        weight: [L, H].
        bias: [L].
        problem: `problem_type` of a configuration: `CLASSES`, `SEVERAL` or `NUMBER`.
        strength: of the regularisation, one of `STRENGTHS`, or what the caller gave.
    """

    weight: Wide
    bias: Wide
    problem: str
    strength: float

    def logits(self, vectors: Floats) -> Wide:
        """[n, L] from [n, H]; of a number, the number itself."""
        return vectors.astype(np.float64) @ self.weight.T + self.bias

    def divided(self, temperatures: Sequence[float]) -> LinearHead:
        """The head with its logits divided by temperatures, of all labels or of each."""
        by = np.array(temperatures)
        return replace(self, weight=self.weight / by.reshape(-1, 1), bias=self.bias / by)

    def probabilities(self, vectors: Floats) -> Wide:
        """[n, L] probabilities, which of classes add up to 1."""
        return probabilities(self.logits(vectors), self.problem)


def probabilities(logits: Floats, problem: str) -> Wide:
    """[n, L] probabilities from logits; numbers stay as they are."""
    if problem == NUMBER:
        return logits.astype(np.float64)
    return (softmax(logits) if problem == CLASSES else sigmoid(logits)).astype(np.float64)


def fit_head(
    vectors: Floats,
    targets: npt.NDArray[np.generic],
    problem: str,
    labels: int,
    *,
    weights: Floats | None = None,
    strength: float | None = None,
    seed: int = 42,
) -> LinearHead:
    """Fit a head to vectors.

    Args:
        vectors: [n, H].
        targets: [n] class ids, [n, L] of 0 and 1 for several labels, or [n] numbers.
        problem: `CLASSES`, `SEVERAL` or `NUMBER`.
        labels: L.
        weights: [n] of the examples, all alike by default; only their ratios count.
        strength: inverse of the penalty on weights; by default chosen by cross-validation from `STRENGTHS`.
        seed: of the folds.
    """
    fit = _Fit(vectors, targets, problem, labels, weights)
    temperature = 1.0
    if strength is None:
        strength, temperature = _choose(fit, seed)
    return fit.head(fit.solve(np.arange(len(vectors)), strength), strength, temperature)


def out_of_sample(
    vectors: Floats,
    targets: npt.NDArray[np.generic],
    problem: str,
    labels: int,
    *,
    weights: Floats | None = None,
    strength: float | None = None,
    seed: int = 42,
    groups: Groups | None = None,
) -> Wide:
    """Logits [n, L] of every example, by a head that was fitted without it.

    Args:
        vectors: as of `fit_head`, and so all others but the last.
        targets: of the examples.
        problem: of the targets.
        labels: L.
        weights: of the examples.
        strength: of the regularisation.
        seed: of the folds.
        groups: [n]; examples of a group are in one fold, such as duplicates, whose labels would be known otherwise.
    """
    fit = _Fit(vectors, targets, problem, labels, weights)
    temperature = 1.0
    if strength is None:
        strength, temperature = _choose(fit, seed)
    logits = np.empty((len(vectors), labels))
    for inside, outside in folds(targets, problem, seed, groups):
        head = fit.head(fit.solve(inside, strength), strength, temperature)
        logits[outside] = head.logits(vectors[outside])
    return logits


def _choose(fit: _Fit, seed: int) -> tuple[float, float]:
    """The strength, and the temperature to divide logits by, with the least loss on examples that were left out.

    A strong penalty often points best where examples are few, and leaves logits too small; so each strength is judged
    at its best temperature. `USUAL` stays unless another is better by more than the standard error of their difference.
    """
    chosen = random_order(seed, "strength", 0, len(fit.rows))[:_MOST_CHOSEN_ON]
    # The penalty counts against the sum over all examples, also where fewer are looked at.
    share = len(chosen) / len(fit.rows)
    parts = folds(fit.written[chosen], fit.problem, seed)
    solutions: list[Wide | None] = [None] * len(parts)
    temperatures = (1.0,) if fit.problem == NUMBER else _TEMPERATURES
    places, best = list[int](), list[Wide]()  # of each strength: its best temperature, and the losses of examples
    for strength in STRENGTHS:
        logits = np.zeros((len(chosen), fit.labels))
        for i, (inside, outside) in enumerate(parts):
            solutions[i] = solution = fit.solve(chosen[inside], strength / share, solutions[i])
            logits[outside] = fit.rows[chosen[outside]] @ solution[:-1] + solution[-1]
        losses = [fit.losses(chosen, logits / by) for by in temperatures]
        places.append(int(np.argmin([one.sum() for one in losses])))
        best.append(losses[places[-1]])
        totals = [float(one.sum()) for one in best]
        if strength > USUAL and min(totals[-2:]) > min(totals):
            break  # weaker penalties, which take the most steps, only make it worse
    usual, least = STRENGTHS.index(USUAL), int(np.argmin(totals))
    gain = best[usual] - best[least]
    found = least if gain.mean() > gain.std() / np.sqrt(len(gain)) else usual
    return STRENGTHS[found], temperatures[places[found]]


def folds(
    targets: npt.NDArray[np.generic], problem: str, seed: int, groups: Groups | None = None
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Indices inside and outside of each of `FOLDS` folds, over which classes are spread evenly."""
    order = random_order(seed, "folds", 0, len(targets))
    own = np.arange(len(targets)) if groups is None else np.asarray(groups)
    _, first, member = np.unique(own[order], return_index=True, return_inverse=True)  # the first example of each group
    kinds = targets[order[first]].astype(np.int64) if problem == CLASSES else np.zeros(len(first), dtype=np.int64)
    of_group = np.empty(len(first), dtype=np.int64)
    for kind in np.unique(kinds):  # each class begins with the first fold, so that all folds have alike shares
        groups_of = np.flatnonzero(kinds == kind)
        of_group[groups_of[np.argsort(first[groups_of])]] = np.arange(len(groups_of)) % FOLDS
    fold = np.empty(len(targets), dtype=np.int64)
    fold[order] = of_group[member]
    every = np.arange(len(targets))
    parts = [(every[fold != one], every[fold == one]) for one in range(FOLDS)]
    return [(inside, outside) for inside, outside in parts if len(inside) and len(outside)]


class _Fit:
    """Examples in the coordinates in which heads are fitted: centred, scaled, and rotated to as few as span them."""

    def __init__(
        self, vectors: Floats, targets: npt.NDArray[np.generic], problem: str, labels: int, weights: Floats | None
    ) -> None:
        wide = vectors.astype(np.float64)
        self.problem, self.labels, self.written = problem, labels, targets
        self.centre = wide.mean(axis=0)
        wide -= self.centre
        self.scale = float(np.sqrt((wide * wide).sum(axis=1).mean())) or 1.0
        wide /= self.scale
        # A rotation changes neither products nor the penalty; few vectors span few dimensions.
        self.axes = np.linalg.qr(wide.T)[0] if len(wide) < wide.shape[1] else np.eye(wide.shape[1])
        self.rows = wide @ self.axes  # [n, rank]
        self.weights = np.ones(len(wide)) if weights is None else weights / weights.mean()
        if problem == CLASSES:
            self.targets = np.zeros((len(wide), labels))
            self.targets[np.arange(len(wide)), targets.astype(np.int64)] = 1.0
            self.middle, self.spread = np.zeros(labels), 1.0
        else:
            self.targets = targets.astype(np.float64).reshape(len(wide), labels)
            is_number = problem == NUMBER
            self.middle = self.targets.mean(axis=0) if is_number else np.zeros(labels)
            self.spread = float(self.targets.std()) or 1.0 if is_number else 1.0
            self.targets = (self.targets - self.middle) / self.spread

    def solve(self, chosen: npt.NDArray[np.int64], strength: float, start: Wide | None = None) -> Wide:
        """[rank + 1, L] weights and, in the last row, biases of a head for the examples `chosen`."""
        rows, targets, weights = self.rows[chosen], self.targets[chosen], self.weights[chosen]
        total, loss = float(weights.sum()) or 1.0, _LOSSES[self.problem]
        shape = rows.shape[1] + 1, self.labels

        def function(flat: Wide) -> tuple[float, Wide]:
            point = flat.reshape(shape)
            losses, slopes = loss(rows @ point[:-1] + point[-1], targets)
            slopes *= weights[:, None]
            penalty = float((point[:-1] ** 2).sum()) / (2 * strength)
            slope = np.concatenate([rows.T @ slopes + point[:-1] / strength, slopes.sum(axis=0, keepdims=True)])
            return (float(losses @ weights) + penalty) / total, slope.ravel() / total

        return minimize(function, np.zeros(shape).ravel() if start is None else start.ravel()).reshape(shape)

    def losses(self, chosen: npt.NDArray[np.int64], logits: Wide) -> Wide:
        """The loss of each example with these logits, times its weight.

        Targets of 0 and 1 are drawn together as if each class had one more example (Platt 1999): without that, a few
        examples that are all right would ask for a temperature of 0.
        """
        targets, classes = self.targets[chosen], 2 if self.problem == SEVERAL else self.labels
        if self.problem != NUMBER:
            share = classes / (len(chosen) + classes)
            targets = (1 - share) * targets + share / classes
        losses, _ = _LOSSES[self.problem](logits, targets)
        return losses * self.weights[chosen]

    def head(self, solution: Wide, strength: float, temperature: float) -> LinearHead:
        """The head for vectors as they are, with logits divided by a temperature."""
        solution = solution / temperature
        weight = self.spread * (self.axes @ solution[:-1]).T / self.scale
        bias = self.spread * solution[-1] + self.middle - weight @ self.centre
        return LinearHead(weight, bias, self.problem, strength)


def _cross_entropy(logits: Wide, targets: Wide) -> tuple[Wide, Wide]:
    largest = logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits - largest)
    sums = exponentials.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0]) + largest[:, 0] - (logits * targets).sum(axis=1)
    return losses, exponentials / sums - targets


def _binary(logits: Wide, targets: Wide) -> tuple[Wide, Wide]:
    losses = (np.logaddexp(0.0, logits) - logits * targets).sum(axis=1)
    return losses, sigmoid(logits) - targets


def _squared(logits: Wide, targets: Wide) -> tuple[Wide, Wide]:
    difference = logits - targets
    return 0.5 * (difference**2).sum(axis=1), difference


#: Problem → the losses [n] of logits [n, L] against targets [n, L], and their derivatives [n, L].
_LOSSES: dict[str, Callable[[Wide, Wide], tuple[Wide, Wide]]] = {
    CLASSES: _cross_entropy, SEVERAL: _binary, NUMBER: _squared,
}  # fmt: skip
