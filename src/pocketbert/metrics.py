"""Scores: accuracy, F1, correlations, SQuAD, entities. Fractions from 0 to 1 (correlations from -1 to 1), plain floats.

NumPy only, and equal to scikit-learn, scipy, seqeval and the official SQuAD scripts wherever those give a number. Where
they give none (a constant input has no correlation) the score is 0.0: constant predictions are worth nothing, and a
training run can compare 0.0 but not NaN.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pocketbert.errors import InputError
from pocketbert.tags import chunks
from pocketbert.words import bare_words, is_right_to_left, is_unspaced

Scores = dict[str, float]
Metrics = Mapping[str, float]
LARGEST_LOSS = 0.01  # of the deciding metric, that int8 may cost


def _paired(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as arrays of one shape. [n, 1] against [n] would broadcast to [n, n] and score nonsense: refused."""
    predicted, gold = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != gold.shape:
        raise InputError(f"{predicted.shape} predictions cannot be scored against {gold.shape} labels: shapes differ")
    if gold.size == 0:
        raise InputError("no labels to score against")
    return predicted, gold


# ── classes ──


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples that are right: [n] classes, or [n, classes] of 0 and 1 where the whole row must agree."""
    predicted, gold = _paired(predictions, labels)
    return float(np.all((predicted == gold).reshape(len(gold), -1), axis=1).mean())


def f1(predictions: ArrayLike, labels: ArrayLike, average: str = "binary") -> float:
    """F1 of [n] classes or of [n, classes] of 0 and 1.

    "binary" is the F1 of class 1, "macro" the mean over the classes that occur, "micro" counts all classes together.
    A class without predictions and without labels scores 0.
    """
    predicted, gold = _paired(predictions, labels)
    if average not in ("binary", "macro", "micro"):
        raise InputError(f"average={average!r} must be 'binary', 'macro' or 'micro'")
    if gold.ndim == 1:
        classes = np.array([1]) if average == "binary" else np.union1d(predicted, gold)
        predicted, gold = predicted[:, None] == classes, gold[:, None] == classes
    elif average == "binary":
        raise InputError("average='binary' needs one class per example: choose 'macro' or 'micro' for several")
    predicted, gold = predicted.astype(bool), gold.astype(bool)
    hits, proposed, actual = (x.sum(axis=0).astype(float) for x in (predicted & gold, predicted, gold))
    if average == "micro":
        hits, proposed, actual = (x.sum(keepdims=True) for x in (hits, proposed, actual))
    return float(_ratio(2 * hits, proposed + actual).mean())


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[Any]:
    """`above / below`, 0 where `below` is 0."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below != 0))


