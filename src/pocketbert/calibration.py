"""Calibration of classifiers: temperatures, and how far probabilities are from the frequencies they stand for.

Logits are [examples, labels]. Labels are [examples] class ids, or [examples, labels] of 0 and 1 where a text may have
several. All numbers are fitted on held-out examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.decode import sigmoid, softmax
from pocketbert.metrics import Scores, brier_loss, calibration_error, mass_bins

Floats = NDArray[np.floating[Any]]
Gold = NDArray[Any]

#: Fewer held-out examples give no temperature.
ENOUGH = 50
#: Fewer examples with a label, or without it, give the label none where a text may have several.
ENOUGH_PER_LABEL = 10

_FOLDS = 5
_LIMIT = 20.0  # of a temperature, and of its inverse
_DRAWS = 1000


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence."""

    confidence: float
    """Mean probability."""
    right: float
    """Fraction that was right."""
    count: int


@dataclass(frozen=True)
class Quality:
    """How good probabilities are on held-out examples."""

    calibration_error: float
    """Mean difference of confidence and accuracy, over bins of equal mass."""
    brier_loss: float
    log_loss: float
    bins: tuple[Bin, ...]

    def scores(self) -> Scores:
        """Return the three numbers."""
        return {
            "calibration_error": self.calibration_error,
            "brier_loss": self.brier_loss,
            "log_loss": self.log_loss,
        }


@dataclass(frozen=True)
class Calibration:
    """The temperatures of a classifier, and what they change."""

    temperatures: tuple[float, ...]
    """One for all classes; one per label where a text may have several."""
    several: bool
    """Whether a text may have several labels."""
    examples: int
    before: Quality
    after: Quality
    """Cross-fitted: each example is judged by temperatures that were fitted on the others."""
    chance: float
    """95th percentile of the calibration error of perfect probabilities in evaluations of this size."""
    kept: tuple[tuple[int, str], ...] = ()
    """Labels whose temperature stays 1, with the reason; (-1, reason) if it is that of all classes."""

    @property
    def changes(self) -> bool:
        """Whether a temperature differs from 1."""
        return any(temperature != 1.0 for temperature in self.temperatures)


def calibrate(logits: NDArray[Any], gold: Gold) -> Calibration:
    """Fit temperatures to held-out logits.

    A temperature is left at 1 where there are too few examples, or where it does not lower the cross-fitted log loss.
    Positive factors change neither the order of classes nor the sign of a logit: every prediction stays.
    """
    wide, several = logits.astype(np.float64), gold.ndim == 2
    columns = [(wide[:, i], gold[:, i]) for i in range(wide.shape[1])] if several else [(wide, gold)]
    temperatures, crossed, kept = [], [], []
    for index, (column, answers) in enumerate(columns):
        reason = _too_few(answers, several=several)
        fitted = column if reason else _cross_fitted(column, answers)
        if reason is None and not _log_loss(fitted, answers) < _log_loss(column, answers):
            reason, fitted = "no temperature lowers the log loss", column
        temperatures.append(1.0 if reason else fit_temperature(column, answers))
        crossed.append(fitted)
        if reason:
            kept.append((index if several else -1, reason))
    after = np.stack(crossed, axis=1) if several else crossed[0]
    _, confidence, _ = judged(after, gold)
    chance = chance_error(confidence)
    return Calibration(
        temperatures=tuple(temperatures),
        several=several,
        examples=len(gold),
        before=quality(wide, gold),
        after=quality(after, gold),
        chance=chance,
        kept=tuple(kept),
    )


def _too_few(gold: Gold, *, several: bool) -> str | None:
    if len(gold) < ENOUGH:
        return f"{len(gold)} held-out examples are too few to fit a temperature ({ENOUGH} are needed)"
    if several:
        rare = int(min(gold.sum(), len(gold) - gold.sum()))
        if rare < ENOUGH_PER_LABEL:
            return f"{rare} held-out examples of one label are too few ({ENOUGH_PER_LABEL} are needed)"
    return None


def fit_temperature(logits: NDArray[Any], gold: Gold) -> float:
    """Return the temperature with the least log loss of [n, classes] logits, or of the [n] logits of one label.

    The labels are smoothed as Platt (1999) does, so that a model without an error does not become certain.
    """
    wide, targets = logits.astype(np.float64), _smoothed(logits.shape, gold)
    # The loss is convex in the inverse temperature, so its slope has one zero.
    low, high = np.log(1 / _LIMIT), np.log(_LIMIT)
    for _ in range(40):
        middle = (low + high) / 2
        factor = np.exp(middle)
        shares = sigmoid(factor * wide) if wide.ndim == 1 else softmax(factor * wide)
        slope = float(((shares - targets) * wide).sum())
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def _smoothed(shape: tuple[int, ...], gold: Gold) -> Floats:
    """Return the targets of [n, classes] or [n] logits."""
    if len(shape) == 1:
        positive = gold.astype(bool)
        above, below = (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2)
        return np.where(positive, above, below)
    spread = 1 / (len(gold) + 2)
    targets = np.full(shape, spread / (shape[1] - 1))
    targets[np.arange(len(gold)), gold] = 1 - spread
    return targets


