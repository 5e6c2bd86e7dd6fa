"""Estimators of classes, labels and numbers of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from pocketbert.bundles import ENCODER
from pocketbert.checkpoints import write_tensors
from pocketbert.data.memory import plain
from pocketbert.features import encode_texts
from pocketbert.frozen.encoder import HEAD, FrozenClassifier, normal
from pocketbert.frozen.linear import CLASSES, NUMBER, SEVERAL, LinearHead, fit_head, probabilities
from pocketbert.sklearn.vectors import Array, Trained, as_texts, encoder_of, seed_of


class _TextModel(Trained):
    """What a classifier and a regressor of texts have in common: the head, or the model that was trained."""

    def __init__(
        self,
        model: str = ENCODER,
        *,
        finetune: bool = False,
        strength: float | None = None,
        max_steps: int | None = None,
        epochs: float | None = None,
        learning_rate: float | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        random_state: Any = 42,
    ) -> None:
        self.model = model
        self.finetune = finetune
        self.strength = strength
        self.max_steps = max_steps
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_length = max_length
        self.random_state = random_state

    def _fit(self, X: Any, targets: Array, problem: str, labels: int, weights: Any, class_weight: Any = None) -> None:
        texts, pairs = as_texts(X)
        if len(texts) != len(targets):
            raise ValueError(f"X has {len(texts)} texts and y {len(targets)} labels")
        if self.strength is not None and not (isinstance(self.strength, int | float | np.number) and self.strength > 0):
            raise ValueError(f"strength must be a number above 0, not {self.strength!r}")
        self.problem_, self.n_labels_, self.on_pairs_ = problem, labels, pairs is not None
        self.head_: LinearHead | None = None
        weights = None if weights is None else _weights(weights, len(texts))
        if self.finetune:
            self._train(texts, pairs, targets, weights, class_weight)
            return
        encoder = encoder_of(str(self.model), self.max_length)
        weights = _with_class_weight(targets, problem, weights, class_weight)
        self.head_ = fit_head(normal(encoder.vectors(texts, pairs)), targets, problem, labels, weights=weights,
                              strength=self.strength, seed=seed_of(self.random_state))  # fmt: skip

    def _train(
        self, texts: list[str], pairs: list[str] | None, targets: Array, weights: Array | None, class_weight: Any
    ) -> None:
        """Fine-tune the encoder, and keep its tensors for the engine."""
        from pocketbert.recipes.finetune import finetune
        from pocketbert.recipes.finetune_options import FinetuneOptions

        written: list[Any] = list(map(float, targets)) if self.problem_ == NUMBER else []
        if self.problem_ == CLASSES:
            written = [f"class {i}" for i in targets.tolist()]
        elif self.problem_ == SEVERAL:
            written = [[f"class {i}" for i in np.flatnonzero(row)] for row in targets]
        names = None if self.problem_ == NUMBER else tuple(f"class {i}" for i in range(self.n_labels_))
        given: Any = None
        if isinstance(class_weight, str):
            given = class_weight
        elif class_weight is not None:
            given = {f"class {i}": float(weight) for i, weight in class_weight.items()}
        result = finetune(
            FinetuneOptions(
                data=(texts, written) if pairs is None else (texts, pairs, written),
                model=str(self.model),
                output=None,
                labels=names,
                max_steps=self.max_steps,
                epochs=self.epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                max_length=self.max_length,
                seed=seed_of(self.random_state),
                sample_weights=None if weights is None else weights.tolist(),
                class_weights=given,
            )
        )
        self._keep(result)

    def _logits(self, X: Any) -> npt.NDArray[np.float64]:
        """[texts, labels]; of a number [texts, 1]."""
        check_is_fitted(self)
        texts, pairs = as_texts(X)
        if (pairs is not None) != self.on_pairs_:
            kinds = "pairs", "single texts"
            raise ValueError(f"X holds {kinds[pairs is None]}, and the model was fitted to {kinds[pairs is not None]}")
        if self.head_ is not None:
            return self.head_.logits(normal(encoder_of(str(self.model), self.max_length).vectors(texts, pairs)))
        inputs = encode_texts(self.tokenizer_, texts, pairs, max_length=self._trained_length(self.max_length))
        return np.stack([output["logits"] for output in self._trained_engine(HEAD)(inputs)]).astype(np.float64)

    def save(self, folder: str | Path) -> None:
        """Write the model as an ordinary folder, which every command, export and service runs."""
        check_is_fitted(self)
        names = self._names()
        labels: dict[str, Any] = {"num_labels": 1} if names is None else {"id2label": dict(enumerate(names))}
        if self.head_ is not None:
            encoder = encoder_of(str(self.model), self.max_length)
            FrozenClassifier(encoder, self.head_).save(
                folder, encoder.config.replace(**labels, problem_type=self.problem_)
            )
            return
        self.config_.replace(**labels).save_pretrained(folder)
        self.tokenizer_.save_pretrained(folder)
        write_tensors(Path(folder) / "model.safetensors", self.tensors_)

    def _names(self) -> list[str] | None:
        """The names of the labels; None of a number."""
        return None


class TextClassifier(ClassifierMixin, _TextModel):  # type: ignore[misc]
    """Texts → classes, or any number of labels where y is an array of 0 and 1 with a column for each.

    Args:
        model: a folder, hub name or bundled model.
        finetune: train the encoder as well, which needs the extra `train`; otherwise only a head is fitted.
        strength: of the head's regularisation, the `C` of `LogisticRegression` [default: chosen by cross-validation].
        class_weight: "balanced", or class → weight.
        max_steps: steps of training, as the next ones only with `finetune`.
        epochs: epochs of training.
        learning_rate: peak learning rate.
        batch_size: examples per step.
        max_length: maximum tokens per text.
        random_state: seed; None for another one each time.

    Attributes:
        classes_: the classes in the order of `predict_proba`; of several labels those of y's columns.
    """

    def __init__(
        self,
        model: str = ENCODER,
        *,
        finetune: bool = False,
        strength: float | None = None,
        class_weight: Any = None,
        max_steps: int | None = None,
        epochs: float | None = None,
        learning_rate: float | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        random_state: Any = 42,
    ) -> None:
        super().__init__(
            model, finetune=finetune, strength=strength, max_steps=max_steps, epochs=epochs,
            learning_rate=learning_rate, batch_size=batch_size, max_length=max_length, random_state=random_state,
        )  # fmt: skip
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the classifier to texts and their labels.

        Raises:
            ValueError: X holds no texts, or y fewer than two classes.
        """
        as_texts(X)  # what is wrong with X comes first
        labels = _labels(y)
        if labels.ndim == 2:
            self.classes_ = np.array(list(getattr(y, "columns", range(labels.shape[1]))))  # of a frame their names
            self._fit(X, labels.astype(np.float64), SEVERAL, labels.shape[1], sample_weight, self.class_weight)
            return self
        self.classes_, ids = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_.tolist()}: two are needed")
        weight = self.class_weight
        if isinstance(weight, str):
            if weight != "balanced":
                raise ValueError(f'class_weight must be "balanced" or class → weight, not {weight!r}')
        elif weight is not None:
            known = {value: i for i, value in enumerate(self.classes_.tolist())}
            if unknown := [name for name in weight if name not in known]:
                raise ValueError(f"class_weight has {unknown[0]!r}, which y does not")
            weight = {known[name]: value for name, value in weight.items()}
        self._fit(X, ids.astype(np.int64), CLASSES, len(self.classes_), sample_weight, weight)
        return self

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:
        """Return [texts, classes] logits; of two classes [texts], the difference of the second to the first."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if self.problem_ == CLASSES and logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return [texts, classes] probabilities, which of classes add up to 1."""
        logits = self._logits(X)
        return probabilities(logits, self.problem_)

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return [texts, classes] logarithms of the probabilities."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(np.float64).tiny))

    def predict(self, X: Any) -> Array:
        """Return [texts] classes; of several labels, [texts, labels] of 0 and 1."""
        logits = self._logits(X)
        if self.problem_ == SEVERAL:
            return (logits > 0).astype(np.int64)
        return np.asarray(self.classes_[logits.argmax(axis=1)])

    def _names(self) -> list[str]:
        return list(map(str, self.classes_.tolist()))


