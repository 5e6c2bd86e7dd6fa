"""Tasks: the examples of a run, the head that is trained on them, and how the model is evaluated.

`TrainingData` is what a run needs of any data, with or without labels; a `Task` is labelled data. Both read files when
they are made and do not change afterwards: `configure` adapts the configuration of a model to the data, and `encode`
returns the data as inputs of that model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pocketbert.configs import PreTrainedConfig
from pocketbert.data.bad_rows import BadRow
from pocketbert.data.batches import Batches, BatchOrder, LabelledBatches
from pocketbert.data.examples import Examples
from pocketbert.features import Features
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.evaluation import Evaluation
from pocketbert.tokenization import BertTokenizer

E = TypeVar("E")  # an example

#: Inputs per example: one, or several where an example has choices.
Inputs = Sequence[Features] | Sequence[Sequence[Features]]
#: By name: [examples] class ids, numbers or positions; [examples, labels]; or per example an array of ids per token.
Targets = Mapping[str, npt.NDArray[np.generic] | Sequence[npt.NDArray[np.int64]]]


class EncodedData(Protocol):
    """Training data as inputs of a model."""

    def batches(self, *, batch_size: int, parts: int, seed: int) -> Batches:
        """Return the training batches, each divided into `parts` micro-batches."""
        ...


@dataclass(frozen=True)
class EncodedTask(Generic[E]):
    """Training examples as inputs and targets, and the evaluation on the dev sets."""

    features: Inputs
    targets: Targets
    evaluation: Evaluation[E, Any]

    def cut_note(self, max_length: int) -> str | None:
        """Return a line that says how many training examples are not read to their end, if there are any."""
        groups = [[one] if isinstance(one, Features) else one for one in self.features]
        cut = sum(any(inputs.cut for inputs in group) for group in groups)
        if not cut:
            return None
        long = f"{cut:,} of {len(groups):,} training examples are longer than {max_length} tokens"
        return f"{long}: their ends are ignored (--max-length)"

    def batches(self, *, batch_size: int, parts: int, seed: int) -> LabelledBatches:
        """Return the training batches, each divided into `parts` micro-batches."""
        lengths = [len(inputs) if isinstance(inputs, Features) else max(map(len, inputs)) for inputs in self.features]
        order = BatchOrder(lengths, batch_size=batch_size, seed=seed)
        pad_token_id = int(self.evaluation.tokenizer.pad_token_id)
        return LabelledBatches(self.features, self.targets, order, parts=parts, pad_token_id=pad_token_id)


class TrainingData(ABC):
    """Data of a run, and the head that is trained on it.

    A subclass reads its files when it is made, and raises `DataError` for whatever is wrong with them.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    usual_length: ClassVar[int] = 128  # tokens per input

    def __init__(self, options: FinetuneOptions) -> None:
        self.options = options

    @property
    def pairs(self) -> bool:
        """Whether the examples are pairs of texts."""
        return False

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the hashes of the files and the number of examples used, for `run.json`."""

    @abstractmethod
    def describe(self) -> str:
        """Return a description in one line, for the log."""

    def bad_rows(self) -> list[tuple[str, Sequence[BadRow]]]:
        """Return the rows that were skipped, by file."""
        return []

    @abstractmethod
    def texts(self) -> Iterable[str]:
        """Return all training texts, to train a vocabulary on."""

    @abstractmethod
    def configure(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """Return `config` for this data, and whether a head that was trained with `config` can be kept."""

    @abstractmethod
    def encode(self, tokenizer: BertTokenizer, config: PreTrainedConfig, max_length: int) -> EncodedData:
        """Return the data as inputs of a model.

        Args:
            tokenizer: the tokenizer of the model.
            config: the configuration of the model, as `configure` returned it.
            max_length: maximum tokens per input.
        """


class Task(TrainingData, Generic[E]):
    """Labelled examples for training and evaluation."""

    per_token: ClassVar[bool] = False  # whether each token has a target, and not the input as a whole

    train: Examples[E]
    sets: Mapping[str, Examples[E]]

    def label_names(self, config: PreTrainedConfig) -> tuple[str, ...] | None:
        """Return the labels in the order of the model's outputs: () for a number, None where no labels name them.

        In a distillation, a teacher's outputs are put in this order.
        """
        return None

    def bad_rows(self) -> list[tuple[str, Sequence[BadRow]]]:
        """Return the rows that were skipped, by file."""
        return [(rows.path.name, rows.bad) for rows in (self.train, *self.sets.values()) if rows.bad]

    def facts(self) -> dict[str, Any]:
        """Return the hashes of the files and the number of examples used, for `run.json`."""
        return {
            name: {
                "file": rows.path.name,
                "sha256": rows.sha256(),
                "examples": len(rows),
                "skipped": rows.skipped,
                **self.file_facts(rows),
            }
            for name, rows in {"train": self.train, **self.sets}.items()
        }

    def file_facts(self, rows: Examples[E]) -> dict[str, Any]:
        """Return further facts of a file, for `run.json`."""
        return {}

    def counts(self) -> str:
        """Return the number of examples, for the log."""
        sets = "".join(f", {len(rows):,} {name} examples" for name, rows in self.sets.items())
        return f"{len(self.train):,} training examples{sets}"

    def encode(self, tokenizer: BertTokenizer, config: PreTrainedConfig, max_length: int) -> EncodedTask[E]:
        """Return the training examples as inputs and targets, and the evaluation; see `TrainingData.encode`."""
        evaluation = self.evaluation(tokenizer, config, max_length)
        evaluation.use(self.options.metric)
        groups: list[list[Any]] = []
        for start in range(0, len(self.train), Evaluation.chunk):
            groups += evaluation.encode(self.train.examples[start : start + Evaluation.chunk])
        features, targets = self.targets(groups, config)
        return EncodedTask(features, targets, evaluation)

    @abstractmethod
    def evaluation(self, tokenizer: BertTokenizer, config: PreTrainedConfig, max_length: int) -> Evaluation[E, Any]:
        """Return the evaluation on the dev sets."""

    @abstractmethod
    def targets(self, groups: list[list[Any]], config: PreTrainedConfig) -> tuple[Inputs, Targets]:
        """Return the training inputs and their targets, from the inputs of each training example."""
