"""From probabilities to decisions: thresholds per label, no answer, and sets that contain the label.

All numbers come from held-out examples and are stated in `config.json`, from which every caller reads them.
Probabilities are [examples, labels]; labels are [examples] class ids, or [examples, labels] of 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pocketbert.families.config import PreTrainedConfig

Floats = NDArray[np.floating[Any]]

#: Shares of answered texts, and coverages of sets, for which `config.json` states thresholds.
LEVELS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)

#: What `config.json` states about decisions, which belongs to one head and its labels.
DECISION_KEYS = ("calibration", "thresholds")

ENOUGH_FOR_THRESHOLD = 10  # examples with a label, and texts that get it, for a threshold of its own


def without_decisions(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration for another head."""
    extra = {key: value for key, value in config.extra.items() if key not in DECISION_KEYS}
    return config if len(extra) == len(config.extra) else config.replace(extra=extra)


# ── fitted to held-out examples ──


def confidences_of_shares(probabilities: Floats) -> dict[str, float]:
    """Share of texts → the confidence that so many of them reach."""
    confidence = probabilities.max(axis=1)
    return {f"{level:g}": float(np.quantile(confidence, 1 - level, method="lower")) for level in LEVELS}


def probabilities_of_coverages(probabilities: Floats, gold: NDArray[Any]) -> dict[str, float]:
    """Coverage → the probability from which on a class belongs to the set (split conformal prediction).

    Of n + 1 examples in any order, the right class of the last one reaches it with at least that chance. It is 0, which
    all classes reach, where there are too few examples for a coverage.
    """
    right = np.sort(probabilities[np.arange(len(gold)), gold])[::-1]
    least = {}
    for level in LEVELS:
        rank = math.ceil((len(right) + 1) * level - 1e-9)
        least[f"{level:g}"] = float(right[rank - 1]) if rank <= len(right) else 0.0
    return least


def read_goal(goal: str) -> float | None:
    """Return the precision that thresholds are for; None for the best F1. Raises `ConfigError` for anything else."""
    if goal == "f1":
        return None
    try:
        precision = float(goal)
    except ValueError:
        precision = math.nan
    if not 0 < precision < 1:
        raise ConfigError(f"--thresholds {goal} must be f1, or a precision between 0 and 1 such as 0.95")
    return precision


def fit_thresholds(probabilities: Floats, gold: NDArray[Any], goal: str) -> list[float | None]:
    """Return the probability from which on a text has each label; None: it never has it.

    For F1 the threshold of the best one; for a precision the least threshold from which on so many texts are right, of
    which there must be some. A label with too few examples keeps 0.5.
    """
    precision = read_goal(goal)
    return [_threshold(probabilities[:, i], gold[:, i], precision) for i in range(gold.shape[1])]


def _threshold(scores: Floats, gold: NDArray[Any], precision: float | None) -> float | None:
    if gold.sum() < ENOUGH_FOR_THRESHOLD:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(gold[order])
    proposed = np.arange(1, len(ranked) + 1)
    possible = np.append(ranked[:-1] > ranked[1:], True)  # no threshold parts equal scores
    if precision is None:
        merit = np.where(possible, 2 * hits / (proposed + gold.sum()), -1.0)
        last = int(merit.argmax())
    else:
        reached = np.flatnonzero(possible & (hits / proposed >= precision) & (proposed >= ENOUGH_FOR_THRESHOLD))
        if not len(reached):
            return None
        last = int(reached[-1])
    below = float(ranked[last + 1]) if last + 1 < len(ranked) else 0.0
    return (float(ranked[last]) + below) / 2


