"""Text classification: texts and pairs with one label, several labels or a number, from tables or GLUE."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.calibration import ENOUGH, Calibration, calibrate, judged
from pocketbert.configs import PreTrainedConfig
from pocketbert.data.examples import Examples
from pocketbert.data.glue import glue_task, read_glue
from pocketbert.data.labels import Labels, hold_out, tidied
from pocketbert.data.tables import Example, Table, read_table
from pocketbert.decisions import (
    ENOUGH_FOR_THRESHOLD,
    confidences_of_shares,
    fit_thresholds,
    probabilities_of_coverages,
    reached,
    risk_coverage,
)
from pocketbert.decode import Output, sigmoid, softmax
from pocketbert.errors import ConfigError
from pocketbert.features import Features, Predictor, encode_texts
from pocketbert.metrics import (
    accuracy,
    brier_loss,
    calibration_error,
    f1,
    glue_metrics,
    glue_score,
    pearson,
    spearman,
)
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.base import Targets, Task
from pocketbert.tasks.evaluation import Advance, Evaluation, Scores, cross_entropy, write_tsv
from pocketbert.tasks.named_metrics import Judged
from pocketbert.tasks.outcomes import SHOWN, Outcomes, Shown, digest, rounded, worst
from pocketbert.tokenization import BertTokenizer
from pocketbert.words import word_places

logger = logging.getLogger("pocketbert")

_ERRORS = 200  # rows of the table of errors

Logits = npt.NDArray[np.floating[Any]]


class TextEvaluation(Evaluation[Example, Logits]):
    """Evaluation on labelled tables. A prediction is an array of [labels] logits.

    Args:
        sets: name → table.
        labels: the labels in the order of the model's outputs.
        tokenizer: the tokenizer of the model.
        max_length: maximum tokens per text or pair.
        glue: the GLUE task whose metrics to use, if any.
        thresholds: the probability from which on a text has each of several labels [default: 0.5].
    """

    head = "ForSequenceClassification"

    def __init__(
        self,
        sets: Mapping[str, Table],
        labels: Labels,
        tokenizer: BertTokenizer,
        max_length: int,
        glue: str | None = None,
        thresholds: Sequence[float | None] | None = None,
    ) -> None:
        super().__init__(sets, tokenizer, max_length)
        self.labels, self.glue = labels, glue
        self.given = [0.5] * len(labels.names) if thresholds is None else list(thresholds)
        self.thresholds = self.given
        self._rare_named = False
        self.gold = {id(table): labels.encode(table) for table in sets.values()}

    def encode(self, examples: Sequence[Example]) -> list[list[Features]]:
        """Return one input per text or pair."""
        return [[features] for features in encode_examples(examples, self.tokenizer, self.max_length)]

    def decode(self, example: Example, inputs: Sequence[Features], outputs: Sequence[Output]) -> Logits:
        """Return [labels] logits."""
        return outputs[0]["logits"]

    def score(self, rows: Examples[Example], predictions: Sequence[Logits]) -> Scores:
        """Return the metrics; "loss" is the mean loss, for classes the log loss."""
        return self.score_arrays(np.stack(predictions), self.gold[id(rows)])

    def __call__(self, predictor: Predictor, advance: Advance | None = None) -> Scores:
        """Return the metrics of a model, and for GLUE their mean, the score of the task; see `Evaluation`."""
        self.thresholds = self.given  # those that were fitted to another model are not its own
        return self._with_glue_score(super().__call__(predictor, advance))

    def _with_glue_score(self, scores: Scores) -> Scores:
        return scores if self.glue is None else {**scores, "score": glue_score(self.glue, scores)}

    def calibrate(self) -> Calibration | None:
        """Fit temperatures to the predictions of the latest call; None in a regression."""
        if self.labels.regression:
            return None
        return calibrate(*self._latest())

    def chosen(self, logits: Logits) -> npt.NDArray[np.bool_]:
        """Return which of several labels each text has, [examples, labels]."""
        return reached(sigmoid(logits.astype(np.float64)), self.thresholds)

    def levels(self) -> dict[str, dict[str, float]]:
        """Return the thresholds of `decisions.LEVELS` for the latest predictions, where there are enough of classes."""
        logits, gold = self._latest()
        if self.labels.several or len(gold) < ENOUGH:
            return {}
        shares = softmax(logits.astype(np.float64))
        return {
            "answer_share": confidences_of_shares(shares),
            "conformal": probabilities_of_coverages(shares, gold),
        }

    def fit_thresholds(self, goal: str) -> dict[str, float | None]:
        """Fit thresholds of several labels to the latest predictions, and use them."""
        logits, gold = self._latest()
        self._name_rare(gold)
        self.thresholds = fit_thresholds(sigmoid(logits.astype(np.float64)), gold, goal)
        return dict(zip(self.labels.names, self.thresholds, strict=True))

    def _name_rare(self, gold: npt.NDArray[Any]) -> None:
        """Warn of labels that keep the threshold 0.5, once for all models that are evaluated."""
        counts = zip(self.labels.names, gold.sum(axis=0), strict=True)
        rare = [name for name, count in counts if count < ENOUGH_FOR_THRESHOLD]
        if rare and not self._rare_named:
            logger.warning(
                "--thresholds: the threshold stays 0.5 for %s: fewer than %d held-out examples have the label",
                ", ".join(rare[:10]) + (f" and {len(rare) - 10} others" if len(rare) > 10 else ""),
                ENOUGH_FOR_THRESHOLD,
            )
        self._rare_named = True

    def _latest(self) -> tuple[Logits, npt.NDArray[Any]]:
        """Return the logits of the latest call and the labels, of all sets."""
        logits = np.concatenate([np.stack(self.predicted[name]) for name in self.sets])
        return logits, np.concatenate([self.gold[id(rows)] for rows in self.sets.values()])

    def rescored(self) -> Scores:
        """Return the metrics of the latest predictions."""
        scores: Scores = {}
        for name in self.sets:
            scores |= self.scored_set(name)
        return self._with_glue_score(scores)

    def divide(self, temperatures: Sequence[float]) -> None:
        """Divide the predictions of the latest call by temperatures."""
        for name in self.sets:
            wide = np.stack(self.predicted[name]).astype(np.float64) / np.array(temperatures)
            self.predicted[name] = [*wide.astype(np.float32)]

    def score_baseline(self, train: Table, seed: int) -> Scores:
        """Return the metrics of TF-IDF with logistic regression; errors as of `baseline_logits`."""
        from pocketbert.tasks.baseline import baseline_logits

        scores: Scores = {}
        for name, rows in self.sets.items():
            assert isinstance(rows, Table)
            values = self.score_arrays(baseline_logits(train, rows, self.labels, seed), self.gold[id(rows)])
            scores |= {self._prefix(name) + metric: value for metric, value in values.items()}
        return self._with_glue_score(scores)

    def chance_note(self, scores: Mapping[str, float]) -> str | None:
        """Return a line about metrics that are no better than those of the most frequent label alone."""
        for name, rows in self.sets.items():
            right = scores.get(f"{self._prefix(name)}accuracy")
            if self.labels.regression or self.labels.several or right is None:
                continue
            counts = np.bincount(self.gold[id(rows)].astype(np.int64))
            if right <= (often := counts.max() / len(rows)):
                return (
                    f"the model is no better than the majority class: its accuracy is {right:.3f}, and always "
                    f"predicting "
                    f"{self.labels.names[int(counts.argmax())]!r} has {often:.3f}. More steps (--max-steps), a higher "
                    "--learning-rate or a pretrained --model may help"
                )
        return None

    def metrics(self) -> list[str]:
        """Return the names of all metrics."""
        return [*super().metrics(), *(() if self.glue is None else ("score",))]

    def set_metrics(self) -> list[str]:
        """Return the names of the metrics of a set."""
        classes = max(1, len(self.labels.names))
        gold = np.eye(2, classes) if self.labels.several else np.arange(2) % classes
        return list(self.score_arrays(np.eye(2, classes), gold))

    def score_arrays(self, logits: Logits, gold: npt.NDArray[Any]) -> Scores:
        """Return the metrics of [examples, labels] logits; `gold` is [examples], or [examples, labels] of 0 and 1."""
        wide = logits.astype(np.float64)
        if self.labels.regression:
            numbers = wide.reshape(len(gold))
            loss = float(np.mean((numbers - gold) ** 2))
            return {"pearson": pearson(numbers, gold), "spearman": spearman(numbers, gold), "loss": loss}
        if self.labels.several:
            chosen = self.chosen(wide)
            loss = float(np.mean(np.logaddexp(0.0, wide) - wide * gold))
            scores = {f"{average}_f1": f1(chosen, gold, average) for average in ("micro", "macro")}
            return {**scores, "accuracy": accuracy(chosen, gold), "loss": loss, **_probability_scores(wide, gold)}
        predictions = logits.argmax(axis=1)
        _warn_below_chance(predictions, gold, len(self.labels.names))
        loss = float(np.mean([cross_entropy(row, int(label)) for row, label in zip(logits, gold, strict=True)]))
        further = {"loss": loss, **_probability_scores(wide, gold)}
        if self.glue is None:
            return {"accuracy": accuracy(predictions, gold), "macro_f1": f1(predictions, gold, "macro"), **further}
        # F1 is that of GLUE's class 1, whatever its id in the model.
        official = np.array([glue_task(self.glue).names.index(name) for name in self.labels.names])
        return {**glue_metrics(self.glue)(official[predictions], official[gold]), **further}

    def compared(self, rows: Examples[Example], predictions: Sequence[Logits]) -> tuple[Any, Any]:
        """Return names of labels; of several labels, arrays [examples, labels] of 0 and 1; numbers of a regression."""
        logits, gold = np.stack(predictions), self.gold[id(rows)]
        if self.labels.regression:
            return gold, logits.reshape(len(gold))
        if self.labels.several:
            return gold.astype(np.int64), (logits > 0.0).astype(np.int64)
        names = self.labels.names
        return [names[int(i)] for i in gold], [names[i] for i in logits.argmax(axis=1)]

    def judged(self, rows: Examples[Example], predictions: Sequence[Logits]) -> Judged:
        """Return labels, predictions and probabilities, in the order of the labels; numbers of a regression."""
        logits, gold = np.stack(predictions).astype(np.float64), self.gold[id(rows)]
        if self.labels.regression:
            return Judged(gold.astype(np.float64), logits.reshape(len(gold)))
        if self.labels.several:
            return Judged(gold.astype(np.int64), self.chosen(logits).astype(np.int64), sigmoid(logits))
        return Judged(gold.astype(np.int64), logits.argmax(axis=1), softmax(logits))

    def unpredicted(self, rows: Examples[Example]) -> Sequence[Logits]:
        """Return logits of 0."""
        return [*np.zeros((len(rows), max(1, len(self.labels.names))))]

    def write_set(self, folder: Path, rows: Examples[Example], predictions: Sequence[Logits]) -> None:
        """Write `predictions.tsv` and `errors.tsv` (most confident first).

        For classes also `confusion.tsv`, and `risk-coverage.tsv`: how many are right of those that are surest.
        """
        logits, gold = np.stack(predictions), self.gold[id(rows)]
        names, confidence = self._predictions(logits)
        header = ("line", "label", "predicted", "score")
        lines = {
            example.line: (str(example.line), label, name, f"{score:.4f}")
            for example, label, name, score in zip(
                rows.examples, self._gold_names(rows, gold), names, confidence, strict=True
            )
        }
        write_tsv(folder / "predictions.tsv", header, lines.values())
        if self.labels.regression:
            wrong = np.abs(logits.reshape(len(gold)) - gold)
        elif self.labels.several:
            wrong = (self.chosen(logits) != gold).any(axis=1) * confidence
        else:
            wrong = (logits.argmax(axis=1) != gold) * confidence
        worst = [rows.examples[i] for i in np.argsort(-wrong, kind="stable")[:_ERRORS] if wrong[i] > 0]
        shown = [(*lines[example.line], example.text, example.text_pair or "") for example in worst]
        write_tsv(folder / "errors.tsv", (*header, "text", "text_pair"), shown)
        if not (self.labels.regression or self.labels.several):
            self._write_confusion(folder, logits.argmax(axis=1), gold)
            curve = [(f"{share:.2f}", f"{least:.4f}", f"{right:.4f}") for share, least, right in
                     risk_coverage(softmax(logits), gold)]  # fmt: skip
            write_tsv(folder / "risk-coverage.tsv", ("answered", "min_confidence", "accuracy"), curve)

    def outcomes(self, name: str) -> Outcomes:
        """Return labels, predictions and confidences, the surest errors, and the labels that look wrong."""
        rows, logits = self.sets[name], np.stack(self.predicted[name]).astype(np.float64)
        gold, (predicted, scores) = self.gold[id(rows)], self._predictions(logits)
        names = self._gold_names(rows, gold)
        suspected: list[tuple[int, str, float]] = []
        positive = None
        columns: dict[str, list[Any]]
        if self.labels.regression:
            numbers = logits.reshape(len(gold))
            columns = {"gold": rounded(gold), "predicted": rounded(numbers)}
            kind, badness = "numbers", np.abs(numbers - gold)
        elif self.labels.several:
            chosen, shares, kind = self.chosen(logits), sigmoid(logits), "several"
            wrong = (chosen != gold).any(axis=1)
            columns = {
                "right": (~wrong).astype(int).tolist(),
                "gold": [np.flatnonzero(row).tolist() for row in gold],
                "predicted": [np.flatnonzero(row).tolist() for row in chosen],
                "loss": rounded((np.logaddexp(0.0, logits) - logits * gold).mean(axis=1)),
                "brier": rounded(((shares - gold) ** 2).mean(axis=1)),
            }
            badness = wrong * scores
        else:
            shares, best, kind = softmax(logits), logits.argmax(axis=1), "classes"
            squares = ((shares - np.eye(shares.shape[1])[gold]) ** 2).sum(axis=1)
            columns = {
                "right": (best == gold).astype(int).tolist(),
                "gold": gold.tolist(),
                "predicted": best.tolist(),
                "confidence": rounded(scores),
                "loss": rounded([cross_entropy(row, int(label)) for row, label in zip(logits, gold, strict=True)]),
                "brier": rounded(squares / 2 if shares.shape[1] == 2 else squares),
            }
            badness = (best != gold) * scores
            suspected = [
                (one.row, self.labels.names[one.other], one.margin) for one in _suspects(shares, gold.astype(np.int64))
            ]
            if self.glue is not None:
                positive = self.labels.names.index(glue_task(self.glue).names[1])

        def shown(index: int, answer: str, score: float | None) -> Shown:
            example = rows.examples[index]
            return Shown(example.line, names[index], answer, example.text, example.text_pair, score)

        sure = [None] * len(predicted) if self.labels.regression else rounded(scores)
        return Outcomes(
            kind=kind,
            file=rows.path.name,
            examples=digest((example.text, example.text_pair) for example in rows.examples),
            answers=digest(names),
            lines=[example.line for example in rows.examples],
            metrics=self.scored.get(name) or self.score(rows, self.predicted[name]),
            columns=columns,
            labels=list(self.labels.names),
            positive=positive,
            errors=[shown(i, predicted[i], sure[i]) for i in worst(badness)],
            suspects=[shown(row, other, round(margin, 5)) for row, other, margin in suspected[:SHOWN]],
        )

    def _gold_names(self, rows: Examples[Example], gold: npt.NDArray[Any]) -> list[str]:
        """Return the labels by the names that are predicted: GLUE's files have numbers in their place."""
        if self.labels.regression or self.labels.several:
            return [", ".join(listed(example.label)) for example in rows.examples]
        return [self.labels.names[label] for label in gold.tolist()]

    def _predictions(self, logits: Logits) -> tuple[list[str], npt.NDArray[Any]]:
        """Return the predicted labels by name, and their probabilities; in a regression the numbers."""
        if self.labels.regression:
            numbers = logits.reshape(len(logits))
            return [f"{number:.3f}" for number in numbers.tolist()], numbers
        names = self.labels.names
        if self.labels.several:
            probabilities = sigmoid(logits)
            predicted = [", ".join(names[i] for i in np.flatnonzero(row)) for row in self.chosen(logits)]
            return predicted, np.maximum(probabilities, 1 - probabilities).min(axis=1)
        return [names[i] for i in logits.argmax(axis=1)], softmax(logits).max(axis=1)

    def _write_confusion(self, folder: Path, predicted: npt.NDArray[Any], gold: npt.NDArray[Any]) -> None:
        """Write the confusion matrix: labels in rows, predictions in columns."""
        names = self.labels.names
        counts = np.zeros((len(names), len(names)), dtype=np.int64)
        np.add.at(counts, (gold, predicted), 1)
        rows = [(name, *map(str, row)) for name, row in zip(names, counts.tolist(), strict=True)]
        write_tsv(folder / "confusion.tsv", ("label", *names), rows)


