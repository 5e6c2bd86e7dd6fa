"""Text classification and regression, for single texts and pairs: own tables, or GLUE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.configs import PreTrainedConfig
from pocketbert.data.batches import BatchOrder, LabelledBatches
from pocketbert.data.glue import glue_task, read_glue
from pocketbert.data.labels import Labels, hold_out
from pocketbert.data.tables import Table, read_table
from pocketbert.features import Features, Predictor, encode_texts
from pocketbert.metrics import accuracy, f1, glue_metrics, pearson, spearman
from pocketbert.recipes.options import FinetuneOptions
from pocketbert.tokenization import BertTokenizer


class TextClassification:
    """The data of a run, its labels, and how the model is measured.

    Raises `DataError` for whatever is wrong with the files.
    """

    head = "ForSequenceClassification"

    def __init__(self, options: FinetuneOptions) -> None:
        self.options = options
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

    def facts(self) -> dict[str, Any]:
        """The files by hash, what was used of them, and how often each label occurs: for `run.json`."""
        return {
            name: {
                "file": table.path.name,
                "sha256": table.sha256(),
                "examples": len(table),
                "skipped": table.skipped,
                "columns": list(table.columns),
                "labels": None if self.labels.regression else Counter(e.label for e in table.examples),
            }
            for name, table in {"train": self.train, **self.sets}.items()
        }

    def describe(self) -> str:
        """One line for people."""
        sets = ", ".join(f"{len(table):,} in {name}" for name, table in self.sets.items())
        names = self.labels.names
        labels = "a number to predict" if self.labels.regression else f"{len(names)} labels: {', '.join(names[:10])}"
        columns = ", ".join(name for name in self.train.columns if name is not None)
        return f"{len(self.train):,} examples to learn from, {sets} (columns {columns}); {labels}"

    def texts(self) -> Iterator[str]:
        """All training texts."""
        for example in self.train.examples:
            yield example.text
            if example.text_pair is not None:
                yield example.text_pair

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
        return config.replace(id2label=names, problem_type="single_label_classification"), reordered is not None

    def encode(self, tokenizer: BertTokenizer, max_length: int) -> None:
        """Tokenise everything."""
        self.pad_token_id = int(tokenizer.pad_token_id)
        self.features = encode_table(self.train, tokenizer, max_length)
        self.evaluation = Evaluation(self.sets, self.labels, tokenizer, max_length, self.options.glue)

    def batches(self) -> LabelledBatches:
        """The training batches."""
        options = self.options
        order = BatchOrder([len(f) for f in self.features], batch_size=options.batch_size, seed=options.seed)
        labels = self.labels.encode(self.train)
        return LabelledBatches(self.features, labels, order, parts=options.accumulation, pad_token_id=self.pad_token_id)


class Evaluation:
    """Labelled tables, encoded, and what a model scores on them.

    Args:
        sets: name → table; with more than one, the name stands before the metric ("matched_accuracy").
        labels: in the order of the model.
        tokenizer: the model's.
        max_length: how many tokens of a text are read.
        glue: the GLUE task whose metrics to use, if any.
    """

    def __init__(
        self,
        sets: Mapping[str, Table],
        labels: Labels,
        tokenizer: BertTokenizer,
        max_length: int,
        glue: str | None = None,
    ) -> None:
        self.labels, self.glue = labels, glue
        self.sets = {
            f"{name}_" if len(sets) > 1 else "": (encode_table(table, tokenizer, max_length), labels.encode(table))
            for name, table in sets.items()
        }

    def __call__(self, predictor: Predictor) -> dict[str, float]:
        """The metrics of a model, the deciding one first; "loss" is the mean loss."""
        metrics: dict[str, float] = {}
        for prefix, (features, gold) in self.sets.items():
            logits = np.stack([output["logits"] for output in predictor(features)])
            metrics |= {prefix + name: value for name, value in self.score(logits, gold).items()}
        return metrics

    def metrics(self) -> list[str]:
        """The names of the metrics."""
        classes = max(1, len(self.labels.names))
        some = self.score(np.eye(2, classes), np.arange(2) % classes)
        return [prefix + name for prefix in self.sets for name in some]

    def score(self, logits: npt.NDArray[Any], gold: npt.NDArray[Any]) -> dict[str, float]:
        """The metrics of `logits` [examples, labels] against `gold` [examples]."""
        if self.labels.regression:
            predictions = logits.reshape(len(gold)).astype(np.float64)
            loss = float(np.mean((predictions - gold) ** 2))
            return {"pearson": pearson(predictions, gold), "spearman": spearman(predictions, gold), "loss": loss}
        predictions = logits.argmax(axis=1)
        wide = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        loss = float(np.mean(np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(gold)), gold]))
        if self.glue is None:
            return {"accuracy": accuracy(predictions, gold), "macro_f1": f1(predictions, gold, "macro"), "loss": loss}
        # F1 is that of GLUE's class 1, wherever the model keeps it.
        official = np.array([glue_task(self.glue).names.index(name) for name in self.labels.names])
        return {**glue_metrics(self.glue)(official[predictions], official[gold]), "loss": loss}


def encode_table(table: Table, tokenizer: BertTokenizer, max_length: int) -> list[Features]:
    """The texts, or pairs, of a table as inputs of a model."""
    texts = [example.text for example in table.examples]
    pairs = [example.text_pair or "" for example in table.examples] if table.columns.text_pair else None
    return encode_texts(tokenizer, texts, pairs, max_length=max_length)
