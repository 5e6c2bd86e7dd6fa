"""Estimators for scikit-learn: texts in, labels, numbers, tags or vectors out, on the engine.

A `TextClassifier` or `TextRegressor` fits a regularised head to the vectors of an encoder that is not trained, which
takes seconds and no PyTorch; with `finetune=True` it trains the encoder as well, by `pocketbert.finetune`, and answers
on the engine all the same. A `TokenClassifier` is always trained. Texts are a list, an array or a Series; pairs have
two columns. Estimators can be cloned, searched, pickled and put into a `Pipeline`.
"""

from pocketbert.errors import require

require("sklearn")

from pocketbert.sklearn.tags import TokenClassifier  # noqa: E402
from pocketbert.sklearn.texts import TextClassifier, TextRegressor  # noqa: E402
from pocketbert.sklearn.vectors import TextEncoder  # noqa: E402

__all__ = ["TextClassifier", "TextEncoder", "TextRegressor", "TokenClassifier"]
