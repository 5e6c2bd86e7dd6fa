"""Labels that look wrong: confident learning (Northcutt and others 2021) on out-of-sample probabilities.

Where a model is as sure of a label as it usually is of texts that have it, its label counts as the true one. The share
of these rows with another label, for each label, is the share of labels that are wrong; so many rows are named, those
first to which another label fits better by the largest margin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Suspect(NamedTuple):
    """A row whose label looks wrong."""

    row: int
    given: int
    """The label; of several, the one in question."""
    other: int
    """The more probable label; of several, the same one: the row seems to have it, or not to."""
    margin: float
    """Probability of the other label less that of the given one."""


def suspects(probabilities: npt.NDArray[np.floating], gold: npt.NDArray[np.integer]) -> list[Suspect]:
    """Return the rows whose class looks wrong, the surest first.

    Args:
        probabilities: [n, classes], of each row by a model that was fitted without it.
        gold: [n] class ids.
    """
    classes = probabilities.shape[1]
    rows, counts = np.arange(len(gold)), np.bincount(gold, minlength=classes)
    usual = np.array([probabilities[gold == i, i].mean() if counts[i] else np.inf for i in range(classes)])
    sure = np.where(probabilities >= usual, probabilities, -1.0)
    joint = np.zeros((classes, classes))  # [label, label that the model is sure of], of the rows where it is of any
    told = sure.max(axis=1) >= 0
    np.add.at(joint, (gold[told], sure[told].argmax(axis=1)), 1)
    share = 1 - np.diag(joint) / np.maximum(joint.sum(axis=1), 1)
    wrong = np.where(joint.sum(axis=1) > 0, np.rint(share * counts), 0).astype(int)  # estimated, of each label
    others = probabilities.copy()
    others[rows, gold] = -1.0
    other = others.argmax(axis=1)
    margins = others.max(axis=1) - probabilities[rows, gold]
    found = []
    for label in range(classes):
        own = np.flatnonzero((gold == label) & (margins > 0))
        for row in own[np.argsort(-margins[own], kind="stable")][: wrong[label]]:
            found.append(Suspect(int(row), label, int(other[row]), float(margins[row])))
    return sorted(found, key=lambda suspect: (-suspect.margin, suspect.row))


def suspects_of_several(probabilities: npt.NDArray[np.floating], gold: npt.NDArray[np.integer]) -> list[Suspect]:
    """Return the labels of rows that look wrong, the surest first; `gold` is [n, labels] of 0 and 1."""
    found = []
    for label in range(gold.shape[1]):
        two = np.stack([1 - probabilities[:, label], probabilities[:, label]], axis=1)
        found += [one._replace(given=label, other=label) for one in suspects(two, gold[:, label])]
    return sorted(found, key=lambda suspect: (-suspect.margin, suspect.row))
