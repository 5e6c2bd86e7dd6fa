"""Evaluation of a model on labelled examples of a task, on any `features.Predictor`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from pocketbert.checkpoints import write_text
from pocketbert.data.examples import Examples
from pocketbert.decode import Output
from pocketbert.errors import ConfigError
from pocketbert.features import Features, Predictor, check_finite
from pocketbert.tasks.evaluate_options import metric_name
from pocketbert.tasks.named_metrics import Judged, NamedMetric
from pocketbert.tasks.outcomes import Outcomes, write_outcomes
from pocketbert.tokenization import BertTokenizer

E = TypeVar("E")  # an example
P = TypeVar("P")  # the prediction for one example; small, as the predictions of all examples are in memory
Advance = Callable[[int, float], None]
Metric = Callable[[Any, Any], float]
Scores = dict[str, float]


class Evaluation(ABC, Generic[E, P]):
    """Labelled examples, and how the outputs of a model for them are decoded and scored.

    Inputs and outputs of `chunk` examples are in memory at a time, whatever the size of the data.

    Args:
        sets: name → examples; with several sets, the name precedes the metric ("matched_accuracy").
        tokenizer: the tokenizer of the model.
        max_length: maximum tokens per input.
    """

    head: ClassVar[str]  # the name of a model class without its family
    chunk: ClassVar[int] = 512

    def __init__(self, sets: Mapping[str, Examples[E]], tokenizer: BertTokenizer, max_length: int) -> None:
        self.sets, self.tokenizer, self.max_length = dict(sets), tokenizer, max_length
        self.predicted: dict[str, list[P]] = {}
        self.scored: dict[str, Scores] = {}
        self.custom: Metric | NamedMetric | None = None  # a further metric, which is then the main one
        self.cut = 0  # examples of the latest call that were not read to their end

    @abstractmethod
    def encode(self, examples: Sequence[E]) -> list[list[Features]]:
        """Return the inputs of each example: one, or one per window or choice."""

    @abstractmethod
    def decode(self, example: E, inputs: Sequence[Any], outputs: Sequence[Output]) -> P:
        """Return the prediction for an example, from the outputs for its inputs."""

    @abstractmethod
    def score(self, rows: Examples[E], predictions: Sequence[P]) -> Scores:
        """Return the metrics of a set, the main metric first."""

    @abstractmethod
    def set_metrics(self) -> list[str]:
        """Return the names of the metrics of a set."""

    def metrics(self) -> list[str]:
        """Return the names of all metrics."""
        own = [] if self.custom is None else [metric_name(self.custom)]
        return [self._prefix(name) + metric for name in self.sets for metric in (*own, *self.set_metrics())]

    def compared(self, rows: Examples[E], predictions: Sequence[P]) -> tuple[Any, Any]:
        """Return the labels and the predictions of a set as a metric of the caller's takes them.

        Raises:
            ConfigError: the task has none that such a metric could compare.
        """
        raise ConfigError(f"a function as metric compares labels, which a …{self.head} does not have")

    def judged(self, rows: Examples[E], predictions: Sequence[P]) -> Judged:
        """Return the labels and the predictions of a set as arrays, for metrics of scikit-learn.

        Raises:
            ConfigError: the task has none that such a metric could compare.
        """
        raise ConfigError(f"scikit-learn's metrics compare labels, which a …{self.head} does not have")

    def use(self, metric: str | Metric | None) -> None:
        """Make a metric the main one: a function of labels and predictions, the task's own, or scikit-learn's.

        Raises:
            ConfigError: there is not one of this name, or it has no value for these examples.
            MissingExtraError: its name may be one of scikit-learn's, which is not installed.
        """
        self.custom = None
        if callable(metric):
            self.custom = metric
        elif metric is not None and metric not in {*self.metrics(), *self.set_metrics()}:
            self.custom = NamedMetric(metric, self.metrics())
            for rows in self.sets.values():
                self.custom.check(self.judged(rows, self.unpredicted(rows)), rows.path.name)

    def unpredicted(self, rows: Examples[E]) -> Sequence[P]:
        """Return predictions of the right form that no model made, for `judged`."""
        return ()

    def scored_set(self, name: str) -> Scores:
        """Return the metrics of the latest predictions for a set, the main metric first, and remember them."""
        rows, predictions = self.sets[name], self.predicted[name]
        values = self.score(rows, predictions)
        if isinstance(self.custom, NamedMetric):
            values = {self.custom.__name__: self.custom(self.judged(rows, predictions)), **values}
        elif self.custom is not None:
            values = {metric_name(self.custom): self._own_value(self.custom, rows, predictions), **values}
        self.scored[name] = values
        return {self._prefix(name) + metric: value for metric, value in values.items()}

    def _own_value(self, metric: Metric, rows: Examples[E], predictions: Sequence[P]) -> float:
        """Return the value of the caller's metric. Raises `ConfigError` unless it is a finite number."""
        returned: Any = metric(*self.compared(rows, predictions))
        try:
            value = float(returned)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            name = metric_name(metric)
            raise ConfigError(
                f"the metric {name} is {returned!r:.100} for {rows.path.name}: it must be a finite number"
            )
        return value

    def __call__(self, predictor: Predictor, advance: Advance | None = None) -> Scores:
        """Return the metrics of a model.

        Args:
            predictor: the model.
            advance: called with the number of finished examples, and their fraction of all examples.
        """
        scores: Scores = {}
        total, done, self.cut = sum(map(len, self.sets.values())), 0, 0
        for name, rows in self.sets.items():
            self.predicted[name] = []
            for prediction in self.predict(predictor, rows.examples):
                self.predicted[name].append(prediction)
                done += 1
                if advance is not None:
                    advance(done, done / total)
            scores |= self.scored_set(name)
        return scores

    def predict(self, predictor: Predictor, examples: Sequence[E]) -> Iterator[P]:
        """Yield the prediction of a model for each example, labelled or not."""
        for start in range(0, len(examples), self.chunk):
            chunk = examples[start : start + self.chunk]
            groups = self.encode(chunk)
            self.cut += sum(any(features.cut for features in group) for group in groups)
            computed = predictor([features for group in groups for features in group])
            for output in computed:
                check_finite(output)
            outputs = iter(computed)
            for example, inputs in zip(chunk, groups, strict=True):
                yield self.decode(example, inputs, [next(outputs) for _ in inputs])

    @property
    def cut_note(self) -> str | None:
        """A line that says how many examples were not read to their end, if there were any."""
        if not self.cut:
            return None
        total = sum(map(len, self.sets.values()))
        return f"{self.cut:,} of {total:,} examples are longer than {self.max_length} tokens: their ends were ignored"

    def write(self, folder: Path) -> None:
        """Write the predictions of the latest call to `folder`, one subfolder per set if there are several.

        Beside them, in one file, what a report needs of them; see `tasks.outcomes`.
        """
        for name, predictions in self.predicted.items():
            self.write_set(folder / name if len(self.sets) > 1 else folder, self.sets[name], predictions)
        write_outcomes(folder, self.head, {name: self.outcomes(name) for name in self.predicted})

    @abstractmethod
    def outcomes(self, name: str) -> Outcomes:
        """Return what the latest call predicted for each example of a set."""

    @abstractmethod
    def write_set(self, folder: Path, rows: Examples[E], predictions: Sequence[P]) -> None:
        """Write the predictions for a set in the usual files of the task."""

    def _prefix(self, name: str) -> str:
        return f"{name}_" if len(self.sets) > 1 else ""


def cross_entropy(logits: np.ndarray, label: int) -> float:
    """Return the cross-entropy of [classes] logits against a class."""
    wide = logits.astype(np.float64) - float(logits.max())
    return float(np.log(np.exp(wide).sum()) - wide[label])


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table of tab-separated values; tabs and line breaks inside a value become spaces."""
    lines = ("\t".join(" ".join(cell.split()) for cell in row) for row in (header, *rows))
    write_text(path, "\n".join(lines) + "\n")
