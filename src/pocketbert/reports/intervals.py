"""How sure metrics are: bootstrap intervals, and McNemar's test of two models on the same examples.

A resample of n examples is a row of counts: how often each example is in it. All metrics of all resamples follow from
products of these counts with columns of outcomes, so nothing is scored a thousand times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.tasks.outcomes import Outcomes

Floats = NDArray[np.float64]
Scored = dict[str, Floats]

LEVEL = 0.95
_DRAWS, _FEWEST_DRAWS = 1000, 200
_DRAWN = 20_000_000  # examples in all resamples together: more of them take seconds
_CELLS = 1 << 22  # counts in memory at a time


def draws(examples: int) -> int:
    """Return the number of resamples: 1,000, and 200 at least where examples are many."""
    return min(_DRAWS, max(_FEWEST_DRAWS, _DRAWN // examples))


def counts(examples: int, seed: int = 0) -> Iterator[Floats]:
    """Yield the counts of all resamples, [draws, examples] at a time."""
    rng = np.random.default_rng(seed)
    step, total = max(1, _CELLS // examples), draws(examples)
    for start in range(0, total, step):
        rows = min(step, total - start)
        drawn = rng.integers(0, examples, (rows, examples)) + examples * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * examples).reshape(rows, examples).astype(np.float64)


def resampled(outcomes: Outcomes) -> Scored:
    """Return metric → [draws] values in resamples, of the metrics that follow from columns.

    The F1 of the class `name` is "f1 of name".
    """
    return _joined(scored(outcomes, part) for part in counts(len(outcomes)))


def resampled_both(first: Outcomes, second: Outcomes) -> tuple[Scored, Scored]:
    """Return the metrics of two models in the same resamples of the same examples."""
    parts = [(scored(first, part), scored(second, part)) for part in counts(len(first))]
    return _joined(one for one, _ in parts), _joined(one for _, one in parts)


def _joined(parts: Iterator[Scored]) -> Scored:
    listed = list(parts)
    return {name: np.concatenate([part[name] for part in listed]) for name in listed[0]}


def interval(values: Floats) -> tuple[float, float]:
    """Return the central 95 % of [draws] values."""
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(outcomes: Outcomes, values: Scored) -> dict[str, tuple[float, float]]:
    """Return metric → limits.

    Where all examples are right, or none, every resample agrees: the limit of the accuracy is then that of the binomial
    distribution.
    """
    found = {name: interval(one) for name, one in values.items() if np.isfinite(one).any()}
    for name in ("accuracy", "exact_match"):
        if name in found and "right" in outcomes.columns and found[name][0] == found[name][1]:
            edge = ((1 - LEVEL) / 2) ** (1 / len(outcomes))
            found[name] = (edge, 1.0) if found[name][0] == 1.0 else (0.0, 1 - edge)
    return found


# ── metrics from counts ──


def scored(outcomes: Outcomes, weights: Floats) -> Scored:
    """Return metric → [draws] values for [draws, examples] counts."""
    return _SCORERS[outcomes.kind](outcomes, weights)


def _mean(outcomes: Outcomes, weights: Floats, column: str) -> Floats:
    return np.asarray(weights @ outcomes.array(column) / weights.sum(axis=1))


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below != 0))


def _of_classes(outcomes: Outcomes, weights: Floats) -> Scored:
    everyone = np.eye(len(outcomes.labels))
    gold, predicted = (everyone[outcomes.columns[name]] for name in ("gold", "predicted"))
    hits, proposed, actual = (weights @ one for one in (gold * predicted, predicted, gold))
    each = _ratio(2 * hits, proposed + actual)
    total, right = weights.sum(axis=1), hits.sum(axis=1)
    spread = (total**2 - (proposed**2).sum(axis=1)) * (total**2 - (actual**2).sum(axis=1))
    result = {
        "accuracy": right / total,
        "macro_f1": _ratio(each.sum(axis=1), ((proposed + actual) > 0).sum(axis=1).astype(np.float64)),
        "matthews_correlation": _ratio(total * right - (proposed * actual).sum(axis=1), np.sqrt(spread)),
        "loss": _mean(outcomes, weights, "loss"),
        "brier_loss": _mean(outcomes, weights, "brier"),
    }
    if outcomes.positive is not None:
        result["f1"] = each[:, outcomes.positive]
    return result | _named(outcomes, each)


def _of_several(outcomes: Outcomes, weights: Floats) -> Scored:
    sides = []
    for name in ("gold", "predicted"):
        side = np.zeros((len(outcomes), len(outcomes.labels)))
        for row, labels in enumerate(outcomes.columns[name]):
            side[row, labels] = 1.0
        sides.append(side)
    gold, predicted = sides
    hits, both = weights @ (gold * predicted), weights @ (gold + predicted)
    each = _ratio(2 * hits, both)
    return {
        "micro_f1": _ratio(2 * hits.sum(axis=1), both.sum(axis=1)),
        "macro_f1": each.mean(axis=1),
        "accuracy": _mean(outcomes, weights, "right"),
        "loss": _mean(outcomes, weights, "loss"),
        "brier_loss": _mean(outcomes, weights, "brier"),
    } | _named(outcomes, each)


def _named(outcomes: Outcomes, each: Floats) -> Scored:
    return {f"f1 of {name}": each[:, i] for i, name in enumerate(outcomes.labels)}


def _of_numbers(outcomes: Outcomes, weights: Floats) -> Scored:
    gold, predicted = outcomes.array("gold"), outcomes.array("predicted")
    return {
        "pearson": _correlation(weights, *(np.broadcast_to(one, weights.shape) for one in (predicted, gold))),
        "spearman": _correlation(weights, _ranks(weights, predicted), _ranks(weights, gold)),
        "loss": weights @ ((predicted - gold) ** 2) / weights.sum(axis=1),
    }


def _ranks(weights: Floats, values: Floats) -> Floats:
    """Return the ranks of values in each resample, [draws, examples]: equal values share the mean of their ranks."""
    _, which, number = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    copies = np.add.reduceat(weights[:, order], np.cumsum(number) - number, axis=1)  # [draws, values]
    return np.asarray((np.cumsum(copies, axis=1) - (copies - 1) / 2)[:, which])


def _correlation(weights: Floats, x: Floats, y: Floats) -> Floats:
    total = weights.sum(axis=1, keepdims=True)
    x, y = (one - (weights * one).sum(axis=1, keepdims=True) / total for one in (x, y))
    above = (weights * x * y).sum(axis=1)
    return _ratio(above, np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1)))


def _of_tags(outcomes: Outcomes, weights: Floats) -> Scored:
    totals = {name: weights @ outcomes.array(name) for name in outcomes.columns}
    return {
        "f1": _ratio(2 * totals["hits"], totals["proposed"] + totals["actual"]),
        "precision": _ratio(totals["hits"], totals["proposed"]),
        "recall": _ratio(totals["hits"], totals["actual"]),
        "accuracy": _ratio(totals["right_words"], totals["words"]),
        "loss": _ratio(totals["loss"], totals["losses"]),
    }


def _of_answers(outcomes: Outcomes, weights: Floats) -> Scored:
    result = {"f1": _mean(outcomes, weights, "f1"), "exact_match": _mean(outcomes, weights, "right")}
    answerable = outcomes.array("answerable")
    for name, chosen in (("has_answer_f1", answerable), ("no_answer_f1", 1 - answerable)):
        result[name] = _ratio(weights @ (chosen * outcomes.array("f1")), weights @ chosen)
    return result


def _of_choices(outcomes: Outcomes, weights: Floats) -> Scored:
    return {"accuracy": _mean(outcomes, weights, "right"), "loss": _mean(outcomes, weights, "loss")}


_SCORERS: dict[str, Callable[[Outcomes, Floats], Scored]] = {
    "classes": _of_classes,
    "several": _of_several,
    "numbers": _of_numbers,
    "tags": _of_tags,
    "answers": _of_answers,
    "choices": _of_choices,
}


# ── two models ──


def mcnemar(first: Any, second: Any) -> tuple[int, int, float]:
    """Return how many examples only the first model has right, how many only the second, and the p-value.

    The exact test of McNemar (1947): if the models were equally good, each of these examples would be right in either
    with the same chance, so the smaller number is binomial.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    total, fewer = only_first + only_second, min(only_first, only_second)
    log_chance = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(fewer + 1)
    ]
    return only_first, only_second, min(1.0, 2 * math.fsum(math.exp(value) for value in log_chance))
