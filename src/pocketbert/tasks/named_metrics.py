"""Metrics of scikit-learn and scipy by their names, for labels and numbers; needs the extra `sklearn`.

A name is that of a scorer ("f1_macro", "balanced_accuracy", "roc_auc", "neg_log_loss") or of a function of
`sklearn.metrics` that takes labels and predictions ("cohen_kappa_score", "mean_absolute_error"); or "kendall".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pocketbert.errors import ConfigError, MissingExtraError, require
from pocketbert.metrics import smaller_is_better

#: Scorers of scikit-learn that compare clusters, and functions that take neither labels nor numbers.
_FOREIGN = {
    "adjusted_mutual_info_score", "adjusted_rand_score", "calinski_harabasz_score", "completeness_score",
    "consensus_score", "davies_bouldin_score", "fowlkes_mallows_score", "homogeneity_score", "mutual_info_score",
    "normalized_mutual_info_score", "rand_score", "silhouette_score", "v_measure_score",
}  # fmt: skip
_FUNCTIONS = ("_score", "_error", "_loss", "_corrcoef")
_KENDALL = "kendall"


class Judged(NamedTuple):
    """Labels and predictions of a set as arrays."""

    gold: npt.NDArray[Any]
    """[n] class ids or numbers, or [n, labels] of 0 and 1."""
    predicted: npt.NDArray[Any]
    """Of the same shape."""
    shares: npt.NDArray[np.floating[Any]] | None = None
    """[n, labels] probabilities, where there are any."""


class NamedMetric:
    """A metric that is called by its name.

    Args:
        name: the name.
        own: names of the task's own metrics, for the error.

    Raises:
        ConfigError: nobody has a metric of this name.
        MissingExtraError: scikit-learn is not installed.
    """

    def __init__(self, name: str, own: Sequence[str]) -> None:
        self.__name__ = name
        wanted = f"--metric {name} must be one of {', '.join(own)}"
        try:
            require("sklearn")
        except MissingExtraError as error:
            raise MissingExtraError(f"{wanted}; if it is one of scikit-learn's, {error}") from None
        found = _found(name)
        if found is None:
            raise ConfigError(f"{wanted}, or a name of scikit-learn's: {_likely(name)}")
        self._compute = found

    def __call__(self, judged: Judged) -> float:
        """Return the metric. Where it has no value, such as a correlation of equal numbers, a score is 0.

        Raises:
            ConfigError: it is not for labels or numbers like these.
        """
        value = self._value(judged)
        return 0.0 if math.isnan(value) and not smaller_is_better(self.__name__) else value

    def check(self, judged: Judged, file: str) -> None:
        """Raise `ConfigError` unless the metric has a value for the labels of a file, perfectly predicted."""
        gold = judged.gold
        shares = judged.shares
        if shares is not None:
            ids = gold.astype(np.int64)
            shares = ids.astype(np.float64) if gold.ndim == 2 else np.eye(shares.shape[1])[ids]
        if not math.isfinite(self._value(Judged(gold, gold, shares))):
            raise ConfigError(f"--metric {self.__name__} is undefined for the labels of {file}: are they all the same?")

    def _value(self, judged: Judged) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that nothing is predicted as
            try:
                return float(self._compute(judged))
            except (TypeError, ValueError, AttributeError) as error:
                reason = " ".join(str(error).split())
                raise ConfigError(f"--metric {self.__name__} is not for this data: {reason:.300}") from None


def _found(name: str) -> Callable[[Judged], float] | None:
    import sklearn.metrics

    if name == _KENDALL:
        return _kendall
    if name not in _FOREIGN and name in sklearn.metrics.get_scorer_names():
        return _scorer(sklearn.metrics.get_scorer(name))
    if name not in _FOREIGN and name.endswith(_FUNCTIONS) and name in sklearn.metrics.__all__:
        function = getattr(sklearn.metrics, name)
        return lambda judged: function(judged.gold, judged.predicted)
    return None


def _likely(name: str) -> str:
    """Return names that are like this one, for an error message."""
    import difflib

    import sklearn.metrics

    known = [one for one in sklearn.metrics.get_scorer_names() if one not in _FOREIGN]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return ", ".join(near or ("f1_macro", "balanced_accuracy", "roc_auc", "…"))


def _kendall(judged: Judged) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(judged.predicted, judged.gold).statistic)


def _scorer(scorer: Any) -> Callable[[Judged], float]:
    """Return a scorer as a function; it asks an estimator for predictions, and gets those that there are."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Known:
        def __init__(self, judged: Judged) -> None:
            self.judged = judged
            gold = judged.gold
            # Each row of several labels is a class to scikit-learn.
            self.classes_ = np.eye(gold.shape[1], dtype=int) if gold.ndim == 2 else self._classes()

        def _classes(self) -> npt.NDArray[np.int64]:
            shares = self.judged.shares
            return np.arange(shares.shape[1]) if shares is not None else np.unique(self.judged.gold)

        def fit(self, texts: Any, labels: Any) -> Any:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict(self, texts: Any) -> npt.NDArray[Any]:
            return self.judged.predicted

    class Classifier(Known, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def predict_proba(self, texts: Any) -> npt.NDArray[Any]:
            if self.judged.shares is None:
                raise ValueError("it needs probabilities, which this task does not have")
            return self.judged.shares

    class Regressor(Known, RegressorMixin, BaseEstimator):  # type: ignore[misc]
        pass

    def compute(judged: Judged) -> float:
        numbers = judged.gold.dtype.kind == "f"
        estimator = (Regressor if numbers else Classifier)(judged)
        return float(scorer(estimator, np.zeros((len(judged.gold), 1)), judged.gold))

    return compute