def matthews_correlation(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Matthews correlation of [n] classes, two or more (Gorodkin 2004); 0.0 if either side is constant."""
    predicted, gold = _paired(predictions, labels)
    classes = np.union1d(predicted, gold)
    predicted, gold = ((x[:, None] == classes).astype(float) for x in (predicted, gold))
    n = len(gold)
    proposed, actual = predicted.sum(axis=0), gold.sum(axis=0)
    spread = (n * n - proposed @ proposed) * (n * n - actual @ actual)
    return float((n * (predicted * gold).sum() - proposed @ actual) / np.sqrt(spread)) if spread else 0.0


# ── probabilities ──


def mass_bins(confidence: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Indices of [n] values in the order of their size, in at most 10 parts of equal sizes, at least 20 if possible."""
    order = np.argsort(confidence, kind="stable")
    return np.array_split(order, min(10, max(1, len(order) // 20)))


def calibration_error(confidence: ArrayLike, right: ArrayLike) -> float:
    """Mean difference of [n] probabilities and how often they were right, over bins of equal mass.

    `right` is [n] of 0 and 1. Perfect probabilities have some error, too, the more the fewer there are.
    """
    given, happened = _paired(confidence, right)
    off = [abs(float(given[part].mean() - happened[part].mean())) * len(part) for part in mass_bins(given)]
    return float(sum(off) / len(given))


def brier_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Squared error of [n, classes] probabilities against [n] classes: of the second of two, or the sum over more.

    Against [n, classes] of 0 and 1, where a row may have several labels, it is the mean over all of them.
    """
    shares, gold = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if gold.ndim == 1 and shares.ndim == 2:
        shares, gold = _paired(shares, np.eye(shares.shape[1])[gold])
        total = float(((shares - gold) ** 2).sum(axis=1).mean())
        return total / 2 if shares.shape[1] == 2 else total
    shares, gold = _paired(shares, gold)
    return float(((shares - gold) ** 2).mean())


def smaller_is_better(metric: str) -> bool:
    """Whether the metric of this name falls as a model improves."""
    return metric.endswith(("loss", "_error")) and re.search(r"(?:^|_)neg_", metric) is None


# ── numbers ──


def pearson(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Linear correlation of two [n] series; 0.0 if either is constant, nan if either holds a nan."""
    x, y = (np.asarray(values, dtype=np.float64) for values in _paired(predictions, labels))
    if (x == x.flat[0]).all() or (y == y.flat[0]).all():  # rounding of the mean would make up a spread
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    # Scaled first, so that squares of tiny or huge numbers neither vanish nor overflow.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def spearman(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Rank correlation of two [n] series, ties at their average rank; 0.0 if either is constant."""
    x, y = _paired(predictions, labels)
    if np.isnan(np.asarray(x, dtype=np.float64)).any() or np.isnan(np.asarray(y, dtype=np.float64)).any():
        return float("nan")
    return pearson(_ranks(x), _ranks(y))


def _ranks(values: NDArray[Any]) -> NDArray[Any]:
    """Rank of each value from 1; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts - 1) / 2)[which]


# ── questions ──


def normalize_answer(text: str) -> str:
    """Lower case, no ASCII punctuation, no English articles, single spaces: as the official SQuAD scripts compare.

    Where a script has no spaces between words, and in Arabic and Hebrew, bare words in place of that: characters count
    as words, as for CMRC 2018 (Cui et al. 2019), and neither marks nor punctuation of any script count.
    """
    if is_unspaced(text) or is_right_to_left(text):
        return " ".join(bare_words(text))
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_scores(prediction: str, golds: Sequence[str], *, empty: bool) -> tuple[float, float]:
    """(exact match, F1) of one prediction: the best over its gold answers, none of which means "no answer".

    The two official scripts differ where nothing is left of a text, such as ".": that of SQuAD 2.0 (`empty`) drops such
    gold answers, and two empty texts agree; in that of 1.1 they match exactly and yet have an F1 of 0.
    """
    proposed, known = normalize_answer(prediction), [normalize_answer(gold) for gold in golds]
    if empty:
        known = [gold for gold in known if gold] or [""]
    return max(float(proposed == gold) for gold in known), max(_word_f1(proposed, gold, empty=empty) for gold in known)


def _word_f1(prediction: str, gold: str, *, empty: bool) -> float:
    proposed, actual = prediction.split(), gold.split()
    if not proposed or not actual:
        return float(empty and proposed == actual)
    return 2 * sum((Counter(proposed) & Counter(actual)).values()) / (len(proposed) + len(actual))


def squad(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Scores:
    """Exact match and F1 over all questions of `references`: question id → gold answers, none if unanswerable.

    Scored as the official script of SQuAD 2.0 does if some question is unanswerable, else as that of 1.1. A question
    without prediction scores 0; the prediction "" means "no answer". If some questions are
    unanswerable, `has_answer_f1` and `no_answer_f1` are the scores of the two kinds. Predictions for unknown ids are
    ignored, as in the official scripts.
    """
    if not references:
        raise InputError("no questions to score")
    impossible = {key for key, golds in references.items() if not golds}
    scores = {
        key: squad_scores(predictions[key], golds, empty=bool(impossible)) if key in predictions else (0.0, 0.0)
        for key, golds in references.items()
    }
    result = {"exact_match": _mean(s[0] for s in scores.values()), "f1": _mean(s[1] for s in scores.values())}
    if impossible:
        result["no_answer_f1"] = _mean(scores[key][1] for key in impossible)
    if impossible and len(impossible) < len(scores):
        result["has_answer_f1"] = _mean(score[1] for key, score in scores.items() if key not in impossible)
    return result


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def squad_best_threshold(
    answers: Mapping[str, str], null_differences: Mapping[str, float], references: Mapping[str, Sequence[str]]
) -> Scores:
    """The best that any null threshold could reach: `best_f1`, `best_exact_match` and the threshold of each.

    `answers` are the best non-empty answers and `null_differences` the null score minus theirs: a question counts as
    unanswerable where the difference exceeds the threshold. Chosen on the data that it is measured on, so optimistic:
    report it beside the score at threshold 0, never instead.
    """
    if not references:
        raise InputError("no questions to score")
    keys = sorted((key for key in references if key in answers), key=lambda key: null_differences[key])
    least = null_differences[keys[0]] - 1.0 if keys else 0.0  # below which no question has an answer
    differences = np.array([least, *(null_differences[key] for key in keys)])
    empty = np.array([squad_scores("", references[key], empty=True) for key in keys]).reshape(-1, 2)
    full = np.array([squad_scores(answers[key], references[key], empty=True) for key in keys]).reshape(-1, 2)
    # Row i: the i questions of the smallest differences get their answers, the others none.
    totals = empty.sum(axis=0) + np.concatenate([np.zeros((1, 2)), np.cumsum(full - empty, axis=0)])
    possible = np.append(differences[:-1] < differences[1:], True)  # no threshold parts equal differences
    result: Scores = {}
    for name, total in zip(("exact_match", "f1"), totals.T, strict=True):
        best = int(np.argmax(np.where(possible, total, -np.inf)))
        result[f"best_{name}"] = float(total[best]) / len(references)
        result[f"best_{name}_threshold"] = float(differences[best])
    return result


# ── entities ──


def entity_f1(predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> Scores:
    """Precision, recall and F1 of whole entities, over sentences of tags, in any scheme of `tags`.

    An entity counts only with its exact limits and type, micro-averaged, as conlleval and seqeval's default mode do.
    """
    if not labels:
        raise InputError("no sentences to score")
    if [len(sentence) for sentence in predictions] != [len(sentence) for sentence in labels]:
        raise InputError("predictions and labels do not have as many sentences, or sentences of other lengths")
    proposed, actual = (
        {(number, *chunk) for number, tags in enumerate(sentences) for chunk in chunks(tags)}
        for sentences in (predictions, labels)
    )
    hits = len(proposed & actual)
    return {
        "precision": hits / len(proposed) if proposed else 0.0,
        "recall": hits / len(actual) if actual else 0.0,
        "f1": 2 * hits / (len(proposed) + len(actual)) if proposed or actual else 0.0,
    }


# ── GLUE ──


def _accuracy(predictions: ArrayLike, labels: ArrayLike) -> Scores:
    return {"accuracy": accuracy(predictions, labels)}


def _accuracy_and_f1(predictions: ArrayLike, labels: ArrayLike) -> Scores:
    return {"accuracy": accuracy(predictions, labels), "f1": f1(predictions, labels)}


def _matthews(predictions: ArrayLike, labels: ArrayLike) -> Scores:
    return {"matthews_correlation": matthews_correlation(predictions, labels)}


def _correlations(predictions: ArrayLike, labels: ArrayLike) -> Scores:
    return {"pearson": pearson(predictions, labels), "spearman": spearman(predictions, labels)}


_GLUE: dict[str, Callable[[ArrayLike, ArrayLike], Scores]] = {
    "cola": _matthews,
    "sst-2": _accuracy,
    "mrpc": _accuracy_and_f1,
    "qqp": _accuracy_and_f1,
    "sts-b": _correlations,
    "mnli": _accuracy,
    "qnli": _accuracy,
    "rte": _accuracy,
    "wnli": _accuracy,
    "ax": _matthews,
}


def glue_metrics(task: str) -> Callable[[ArrayLike, ArrayLike], Scores]:
    """The official metrics of a GLUE task ("SST-2" or "sst2", …): a function of [n] predictions and [n] labels.

    The score of a task is the mean of its metrics. F1 is that of class 1. Classes are whole numbers, except for STS-B,
    whose similarities from 0 to 5 are numbers.
    """
    for name, metric in _GLUE.items():
        if name.replace("-", "") == task.lower().replace("-", "").replace("_", ""):
            return metric
    raise InputError(f"GLUE has no task {task!r}: choose one of {', '.join(_GLUE)}")


def glue_score(task: str, metrics: Mapping[str, float]) -> float:
    """The score of a GLUE task: the mean of its official metrics, of both its sets for MNLI.

    `metrics` may hold others as well, and names of sets before those of the metrics ("matched_accuracy").
    """
    official = tuple(glue_metrics(task)([0, 1], [0, 1]))
    return _mean(value for name, value in metrics.items() if name.endswith(official))


def glue_average(scores: Mapping[str, float]) -> float:
    """The score of the benchmark: the mean over its nine tasks. Some authors omit WNLI, which should then be stated."""
    wanted = {name for name in _GLUE if name != "ax"}
    if scores.keys() != wanted:
        raise InputError(f"the average of GLUE needs the scores of all of: {', '.join(sorted(wanted))}")
    return _mean(scores.values())


# ── what rounding costs ──


def refuse_loss(before: Metrics, after: Metrics, form: str, remedy: str) -> None:
    """Raise `InputError` if the first metric, the deciding one, falls by more than `LARGEST_LOSS`.

    `form` and `remedy` complete the message: "… in int8, … so nothing was written: keep the original, or --force it".
    """
    name = next(iter(before))
    if not before[name] - after[name] <= LARGEST_LOSS:  # NaN is refused as well
        raise InputError(
            f"{name} falls from {before[name]:.4f} to {after[name]:.4f} {form}, by more than {100 * LARGEST_LOSS:.0f} "
            f"point, so nothing was written: {remedy}, or --force it"
        )