def risk_coverage(probabilities: Floats, gold: NDArray[Any]) -> list[tuple[float, float, float]]:
    """(share of texts that are answered, least confidence of these, fraction of them that is right), by twentieths."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == gold
    order = np.argsort(-confidence, kind="stable")
    rows = []
    for twentieth in range(1, 21):
        count = max(1, round(len(order) * twentieth / 20))
        rows.append((twentieth / 20, float(confidence[order[count - 1]]), float(right[order[:count]].mean())))
    return rows


# ── asked for ──


def stated_thresholds(config: PreTrainedConfig) -> tuple[float | None, ...] | None:
    """Return the thresholds that `config.json` states, in the order of the labels; None without them."""
    stated = config.extra.get("thresholds")
    if stated is None:
        return None
    valid = isinstance(stated, Mapping) and all(
        value is None or (isinstance(value, int | float) and 0 <= value <= 1) for value in stated.values()
    )
    if not valid or set(stated) != set(config.id2label.values()):
        raise ConfigError("thresholds in config.json must give each label a number from 0 to 1, or null")
    return tuple(stated[config.id2label[i]] for i in sorted(config.id2label))


def reached(scores: Floats, thresholds: Sequence[float | None]) -> NDArray[np.bool_]:
    """Whether the probabilities [..., labels] exceed their thresholds."""
    return np.asarray(scores > np.array([math.inf if one is None else one for one in thresholds]))


@dataclass(frozen=True)
class Rule:
    """How the probabilities of one text become an answer; without numbers the best label is it."""

    confidence: float | None = None
    """Minimum confidence of an answer."""
    member: float | None = None
    """Minimum confidence of a label in the set of an answer."""
    thresholds: tuple[float | None, ...] | None = None
    """A text has all labels that exceed theirs."""

    def __call__(self, scores: Floats, names: Mapping[int, str]) -> Any:
        """Return `{"label", "score"}`, with the label None for no answer; or a list of them, the best first."""
        ranked = [int(i) for i in np.argsort(-scores, kind="stable")]
        if self.thresholds is not None:
            chosen = reached(scores, self.thresholds)
            return [_answer(scores, i, names) for i in ranked if chosen[i]]
        if self.member is not None:
            # The best label always: a set without any would tell nothing.
            return [_answer(scores, i, names) for i in ranked if i == ranked[0] or scores[i] >= self.member]
        best = _answer(scores, ranked[0], names)
        unsure = self.confidence is not None and best["score"] < self.confidence
        return {**best, "label": None} if unsure else best


def _answer(scores: Floats, index: int, names: Mapping[int, str]) -> dict[str, Any]:
    return {"label": names[index], "score": float(scores[index])}


def make_rule(
    config: PreTrainedConfig,
    *,
    min_confidence: float | None = None,
    answer_share: float | None = None,
    conformal: float | None = None,
) -> Rule | None:
    """Return the rule that is asked for, or that of the thresholds in `config.json`; None for neither.

    Raises:
        InputError: several are asked for; a number is out of range; the model has several labels per text, or predicts
            a number; its `config.json` states nothing of the kind.
    """
    asked = {"min_confidence": min_confidence, "answer_share": answer_share, "conformal": conformal}
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        thresholds = stated_thresholds(config)
        return None if thresholds is None else Rule(thresholds=thresholds)
    if len(given) > 1:
        raise InputError(f"pass one of {', '.join(given)}")
    [(name, value)] = given.items()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name}={value!r} must be a number from 0 to 1")
    if config.num_labels < 2 or config.problem_type in ("regression", "multi_label_classification"):
        raise InputError(f"{name} is for models with exactly one label per text, which this one is not")
    if name == "min_confidence":
        return Rule(confidence=float(value))
    least = _stated(config, name, float(value))
    return Rule(confidence=least) if name == "answer_share" else Rule(member=least)


def _stated(config: PreTrainedConfig, name: str, level: float) -> float:
    """Return the threshold for a level that `config.json` states."""
    calibration = config.extra.get("calibration")
    levels = calibration.get(name) if isinstance(calibration, Mapping) else None
    if not isinstance(levels, Mapping):
        raise InputError(
            f"{name} needs statistics of held-out examples, which finetune and distill write to config.json if "
            f"there are enough; this model has none (min_confidence works without them)"
        )
    least = levels.get(f"{level:g}")
    if not isinstance(least, int | float):
        raise InputError(f"{name}={level:g} must be one of {', '.join(levels)}")
    return float(least)