def _cross_fitted(logits: Floats, gold: Gold) -> Floats:
    """Divide each logit by a temperature that was fitted without its fold."""
    result, fold = np.empty_like(logits), np.arange(len(gold)) % _FOLDS
    for number in range(_FOLDS):
        held = fold == number
        result[held] = logits[held] / fit_temperature(logits[~held], gold[~held])
    return result


def _log_loss(logits: Floats, gold: Gold) -> float:
    if logits.ndim == 1 or gold.ndim == 2:
        return float(np.mean(np.logaddexp(0.0, logits) - logits * gold))
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(gold)), gold]))


def quality(logits: NDArray[Any], gold: Gold) -> Quality:
    """Return how good the probabilities of logits are."""
    wide = logits.astype(np.float64)
    shares, confidence, right = judged(wide, gold)
    bins = tuple(
        Bin(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in mass_bins(confidence)
    )
    return Quality(calibration_error(confidence, right), brier_loss(shares, gold), _log_loss(wide, gold), bins)


def judged(logits: NDArray[Any], gold: Gold) -> tuple[Floats, Floats, Floats]:
    """Return all probabilities; the confidence of each decision, and whether it was right.

    A decision is the best class of an example; where it may have several labels, whether it has each of them.
    """
    if gold.ndim == 2:
        shares = sigmoid(logits.astype(np.float64))
        return shares, shares.ravel(), gold.ravel().astype(np.float64)
    shares = softmax(logits.astype(np.float64))
    return shares, shares.max(axis=1), (shares.argmax(axis=1) == gold).astype(np.float64)


def chance_error(confidence: NDArray[Any]) -> float:
    """Return the calibration error below which perfect probabilities stay in 95 % of draws of their outcomes."""
    rng, total = np.random.default_rng(0), np.zeros(_DRAWS)
    for part in mass_bins(confidence):
        values = confidence[part].astype(np.float64)
        # The number of successes of many small chances is nearly normal.
        deviation = np.sqrt((values * (1 - values)).sum())
        total += np.abs(rng.normal(0.0, 1.0, _DRAWS)) * deviation
    return float(np.quantile(total / len(confidence), 0.95))


def described(calibration: Calibration, names: Sequence[str], *, short: bool = False) -> dict[str, Any]:
    """Return a calibration as JSON; the short form, without bins, is for `config.json`."""
    temperature: Any = calibration.temperatures[0]
    if calibration.several:
        temperature = dict(zip(names, calibration.temperatures, strict=True))
    facts: dict[str, Any] = {"temperature": temperature, "examples": calibration.examples}
    if short:
        return facts
    qualities = {"before": calibration.before, "after": calibration.after}
    return {
        **facts,
        **{
            name: {**one.scores(), "bins": [[b.confidence, b.right, b.count] for b in one.bins]}
            for name, one in qualities.items()
        },
        "chance": calibration.chance,
        "kept": [f"{names[index]}: {reason}" if index >= 0 else reason for index, reason in calibration.kept],
    }


def in_words(record: Mapping[str, Any], *, examples: str = "dev examples") -> str:
    """Return a line for the log.

    Args:
        record: as of `described`, with `thresholds`: label → threshold, or None.
        examples: what it was fitted to.
    """
    temperature, kept = record["temperature"], record["kept"]
    before, after = record["before"], record["after"]
    if temperature == 1.0:
        return f"calibration: the temperature stays 1: {kept[0]}{_never(record)}"
    if before == after:  # of several labels, none has a temperature
        return f"calibration: the temperatures stay 1: {'; '.join(kept[:3])}{_never(record)}"
    numbers = ", ".join(
        f"{name.replace('_', ' ')} {before[name]:.3f} → {after[name]:.3f}"
        for name in ("calibration_error", "brier_loss", "log_loss")
    )
    if isinstance(temperature, dict):
        fitted = sum(value != 1.0 for value in temperature.values())
        shown = f"a temperature for {fitted} of {len(temperature)} labels"
    else:
        shown = f"temperature {temperature:.3g}"
    return f"calibration: {shown}, fitted on {record['examples']:,} {examples}; {numbers}{_never(record)}"


def _never(record: Mapping[str, Any]) -> str:
    """Return a note on labels for which no threshold reaches the precision that was asked for."""
    names = [name for name, threshold in (record["thresholds"] or {}).items() if threshold is None]
    return f"; no threshold is precise enough for {', '.join(names)}: no text gets it" if names else ""
