"""Texts as inputs of estimators, and the encoder that makes vectors of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from pocketbert.bundles import ENCODER
from pocketbert.configs import PreTrainedConfig
from pocketbert.features import fit
from pocketbert.frozen.encoder import FrozenEncoder
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.lowering import lower
from pocketbert.tokenization import BertTokenizer

if TYPE_CHECKING:
    from pocketbert.recipes.epoch_run import FinetuneResult

Array = npt.NDArray[Any]


@lru_cache(maxsize=2)
def encoder_of(model: str, max_length: int | None) -> FrozenEncoder:
    """The encoder of a folder or name, which the estimators of a process share."""
    return FrozenEncoder(model, max_length=max_length)


def as_texts(X: Any) -> tuple[list[str], list[str] | None]:
    """Texts, or pairs of texts, of a list, array, Series, DataFrame or Arrow table.

    Raises:
        ValueError: X has another form.
    """
    if isinstance(X, str | bytes) or not hasattr(X, "__len__"):
        raise ValueError(f"X must be a list or an array of texts, not {type(X).__name__}")
    rows = _rows(X)
    if rows and not isinstance(rows[0], str | bytes) and hasattr(rows[0], "__len__"):
        wrong = next((row for row in rows if isinstance(row, str | bytes) or len(row) not in (1, 2)), None)
        if wrong is not None or len({len(row) for row in rows}) > 1:
            raise ValueError("X must have one column of texts, or two of pairs")
        columns = list(zip(*rows, strict=True))
        _check_texts(columns[0])
        if len(columns) == 1:
            return list(columns[0]), None
        _check_texts(columns[1])
        return list(columns[0]), list(columns[1])
    _check_texts(rows)
    return rows, None


def _rows(X: Any) -> list[Any]:
    """The elements, or the rows of a table, of whatever library."""
    if hasattr(X, "column_names") and hasattr(X, "to_pylist"):  # a table of Arrow
        return list(zip(*(column.to_pylist() for column in X.columns), strict=True))
    if hasattr(X, "to_pylist"):
        return list(X.to_pylist())
    return list(X.to_numpy() if hasattr(X, "to_numpy") else X)


def _check_texts(rows: Sequence[Any]) -> None:
    if not rows:
        raise ValueError("X has no texts")
    wrong = next((i for i, text in enumerate(rows) if not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(f"X must hold texts, and row {wrong} holds a {type(rows[wrong]).__name__}")


class OnTexts(BaseEstimator):  # type: ignore[misc]
    """An estimator whose inputs are texts."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        return tags


def seed_of(random_state: Any) -> int:
    """A seed from what scikit-learn takes for one: a number, None for a new one each time, or a `RandomState`."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


class Trained(OnTexts):
    """An estimator that keeps a model trained by `pocketbert.finetune`, and answers with it on the engine.

    Attributes:
        config_: configuration of the trained model.
        tokenizer_: tokenizer of the trained model.
        tensors_: its weights by name.
        metrics_: on the texts that training held out.
    """

    _engine: Engine | None = None  # made from the weights on first use, in each process

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_engine"}

    def _keep(self, result: FinetuneResult) -> None:
        """Keep the model of a run."""
        assert result.model is not None
        assert result.tokenizer is not None
        self.config_: PreTrainedConfig = result.model.config
        self.tokenizer_: BertTokenizer = result.tokenizer
        self.tensors_ = {name: tensor.detach().cpu().numpy() for name, tensor in result.model.state_dict().items()}
        self.metrics_ = result.metrics
        self._engine = None

    def _trained_engine(self, head: str) -> Engine:
        """The engine with the trained model."""
        if self._engine is None:
            self._engine = Engine(lower(self.config_, self.tensors_, head), config=self.config_)
        return self._engine

    def _trained_length(self, max_length: int | None) -> int:
        """Maximum tokens per text of the trained model."""
        most = self.config_.max_tokens
        return fit(self.tokenizer_, most if max_length is None else min(max_length, most))


class TextEncoder(TransformerMixin, OnTexts):  # type: ignore[misc]
    """Texts → vectors of an encoder that is not trained, [texts, width] in float32.

    Args:
        model: a folder, hub name or bundled model.
        normalize: give every vector length 1.
        max_length: maximum tokens per text [default: what the model reads].
    """

    def __init__(self, model: str = ENCODER, *, normalize: bool = False, max_length: int | None = None) -> None:
        self.model = model
        self.normalize = normalize
        self.max_length = max_length

    def fit(self, X: Any, y: Any = None) -> Self:
        """Load the encoder; nothing is learned from X."""
        as_texts(X)
        self.n_features_out_ = encoder_of(str(self.model), self.max_length).width
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Return [texts, width]."""
        check_is_fitted(self)
        vectors = encoder_of(str(self.model), self.max_length).vectors(*as_texts(X))
        return (
            vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) if self.normalize else vectors
        )

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return the names vector0, vector1 and so on."""
        check_is_fitted(self)
        return np.array([f"vector{i}" for i in range(self.n_features_out_)], dtype=object)
