"""Texts and pairs with one label, several, or a number: from tables of your own, or from GLUE."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.configs import PreTrainedConfig
from pocketbert.data.examples import Examples
from pocketbert.data.glue import glue_task, read_glue
from pocketbert.data.labels import Labels, hold_out
from pocketbert.data.tables import Example, Table, read_table
from pocketbert.decode import Output, sigmoid, softmax
from pocketbert.features import Features, Predictor, encode_texts
from pocketbert.metrics import accuracy, f1, glue_metrics, glue_score, pearson, spearman
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.task import Advance, Evaluation, Scores, Task, cross_entropy, write_tsv
from pocketbert.tokenization import BertTokenizer

logger = logging.getLogger("pocketbert")

_ERRORS = 200  # in the table of errors

Logits = npt.NDArray[np.floating[Any]]


class TextEvaluation(Evaluation[Example, Logits]):
    """Labelled tables, and what a model scores on them. A prediction is an array of [labels] logits.

    Args:
        sets: name → table.
        labels: in the order of the model.
        tokenizer: the model's.
        max_length: how many tokens of a text are read.
        glue: the GLUE task whose metrics to use, if any.
    """

    head = "ForSequenceClassification"

    def __init__(
        self,
        sets: Mapping[str, Table],
        labels: Labels,
        tokenizer: BertTokenizer,
        max_length: int,
        glue: str | None = None,
    ) -> None:
        super().__init__(sets, tokenizer, max_length)
        self.labels, self.glue = labels, glue
        self.gold = {id(table): labels.encode(table) for table in sets.values()}

    def encode(self, examples: Sequence[Example]) -> list[list[Features]]:
        """One input a text, or a pair."""
        return [[one] for one in encode_examples(examples, self.tokenizer, self.max_length)]

    def read(self, example: Example, inputs: Sequence[Features], outputs: Sequence[Output]) -> Logits:
        """[labels] logits."""
        return outputs[0]["logits"]

    def score(self, rows: Examples[Example], predictions: Sequence[Logits]) -> Scores:
        """The metrics; "loss" is the mean loss."""
        return self.score_arrays(np.stack(predictions), self.gold[id(rows)])

    def __call__(self, predictor: Predictor, advance: Advance | None = None) -> Scores:
        """The metrics of a model, and for GLUE the score of the task, which is their mean; see `Evaluation`."""
        scores = super().__call__(predictor, advance)
        return scores if self.glue is None else {**scores, "score": glue_score(self.glue, scores)}

    def metrics(self) -> list[str]:
        """The names of all metrics."""
        return [*super().metrics(), *(() if self.glue is None else ("score",))]

    def metrics_of_a_set(self) -> list[str]:
        """Their names."""
        classes = max(1, len(self.labels.names))
        gold = np.eye(2, classes) if self.labels.several else np.arange(2) % classes
        return list(self.score_arrays(np.eye(2, classes), gold))

    def score_arrays(self, logits: Logits, gold: npt.NDArray[Any]) -> Scores:
        """The metrics of `logits` [examples, labels] against `gold` [examples], or [examples, labels] of 0 and 1."""
        wide = logits.astype(np.float64)
        if self.labels.regression:
            numbers = wide.reshape(len(gold))
            loss = float(np.mean((numbers - gold) ** 2))
            return {"pearson": pearson(numbers, gold), "spearman": spearman(numbers, gold), "loss": loss}
        if self.labels.several:
            chosen = wide > 0.0  # a probability over one half
            loss = float(np.mean(np.logaddexp(0.0, wide) - wide * gold))
            scores = {f"{average}_f1": f1(chosen, gold, average) for average in ("micro", "macro")}
            return {**scores, "accuracy": accuracy(chosen, gold), "loss": loss}
        predictions = logits.argmax(axis=1)
        _doubt(predictions, gold, len(self.labels.names))
        loss = float(np.mean([cross_entropy(row, int(label)) for row, label in zip(logits, gold, strict=True)]))
        if self.glue is None:
            return {"accuracy": accuracy(predictions, gold), "macro_f1": f1(predictions, gold, "macro"), "loss": loss}
        # F1 is that of GLUE's class 1, wherever the model keeps it.
        official = np.array([glue_task(self.glue).names.index(name) for name in self.labels.names])
        return {**glue_metrics(self.glue)(official[predictions], official[gold]), "loss": loss}

    def write_set(self, folder: Path, rows: Examples[Example], predictions: Sequence[Logits]) -> None:
        """`predictions.tsv`, `errors.tsv` with the surest ones first, and for classes `confusion.tsv`."""
        logits, gold = np.stack(predictions), self.gold[id(rows)]
        said, sure = self._say(logits)
        header = ("line", "label", "predicted", "score")
        lines = {
            one.line: (str(one.line), right, answer, f"{score:.4f}")
            for one, right, answer, score in zip(rows.examples, self._named(rows, gold), said, sure, strict=True)
        }
        write_tsv(folder / "predictions.tsv", header, lines.values())
        if self.labels.regression:
            wrong = np.abs(logits.reshape(len(gold)) - gold)
        elif self.labels.several:
            wrong = ((logits > 0.0) != gold).any(axis=1) * sure
        else:
            wrong = (logits.argmax(axis=1) != gold) * sure
        worst = [rows.examples[i] for i in np.argsort(-wrong, kind="stable")[:_ERRORS] if wrong[i] > 0]
        shown = [(*lines[one.line], one.text, one.text_pair or "") for one in worst]
        write_tsv(folder / "errors.tsv", (*header, "text", "text_pair"), shown)
        if not (self.labels.regression or self.labels.several):
            self._write_confusion(folder, logits.argmax(axis=1), gold)

    def _named(self, rows: Examples[Example], gold: npt.NDArray[Any]) -> list[str]:
        """What is right, in the words in which it is predicted: GLUE's files have numbers for names."""
        if self.labels.regression or self.labels.several:
            return [", ".join(listed(one.label)) for one in rows.examples]
        return [self.labels.names[label] for label in gold.tolist()]

    def _say(self, logits: Logits) -> tuple[list[str], npt.NDArray[Any]]:
        """What is predicted, in words, and how sure it is: a probability, or the number itself."""
        if self.labels.regression:
            numbers = logits.reshape(len(logits))
            return [f"{number:.3f}" for number in numbers.tolist()], numbers
        names = self.labels.names
        if self.labels.several:
            shares = sigmoid(logits)
            said = [", ".join(names[i] for i in np.flatnonzero(row > 0.5)) for row in shares]
            return said, np.maximum(shares, 1 - shares).min(axis=1)
        return [names[i] for i in logits.argmax(axis=1)], softmax(logits).max(axis=1)

    def _write_confusion(self, folder: Path, predicted: npt.NDArray[Any], gold: npt.NDArray[Any]) -> None:
        """Rows: what is right; columns: what was said."""
        names = self.labels.names
        counts = np.zeros((len(names), len(names)), dtype=np.int64)
        np.add.at(counts, (gold, predicted), 1)
        rows = [(name, *map(str, row)) for name, row in zip(names, counts.tolist(), strict=True)]
        write_tsv(folder / "confusion.tsv", ("label", *names), rows)