class TextClassification(Task[Example]):
    """Texts or pairs of texts with labels."""

    name = "text-classification"
    head = TextEvaluation.head

    train: Table
    sets: Mapping[str, Table]

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        if options.glue is not None:
            self.train = read_glue(options.data, options.glue, "train")["train"]
            self.sets = read_glue(options.data, options.glue, "dev")
            self.labels = glue_task(options.glue).labels
        else:
            self._read_tables(options)
        self.train = self.labels.named(self.train)
        self.sets = {name: self.labels.named(table) for name, table in self.sets.items()}
        if options.skip_bad:
            self.train = self.labels.without_unusable(self.train)
            self.sets = {name: self.labels.without_unusable(table) for name, table in self.sets.items()}
        self._check_options(options)
        for table in (self.train, *self.sets.values()):
            self.labels.encode(table)  # report a wrong label before anything takes time

    def _check_options(self, options: FinetuneOptions) -> None:
        """Raise `ConfigError` for an option that these labels give no meaning."""
        if options.thresholds is not None and not self.labels.several:
            what = "it is a number" if self.labels.regression else "it has one"
            raise ConfigError(f"--thresholds is for data in which a text may have several labels; here {what}")
        if options.label_smoothing > 0 and self.labels.regression:
            raise ConfigError("--label-smoothing is for classification, and these labels are numbers")

    def _read_tables(self, options: FinetuneOptions) -> None:
        skip_bad, names = options.skip_bad, options.labels or ()
        self.train = read_table(
            options.data,
            text=options.text_column,
            text_pair=options.text_pair_column,
            label=options.label_column,
            skip_bad=skip_bad,
        )
        self.train = _weighted(self.train, options.sample_weights)
        self.train = tidied(self.train, names, merge=options.merge_labels, skip_bad=skip_bad)
        if skip_bad and names:
            self.train = Labels(names, numbered=names, several=_has_lists(self.train)).without_unusable(self.train)
        self.labels = Labels.of(self.train, options.labels)
        if options.eval_data is None:
            self.train, held = hold_out(self.train, options.eval_fraction, options.seed)
            self.sets = {"dev": replace(held, bad=(), skipped=0)}
            return
        text, text_pair, label = self.train.columns  # by name: both files are read alike
        dev = read_table(options.eval_data, text=text, text_pair=text_pair, label=label, skip_bad=skip_bad)
        self.sets = {"dev": tidied(dev, self.labels.numbered or self.labels.names, merge=options.merge_labels)}

    @property
    def pairs(self) -> bool:
        """Whether the examples are pairs of texts."""
        return self.train.columns.text_pair is not None

    def text_facts(self) -> dict[str, str]:
        """Return lengths of the training texts, and how many texts are there twice, for the report."""
        lengths = [len(word_places(text)) for text in table_texts(self.train)]
        facts = {"words per text": f"median {np.median(lengths):.0f}, longest {max(lengths):,}"}
        known = {(example.text, example.text_pair) for example in self.train.examples}
        if twice := len(self.train) - len(known):
            facts["duplicates"] = f"{twice:,} training texts are duplicates of others"
        both = sum((one.text, one.text_pair) in known for table in self.sets.values() for one in table.examples)
        if both:
            facts["leaks"] = f"{both:,} evaluation texts are also in the training data: scores are too high"
        return facts

    def label_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        """Return the labels in the order of the model's outputs; () for a number."""
        return self._labels(config).names

    def _labels(self, config: PreTrainedConfig) -> Labels:
        """Return the labels in the order of the model's outputs, if they have the same names."""
        return (None if self.labels.regression else self.labels.reordered(config.id2label)) or self.labels

    def file_facts(self, rows: Examples[Example]) -> dict[str, Any]:
        """Return the columns, and the frequency of each label."""
        assert isinstance(rows, Table)
        counts = Counter(name for example in rows.examples for name in listed(example.label))
        return {"columns": list(rows.columns), "labels": None if self.labels.regression else counts}

    def describe(self) -> str:
        """Return a description in one line, for the log."""
        names = self.labels.names
        labels = (
            "numbers to predict (regression)"
            if self.labels.regression
            else f"{len(names)} labels: {', '.join(names[:10])}"
        )
        labels += " (any number of them per text)" if self.labels.several else ""
        columns = ", ".join(name for name in self.train.columns if name is not None)
        return f"{self.counts()} (columns {columns}); {labels}"

    def texts(self) -> Iterator[str]:
        """Return all training texts."""
        return table_texts(self.train)

    def configure(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """Return `config` for these labels, and whether a head that was trained with `config` can be kept.

        It can if its labels have the same names, in whatever order; the model keeps that order.
        """
        if self.labels.regression:
            fits = config.num_labels == 1 and config.problem_type in (None, "regression")
            return config.replace(num_labels=1, problem_type="regression"), fits
        reordered = self.labels.reordered(config.id2label)
        names = dict(enumerate((reordered or self.labels).names))
        problem = "multi_label_classification" if self.labels.several else "single_label_classification"
        fits = reordered is not None and (config.problem_type == problem or not self.labels.several)
        return config.replace(id2label=names, problem_type=problem), fits

    def evaluation(self, tokenizer: BertTokenizer, config: PreTrainedConfig, max_length: int) -> TextEvaluation:
        """Return the evaluation on the dev sets."""
        return TextEvaluation(self.sets, self._labels(config), tokenizer, max_length, self.options.glue)

    def targets(self, groups: list[list[Any]], config: PreTrainedConfig) -> tuple[list[Features], Targets]:
        """Return one input per text, and its label."""
        labels = self._labels(config)
        targets = {"labels": labels.encode(self.train)}
        weights = self.weights(labels)
        if weights is not None:
            targets["weights"] = weights
        return [features for group in groups for features in group], targets

    def weights(self, labels: Labels) -> npt.NDArray[np.float32] | None:
        """Return how much each training example counts, [examples], or each of its labels where it has several.

        They are 1 in the mean; None if all are alike. `labels` are in the order of the model's outputs.

        Raises:
            ConfigError: a weight is for a label that there is not, or the labels are numbers.
        """
        by_label, balanced = self.options.weights_by_label(), self.options.class_weights == "balanced"
        rows = self.train.weights
        if by_label is None and not balanced:
            return None if rows is None else _normalised(np.array(rows))
        if labels.regression:
            raise ConfigError("--class-weights is for classification, and these labels are numbers")
        if unknown := sorted(set(by_label or {}) - set(labels.names)):
            raise ConfigError(f"--class-weights: the label {unknown[0]!r} is not one of {', '.join(labels.names)}")
        own = np.ones(len(self.train)) if rows is None else np.array(rows)
        encoded = labels.encode(self.train)
        present = encoded if labels.several else np.eye(len(labels.names))[encoded.astype(np.int64)]  # [examples, L]
        if balanced:
            counts = np.maximum(1, present.sum(axis=0))
            factors = (len(present) - counts) / counts if labels.several else len(present) / counts
            factors = np.maximum(factors, 1 / len(present))
        else:
            factors = np.array([(by_label or {}).get(name, 1.0) for name in labels.names])
        if labels.several:
            return _normalised(own[:, None] * np.where(present > 0, factors, 1.0))
        return _normalised(own * (present @ factors))


def _weighted(table: Table, weights: Sequence[float] | None) -> Table:
    """Return a table with weights of its rows. Raises `ConfigError` unless there is one for each."""
    if weights is None:
        return table
    if len(weights) != len(table):
        raise ConfigError(f"there are {len(weights):,} sample_weights and {len(table):,} rows: one for each is needed")
    return replace(table, weights=tuple(map(float, weights)))


def _normalised(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return (weights / weights.mean()).astype(np.float32)


def _probability_scores(logits: Logits, gold: npt.NDArray[Any]) -> Scores:
    """Return how good the probabilities are."""
    shares, confidence, right = judged(logits, gold)
    return {"brier_loss": brier_loss(shares, gold), "calibration_error": calibration_error(confidence, right)}


def _suspects(shares: Logits, gold: npt.NDArray[np.int64]) -> list[Any]:
    """Return the examples whose label looks wrong, of a model that was not trained on them; see `checks.labels`."""
    from pocketbert.checks.labels import suspects

    return suspects(shares, gold) if len(gold) >= ENOUGH else []


def _has_lists(table: Table) -> bool:
    return any(isinstance(example.label, tuple) for example in table.examples)


def _warn_below_chance(predictions: npt.NDArray[Any], gold: npt.NDArray[Any], classes: int) -> None:
    """Warn about an accuracy too low to be chance: three orders of MNLI's labels are in use."""
    if len(gold) >= 100 and accuracy(predictions, gold) < 0.5 / classes:
        logger.warning(
            "accuracy is far below chance: are the model's labels in another order than in its configuration? "
            "--labels gives the order"
        )


def listed(label: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return one label, several labels or none as a tuple."""
    return label if isinstance(label, tuple) else () if label is None else (label,)


def table_texts(table: Table) -> Iterator[str]:
    """Yield all texts of a table, both texts of pairs."""
    for example in table.examples:
        yield example.text
        if example.text_pair is not None:
            yield example.text_pair


def encode_table(table: Table, tokenizer: BertTokenizer, max_length: int) -> list[Features]:
    """Return the texts or pairs of a table as inputs of a model."""
    return encode_examples(table.examples, tokenizer, max_length)


def encode_examples(examples: Sequence[Example], tokenizer: BertTokenizer, max_length: int) -> list[Features]:
    """Return texts or pairs as inputs of a model."""
    texts = [example.text for example in examples]
    pairs = None
    if examples and examples[0].text_pair is not None:
        pairs = [example.text_pair or "" for example in examples]
    return encode_texts(tokenizer, texts, pairs, max_length=max_length)