class TextRegressor(RegressorMixin, _TextModel):  # type: ignore[misc]
    """Texts → numbers; arguments as of `TextClassifier`."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the regressor to texts and numbers.

        Raises:
            ValueError: X holds no texts, or y something else than one number for each.
        """
        as_texts(X)  # what is wrong with X comes first
        numbers = np.asarray(_dense(y))
        if numbers.ndim == 2 and numbers.shape[1] == 1:
            numbers = numbers[:, 0]
        if numbers.ndim != 1:
            raise ValueError(f"y must have one number for each text, and has the shape {numbers.shape}")
        try:
            numbers = numbers.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"y must hold numbers, and row 0 holds {numbers.tolist()[0]!r}") from None
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if len(wrong):
            raise ValueError(f"y must hold numbers, and row {wrong[0]} holds {numbers[wrong[0]]}")
        self._fit(X, numbers, NUMBER, 1, sample_weight)
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Return [texts] numbers."""
        return self._logits(X)[:, 0]


def _dense(y: Any) -> Any:
    """Values of whatever library as an array or a list."""
    for method in ("toarray", "to_pylist", "to_numpy"):
        if hasattr(y, method):
            return getattr(y, method)()
    return y


def _labels(y: Any) -> Array:
    """[texts] classes, or [texts, labels] of 0 and 1.

    Raises:
        ValueError: y is neither, or lacks a label.
    """
    if y is None:
        raise ValueError("y is None: a classifier needs the labels of the texts")
    try:
        labels = np.asarray(_dense(y))
    except ValueError:  # rows of different length
        labels = np.empty((0, 0, 0))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2):
        raise ValueError(
            "y must have one label for each text, or columns of 0 and 1 for several labels: those of "
            "sklearn.preprocessing.MultiLabelBinarizer, for example"
        )
    if labels.ndim == 2:
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("y with several columns must hold 0 and 1")
        return labels
    missing = [i for i, one in enumerate(labels.tolist()) if plain(one) is None]
    if missing:
        raise ValueError(f"y lacks the label of row {missing[0]}" + ("" if len(missing) == 1 else ", and of others"))
    if labels.dtype.kind == "f" and (labels != np.rint(labels)).any():
        raise ValueError("y holds fractions, not classes: TextRegressor is for numbers")
    return labels


def _weights(sample_weight: Any, count: int) -> Array:
    """[texts] weights of examples.

    Raises:
        ValueError: they do not fit, or are none.
    """
    weights = np.asarray(_dense(sample_weight), dtype=np.float64)
    if weights.ndim == 0:
        weights = np.full(count, float(weights))
    if weights.shape != (count,):
        raise ValueError(f"sample_weight has the shape {weights.shape}, and there are {count} texts")
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
        raise ValueError("sample_weight must hold numbers from 0 on, one of them above 0")
    return weights


def _with_class_weight(targets: Array, problem: str, weights: Array | None, class_weight: Any) -> Array | None:
    """Weights of examples times those of their classes."""
    if class_weight is None:
        return weights
    if problem != CLASSES:
        raise ValueError("class_weight is for classes: without finetune=True it does not apply to several labels")
    counts = np.bincount(targets)
    factors = (
        len(targets) / (len(counts) * counts)
        if class_weight == "balanced"
        else np.array([float(class_weight.get(i, 1.0)) for i in range(len(counts))])
    )
    own = factors[targets]
    return own if weights is None else weights * own