class TextClassification(Task[Example]):
    """Texts, or pairs of them, with labels."""

    name = "text-classification"
    head = TextEvaluation.head

    train: Table
    sets: Mapping[str, Table]
    features: list[Features]

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        if options.glue is not None:
            self.train = read_glue(options.data, options.glue, "train")["train"]
            self.sets = read_glue(options.data, options.glue, "dev")
            self.labels = glue_task(options.glue).labels
        else:
            self.train = read_table(
                options.data,
                text=options.text_column,
                text_pair=options.text_pair_column,
                label=options.label_column,
            )
            self.labels = Labels.of(self.train, options.labels)
            if options.eval_data is not None:
                text, text_pair, label = self.train.columns  # by name, so that both files are read alike
                self.sets = {"dev": read_table(options.eval_data, text=text, text_pair=text_pair, label=label)}
            else:
                self.train, held = hold_out(self.train, options.eval_fraction, options.seed)
                self.sets = {"dev": held}
        for table in (self.train, *self.sets.values()):
            self.labels.encode(table)  # a wrong label should be said before anything costs time

    @property
    def names(self) -> tuple[str, ...]:
        """The labels; none where a number is predicted."""
        return self.labels.names

    def about(self, rows: Examples[Example]) -> dict[str, Any]:
        """Columns, and how often each label occurs."""
        assert isinstance(rows, Table)
        counts = Counter(name for one in rows.examples for name in listed(one.label))
        return {"columns": list(rows.columns), "labels": None if self.labels.regression else counts}

    def describe(self) -> str:
        """One line for people."""
        names = self.labels.names
        labels = "a number to predict" if self.labels.regression else f"{len(names)} labels: {', '.join(names[:10])}"
        labels += ", any number of them at once" if self.labels.several else ""
        columns = ", ".join(name for name in self.train.columns if name is not None)
        return f"{self.counts()} (columns {columns}); {labels}"

    def texts(self) -> Iterator[str]:
        """All training texts."""
        return table_texts(self.train)

    def adapt(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """`config` for these labels, and whether a head that was trained with `config` still fits.

        It does if its labels have the same names, in whatever order; then the data takes that order.
        """
        if self.labels.regression:
            fits = config.num_labels == 1 and config.problem_type in (None, "regression")
            return config.replace(num_labels=1, problem_type="regression"), fits
        reordered = self.labels.reordered(config.id2label)
        self.labels = reordered or self.labels
        names = dict(enumerate(self.labels.names))
        problem = "multi_label_classification" if self.labels.several else "single_label_classification"
        fits = reordered is not None and (config.problem_type == problem or not self.labels.several)
        return config.replace(id2label=names, problem_type=problem), fits

    def evaluate_with(self, tokenizer: BertTokenizer, max_length: int) -> TextEvaluation:
        """The evaluation on `sets`."""
        return TextEvaluation(self.sets, self.labels, tokenizer, max_length, self.options.glue)

    def learned(self, groups: list[list[Any]]) -> tuple[list[Features], Mapping[str, Any]]:
        """One input a text, and its label."""
        return [one for group in groups for one in group], {"labels": self.labels.encode(self.train)}


def _doubt(predictions: npt.NDArray[Any], gold: npt.NDArray[Any], classes: int) -> None:
    """Say it where a model does worse than no model could by bad luck: three orders of MNLI's labels are in use."""
    if len(gold) >= 100 and accuracy(predictions, gold) < 0.5 / classes:
        logger.warning(
            "accuracy is far below chance: are the model's labels in another order than its configuration says? "
            "--labels names them in the right one"
        )


def listed(label: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One label, several or none as a tuple."""
    return label if isinstance(label, tuple) else () if label is None else (label,)


def table_texts(table: Table) -> Iterator[str]:
    """All texts of a table, first and second ones."""
    for example in table.examples:
        yield example.text
        if example.text_pair is not None:
            yield example.text_pair


def encode_table(table: Table, tokenizer: BertTokenizer, max_length: int) -> list[Features]:
    """The texts, or pairs, of a table as inputs of a model."""
    return encode_examples(table.examples, tokenizer, max_length)


def encode_examples(examples: Sequence[Example], tokenizer: BertTokenizer, max_length: int) -> list[Features]:
    """Texts, or pairs, as inputs of a model."""
    texts = [one.text for one in examples]
    pairs = [one.text_pair or "" for one in examples] if examples and examples[0].text_pair is not None else None
    return encode_texts(tokenizer, texts, pairs, max_length=max_length)
