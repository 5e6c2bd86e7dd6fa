"""What a task is: how examples become inputs and targets, which head learns them, how its outputs are read and scored.

Two halves. An `Evaluation` holds labelled examples and everything that a trained model needs to be measured on them;
it runs on any `features.Predictor` and needs no PyTorch. A `Task` is the data of a fine-tuning run, and has one. What a
run needs to know of its data, with or without labels, is a `Material`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from pocketbert.checkpoints import write_text
from pocketbert.configs import PreTrainedConfig
from pocketbert.data.batches import Batches, BatchOrder, LabelledBatches
from pocketbert.data.examples import Examples
from pocketbert.decode import Output
from pocketbert.features import Features, Predictor
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tokenization import BertTokenizer

E = TypeVar("E")  # an example
P = TypeVar("P")  # what is predicted for it, and little else: one is kept for every example
Advance = Callable[[int, float], None]
Scores = dict[str, float]


class Evaluation(ABC, Generic[E, P]):
    """Labelled examples, and how a model's outputs on them are read and scored.

    Inputs and outputs of `chunk` examples are in memory at a time, whatever the size of the data.

    Args:
        sets: name → examples; with more than one, the name stands before the metric ("matched_accuracy").
        tokenizer: the model's.
        max_length: how many tokens of an input are read.
    """

    head: ClassVar[str]  # the part of a model class's name after its family
    chunk: ClassVar[int] = 512

    def __init__(self, sets: Mapping[str, Examples[E]], tokenizer: BertTokenizer, max_length: int) -> None:
        self.sets, self.tokenizer, self.max_length = dict(sets), tokenizer, max_length
        self.predicted: dict[str, list[P]] = {}

    @abstractmethod
    def encode(self, examples: Sequence[E]) -> list[list[Features]]:
        """The inputs of each example: one, or one a window or a choice."""

    @abstractmethod
    def read(self, example: E, inputs: Sequence[Any], outputs: Sequence[Output]) -> P:
        """What the outputs for the inputs of one example say."""

    @abstractmethod
    def score(self, rows: Examples[E], predictions: Sequence[P]) -> Scores:
        """The metrics of a set, the deciding one first."""

    @abstractmethod
    def metrics_of_a_set(self) -> list[str]:
        """Their names."""

    def metrics(self) -> list[str]:
        """The names of all metrics."""
        return [self._prefix(name) + metric for name in self.sets for metric in self.metrics_of_a_set()]

    def __call__(self, predictor: Predictor, advance: Advance | None = None) -> Scores:
        """The metrics of a model.

        Args:
            predictor: the model.
            advance: called with the number of examples done, and the fraction of all that they are.
        """
        scores: Scores = {}
        total, done = sum(map(len, self.sets.values())), 0
        for name, rows in self.sets.items():
            self.predicted[name] = []
            for prediction in self.predict(predictor, rows.examples):
                self.predicted[name].append(prediction)
                done += 1
                if advance is not None:
                    advance(done, done / total)
            found = self.score(rows, self.predicted[name])
            scores |= {self._prefix(name) + metric: value for metric, value in found.items()}
        return scores

    def predict(self, predictor: Predictor, examples: Sequence[E]) -> Iterator[P]:
        """What a model says of each example, labelled or not."""
        for start in range(0, len(examples), self.chunk):
            chunk = examples[start : start + self.chunk]
            groups = self.encode(chunk)
            outputs = iter(predictor([one for group in groups for one in group]))
            for example, inputs in zip(chunk, groups, strict=True):
                yield self.read(example, inputs, [next(outputs) for _ in inputs])

    def write(self, folder: Path) -> None:
        """Write what the latest call predicted to `folder`, one subfolder a set if there are several."""
        for name, predictions in self.predicted.items():
            self.write_set(folder / name if len(self.sets) > 1 else folder, self.sets[name], predictions)

    @abstractmethod
    def write_set(self, folder: Path, rows: Examples[E], predictions: Sequence[P]) -> None:
        """Write the predictions for one set in the files that are usual for the task."""

    def _prefix(self, name: str) -> str:
        return f"{name}_" if len(self.sets) > 1 else ""


class Material(ABC):
    """What a run learns from, and which head learns it.

    A subclass reads its files when it is made, and raises `DataError` for whatever is wrong with them.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    usual_length: ClassVar[int] = 128  # tokens of an input

    def __init__(self, options: FinetuneOptions) -> None:
        self.options = options

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The files by hash, and what was used of them: for `run.json`."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people."""

    @abstractmethod
    def texts(self) -> Iterable[str]:
        """All training texts, to make a vocabulary from."""

    @abstractmethod
    def adapt(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """`config` for this data, and whether the labels of a head that was trained with `config` still fit."""

    @abstractmethod
    def encode(self, tokenizer: BertTokenizer, max_length: int) -> None:
        """Make batches and evaluation ready."""

    @abstractmethod
    def batches(self) -> Batches:
        """The training batches."""


class Task(Material, Generic[E]):
    """Labelled examples, what is learned from them, and how the model is measured."""

    per_token: ClassVar[bool] = False  # whether every token has a target, and not the input as a whole

    train: Examples[E]
    sets: Mapping[str, Examples[E]]
    evaluation: Evaluation[E, Any]
    features: list[Features] | list[list[Features]]
    targets: Mapping[str, Any]

    # ── the data ──

    @property
    def names(self) -> tuple[str, ...]:
        """The labels in the order of the head's outputs; none where these are no labels."""
        return ()

    def facts(self) -> dict[str, Any]:
        """The files by hash, and what was used of them: for `run.json`."""
        return {
            name: {
                "file": rows.path.name,
                "sha256": rows.sha256(),
                "examples": len(rows),
                "skipped": rows.skipped,
                **self.about(rows),
            }
            for name, rows in {"train": self.train, **self.sets}.items()
        }

    def about(self, rows: Examples[E]) -> dict[str, Any]:
        """What else is worth recording of a file."""
        return {}

    def counts(self) -> str:
        """How many examples there are, for people."""
        sets = ", ".join(f"{len(rows):,} in {name}" for name, rows in self.sets.items())
        return f"{len(self.train):,} examples to learn from, {sets}"

    # ── what is learned ──

    def encode(self, tokenizer: BertTokenizer, max_length: int) -> None:
        """Tokenise the training examples, and prepare the evaluation."""
        self.pad_token_id, self.max_length = int(tokenizer.pad_token_id), max_length
        self.evaluation = self.evaluate_with(tokenizer, max_length)
        groups: list[list[Any]] = []
        for start in range(0, len(self.train), Evaluation.chunk):
            groups += self.evaluation.encode(self.train.examples[start : start + Evaluation.chunk])
        self.features, self.targets = self.learned(groups)

    @abstractmethod
    def evaluate_with(self, tokenizer: BertTokenizer, max_length: int) -> Evaluation[E, Any]:
        """The evaluation on `sets`."""

    @abstractmethod
    def learned(self, groups: list[list[Any]]) -> tuple[list[Features] | list[list[Features]], Mapping[str, Any]]:
        """From the inputs of every training example, the examples of `LabelledBatches` and their targets."""

    def batches(self) -> LabelledBatches:
        """The training batches."""
        options = self.options
        lengths = [len(one) if isinstance(one, Features) else max(map(len, one)) for one in self.features]
        order = BatchOrder(lengths, batch_size=options.batch_size, seed=options.seed)
        return LabelledBatches(
            self.features, self.targets, order, parts=options.accumulation, pad_token_id=self.pad_token_id
        )


def cross_entropy(logits: np.ndarray, label: int) -> float:
    """Of [classes] logits against a class."""
    wide = logits.astype(np.float64) - float(logits.max())
    return float(np.log(np.exp(wide).sum()) - wide[label])


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table of tab-separated values; tabs and line breaks inside a value become spaces."""
    lines = ("\t".join(" ".join(cell.split()) for cell in row) for row in (header, *rows))
    write_text(path, "\n".join(lines) + "\n")
