"""Multiple choice: which of several texts goes best with a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.configs import PreTrainedConfig
from pocketbert.data.choices import Choice, Choices, read_choices
from pocketbert.data.examples import Examples, hold_out_groups
from pocketbert.decode import Output
from pocketbert.errors import DataError
from pocketbert.features import Features, encode_choices
from pocketbert.metrics import accuracy
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.task import Evaluation, Scores, Task, cross_entropy, write_tsv
from pocketbert.tokenization import BertTokenizer

Logits = npt.NDArray[np.floating[Any]]


class ChoiceEvaluation(Evaluation[Choice, Logits]):
    """Prompts with choices, and how often a model chooses the right one. A prediction is [choices] logits."""

    head = "ForMultipleChoice"
    chunk = 128

    def encode(self, examples: Sequence[Choice]) -> list[list[Features]]:
        """An input a choice."""
        prompts, choices = [one.prompt for one in examples], [one.choices for one in examples]
        return encode_choices(self.tokenizer, prompts, choices, max_length=self.max_length)

    def read(self, example: Choice, inputs: Sequence[Features], outputs: Sequence[Output]) -> Logits:
        """[choices] logits."""
        return np.concatenate([output["logits"] for output in outputs])

    def score(self, rows: Examples[Choice], predictions: Sequence[Logits]) -> Scores:
        """Accuracy, and the mean loss."""
        gold = [one.label for one in rows.examples]
        losses = [cross_entropy(logits, label) for logits, label in zip(predictions, gold, strict=True)]
        return {
            "accuracy": accuracy([int(logits.argmax()) for logits in predictions], gold),
            "loss": float(np.mean(losses)),
        }

    def metrics_of_a_set(self) -> list[str]:
        """Their names."""
        return ["accuracy", "loss"]

    def write_set(self, folder: Path, rows: Examples[Choice], predictions: Sequence[Logits]) -> None:
        """`predictions.tsv`: the numbers of the right and of the chosen text, and both texts where they differ."""
        lines = []
        for one, logits in zip(rows.examples, predictions, strict=True):
            chosen = int(logits.argmax())
            wrong = (one.prompt, one.choices[one.label], one.choices[chosen]) if chosen != one.label else ("", "", "")
            lines.append((str(one.line), str(one.label), str(chosen), *wrong))
        write_tsv(folder / "predictions.tsv", ("line", "label", "predicted", "prompt", "right", "chosen"), lines)


class MultipleChoice(Task[Choice]):
    """Prompts with choices."""

    name = "multiple-choice"
    head = ChoiceEvaluation.head

    train: Choices
    sets: Mapping[str, Choices]

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        self.train = read_choices(options.data)
        if options.eval_data is not None:
            self.sets = {"dev": read_choices(options.eval_data)}
        else:
            prompts = [one.prompt for one in self.train.examples]  # all questions on a passage stay together
            self.train, held = hold_out_groups(self.train, lambda i: prompts[i], options.eval_fraction, options.seed)
            self.sets = {"dev": held}
        width = len(self.train.examples[0].choices)
        for one in self.train.examples:
            if len(one.choices) != width:
                raise DataError(
                    f"{self.train.path}, line {one.line}: has {len(one.choices)} choices where the first question has "
                    f"{width}; to learn from them, all questions need equally many: leave the others out"
                )
        if len({one.label for one in self.train.examples}) < 2:
            raise DataError(
                f"{self.train.path}: in all {len(self.train)} questions choice {self.train.examples[0].label} is "
                "right, so that there is nothing to learn; are the labels lost?"
            )

    def about(self, rows: Examples[Choice]) -> dict[str, Any]:
        """How many choices."""
        return {"choices": len(rows.examples[0].choices)}

    def describe(self) -> str:
        """One line for people."""
        return f"{self.counts()}; {len(self.train.examples[0].choices)} choices each"

    def texts(self) -> Iterator[str]:
        """All prompts and choices of the training data."""
        for one in self.train.examples:
            yield one.prompt
            yield from one.choices

    def adapt(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """`config` as it is: the head gives one score a choice, and has no labels."""
        return config.replace(num_labels=2, problem_type=None), True

    def evaluate_with(self, tokenizer: BertTokenizer, max_length: int) -> ChoiceEvaluation:
        """The evaluation on `sets`."""
        return ChoiceEvaluation(self.sets, tokenizer, max_length)

    def learned(self, groups: list[list[Any]]) -> tuple[list[list[Features]], Mapping[str, Any]]:
        """An input a choice, and which is right."""
        return groups, {"labels": np.array([one.label for one in self.train.examples], dtype=np.int64)}
