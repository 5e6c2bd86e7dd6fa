"""Multiple choice: the text that fits a prompt best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.configs import PreTrainedConfig
from pocketbert.data.bad_rows import BadRow
from pocketbert.data.choices import Choice, Choices, read_choices
from pocketbert.data.examples import Examples, hold_out_groups
from pocketbert.decode import Output, softmax
from pocketbert.errors import DataError
from pocketbert.features import Features, encode_choices
from pocketbert.metrics import accuracy
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.base import Targets, Task
from pocketbert.tasks.evaluation import Evaluation, Scores, cross_entropy, write_tsv
from pocketbert.tasks.named_metrics import Judged
from pocketbert.tasks.outcomes import Outcomes, Shown, digest, rounded, worst
from pocketbert.tokenization import BertTokenizer

Logits = npt.NDArray[np.floating[Any]]


class ChoiceEvaluation(Evaluation[Choice, Logits]):
    """Evaluation on prompts with choices. A prediction is an array of [choices] logits."""

    head = "ForMultipleChoice"
    chunk = 128

    def encode(self, examples: Sequence[Choice]) -> list[list[Features]]:
        """Return one input per choice."""
        prompts, choices = [example.prompt for example in examples], [example.choices for example in examples]
        return encode_choices(self.tokenizer, prompts, choices, max_length=self.max_length)

    def decode(self, example: Choice, inputs: Sequence[Features], outputs: Sequence[Output]) -> Logits:
        """Return [choices] logits."""
        return np.concatenate([output["logits"] for output in outputs])

    def score(self, rows: Examples[Choice], predictions: Sequence[Logits]) -> Scores:
        """Return the accuracy and the mean loss."""
        gold = [example.label for example in rows.examples]
        losses = [cross_entropy(logits, label) for logits, label in zip(predictions, gold, strict=True)]
        return {
            "accuracy": accuracy([int(logits.argmax()) for logits in predictions], gold),
            "loss": float(np.mean(losses)),
        }

    def set_metrics(self) -> list[str]:
        """Return the names of the metrics of a set."""
        return ["accuracy", "loss"]

    def judged(self, rows: Examples[Choice], predictions: Sequence[Logits]) -> Judged:
        """Return the numbers of the right and of the chosen texts."""
        gold = np.array([example.label for example in rows.examples])
        return Judged(gold, np.array([int(logits.argmax()) for logits in predictions]))

    def unpredicted(self, rows: Examples[Choice]) -> Sequence[Logits]:
        """Return the first choice always."""
        return [np.zeros(1)] * len(rows)

    def outcomes(self, name: str) -> Outcomes:
        """Return the right and the chosen numbers, and the surest errors."""
        rows, predictions = self.sets[name], self.predicted[name]
        gold, chosen = [one.label for one in rows.examples], [int(logits.argmax()) for logits in predictions]
        sure = [float(softmax(logits.astype(np.float64)).max()) for logits in predictions]
        losses = [cross_entropy(logits, label) for logits, label in zip(predictions, gold, strict=True)]
        found = worst([score * (a != b) for score, a, b in zip(sure, gold, chosen, strict=True)])
        return Outcomes(
            kind="choices",
            file=rows.path.name,
            examples=digest((one.prompt, one.choices) for one in rows.examples),
            answers=digest(gold),
            lines=[one.line for one in rows.examples],
            metrics=self.scored.get(name) or self.score(rows, predictions),
            columns={
                "right": [int(a == b) for a, b in zip(gold, chosen, strict=True)],
                "gold": gold,
                "predicted": chosen,
                "loss": rounded(losses),
            },
            errors=[
                Shown(one.line, one.choices[one.label], one.choices[chosen[i]], one.prompt, None, round(sure[i], 5))
                for i, one in ((i, rows.examples[i]) for i in found)
            ],
        )

    def write_set(self, folder: Path, rows: Examples[Choice], predictions: Sequence[Logits]) -> None:
        """Write `predictions.tsv`: label and prediction by number, and both texts where they differ."""
        lines = []
        for example, logits in zip(rows.examples, predictions, strict=True):
            label, chosen = example.label, int(logits.argmax())
            texts = (example.prompt, example.choices[label], example.choices[chosen])
            lines.append((str(example.line), str(label), str(chosen), *(texts if chosen != label else ("", "", ""))))
        write_tsv(folder / "predictions.tsv", ("line", "label", "predicted", "prompt", "right", "chosen"), lines)


class MultipleChoice(Task[Choice]):
    """Prompts with choices."""

    name = "multiple-choice"
    head = ChoiceEvaluation.head

    train: Choices
    sets: Mapping[str, Choices]

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        self.train = read_choices(options.data, skip_bad=options.skip_bad)
        if options.skip_bad:
            self.train = _of_one_width(self.train)
        if options.eval_data is not None:
            self.sets = {"dev": read_choices(options.eval_data, skip_bad=options.skip_bad)}
        else:
            prompts = [example.prompt for example in self.train.examples]  # all questions on a passage stay together
            self.train, held = hold_out_groups(self.train, lambda i: prompts[i], options.eval_fraction, options.seed)
            self.sets = {"dev": replace(held, bad=(), skipped=0)}
        width = len(self.train.examples[0].choices)
        for example in self.train.examples:
            if len(example.choices) != width:
                raise DataError(
                    f"{self.train.path}, line {example.line}: has {len(example.choices)} choices where the first "
                    f"question has {width}; training needs the same number for all: remove the others"
                )
        if len({example.label for example in self.train.examples}) < 2:
            raise DataError(
                f"{self.train.path}: all {len(self.train)} questions have the label {self.train.examples[0].label}; "
                "two labels are needed: are they lost?"
            )

    def file_facts(self, rows: Examples[Choice]) -> dict[str, Any]:
        """Return the number of choices."""
        return {"choices": len(rows.examples[0].choices)}

    def describe(self) -> str:
        """Return a description in one line, for the log."""
        return f"{self.counts()}; {len(self.train.examples[0].choices)} choices each"

    def texts(self) -> Iterator[str]:
        """Yield all prompts and choices of the training data."""
        for example in self.train.examples:
            yield example.prompt
            yield from example.choices

    def configure(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """Return `config` with the usual number of labels: the head has one score per choice, and no labels."""
        return config.replace(num_labels=2, problem_type=None), True

    def evaluation(self, tokenizer: BertTokenizer, config: PreTrainedConfig, max_length: int) -> ChoiceEvaluation:
        """Return the evaluation on the dev sets."""
        return ChoiceEvaluation(self.sets, tokenizer, max_length)

    def targets(self, groups: list[list[Any]], config: PreTrainedConfig) -> tuple[list[list[Features]], Targets]:
        """Return one input per choice, and the number of the right choice."""
        return groups, {"labels": np.array([example.label for example in self.train.examples], dtype=np.int64)}


def _of_one_width(rows: Choices) -> Choices:
    """Return the questions that have as many choices as most; the others join the bad rows."""
    [(width, _)] = Counter(len(one.choices) for one in rows.examples).most_common(1)
    bad = [
        BadRow(one.line, f"has {len(one.choices)} choices, and most questions have {width}", one._asdict())
        for one in rows.examples
        if len(one.choices) != width
    ]
    left = rows.part(i for i, one in enumerate(rows.examples) if len(one.choices) == width)
    return replace(left, bad=(*rows.bad, *bad), skipped=rows.skipped + len(bad))
