"""Token classification: one tag per word (entities, parts of speech), from files of columns, JSON lines or Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import write_text
from pocketbert.configs import PreTrainedConfig
from pocketbert.data.conll import Sentence, Sentences
from pocketbert.data.examples import Examples, hold_out_groups
from pocketbert.data.labels import merged_labels
from pocketbert.data.tagged import read_tagged
from pocketbert.decode import Output, softmax, word_tags
from pocketbert.errors import DataError
from pocketbert.features import IGNORED, Features, Tokens, fit
from pocketbert.metrics import entity_f1
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tags import OUTSIDE, UNTYPED, chunks, to_iob2, type_of
from pocketbert.tasks.base import Targets, Task
from pocketbert.tasks.evaluation import Evaluation, Scores, write_tsv
from pocketbert.tasks.named_metrics import Judged
from pocketbert.tasks.outcomes import KINDS, Outcomes, Shown, digest, worst
from pocketbert.tokenization import BertTokenizer
from pocketbert.windows import Part, encode_long_tokens, merge


class TagPrediction(NamedTuple):
    """Prediction for a sentence."""

    tags: list[str]
    unread: int  # words without a token, which the tokenizer dropped
    losses: list[float]  # one per word with a token


class TagEvaluation(Evaluation[Sentence, TagPrediction]):
    """Evaluation on tagged sentences.

    Entities count whole, with boundaries and type, as conlleval and seqeval's default mode count them, whatever scheme
    file and model use. Long sentences are read in windows. Words without a token, which the tokenizer drops, count as
    "O".

    Args:
        sets: name → sentences.
        tags: the tags of the model in the order of their ids.
        tokenizer: the tokenizer of the model.
        max_length: maximum tokens per window.
    """

    head = "ForTokenClassification"

    def __init__(
        self, sets: Mapping[str, Sentences], tags: Sequence[str], tokenizer: BertTokenizer, max_length: int
    ) -> None:
        super().__init__(sets, tokenizer, max_length)
        self.tags = tuple(tags)
        self.entities = all(rows.entities for rows in sets.values())
        for rows in sets.values():
            check_tags(rows, self.tags)

    def encode(self, examples: Sequence[Sentence]) -> list[list[Features]]:
        """Return one input per sentence, or its windows."""
        words = [sentence.words for sentence in examples]
        length = fit(self.tokenizer, self.max_length)
        return [[*parts] for parts in encode_long_tokens(self.tokenizer, words, max_length=length, split=True)]

    def decode(
        self, example: Sentence, inputs: Sequence[Tokens | Part[Tokens]], outputs: Sequence[Output]
    ) -> TagPrediction:
        """Return a tag for every word."""
        tokens, logits = merge(inputs, [output["logits"] for output in outputs])
        first = tokens.first_tokens
        ids = {tag: i for i, tag in enumerate(self.tags)}
        gold = to_iob2(example.tags) if self.entities else example.tags
        probabilities = softmax(logits[first].astype(np.float64))
        losses = [
            float(-np.log(max(row[ids[gold[word]]], 1e-12)))
            for row, word in zip(probabilities, tokens.word_ids[first].tolist(), strict=True)
            if gold[word] in ids  # not where file and model use different schemes
        ]
        tags = word_tags(logits, tokens, dict(enumerate(self.tags)))
        return TagPrediction(tags, tokens.words - int(first.sum()), losses)

    def score(self, rows: Examples[Sentence], predictions: Sequence[TagPrediction]) -> Scores:
        """Return entity F1, precision and recall where the tags mark entities; word accuracy; the mean loss."""
        gold = [sentence.tags for sentence in rows.examples]
        predicted = [prediction.tags for prediction in predictions]
        if self.entities:
            gold, predicted = [tuple(to_iob2(tags)) for tags in gold], [to_iob2(tags) for tags in predicted]
        pairs = [pair for tags, other in zip(gold, predicted, strict=True) for pair in zip(tags, other, strict=True)]
        losses = [loss for prediction in predictions for loss in prediction.losses]
        words = {"accuracy": sum(a == b for a, b in pairs) / len(pairs), "loss": float(np.mean(losses or [np.nan]))}
        if not self.entities:
            return words
        scores = entity_f1(predicted, gold)
        return {"f1": scores["f1"], "precision": scores["precision"], "recall": scores["recall"], **words}

    def set_metrics(self) -> list[str]:
        """Return the names of the metrics of a set."""
        return [*(("f1", "precision", "recall") if self.entities else ()), "accuracy", "loss"]

    def compared(self, rows: Examples[Sentence], predictions: Sequence[TagPrediction]) -> tuple[Any, Any]:
        """Return the tags of each sentence, as they are written, and as they are predicted."""
        return [list(sentence.tags) for sentence in rows.examples], [list(one.tags) for one in predictions]

    def judged(self, rows: Examples[Sentence], predictions: Sequence[TagPrediction]) -> Judged:
        """Return the tags of all words, and the predicted ones, as numbers in the order of their names."""
        sides = [
            [tag for one in side for tag in (to_iob2(one.tags) if self.entities else one.tags)]
            for side in (rows.examples, predictions)
        ]
        numbers = {tag: i for i, tag in enumerate(sorted({*sides[0], *sides[1]}))}
        gold, predicted = (np.array([numbers[tag] for tag in side]) for side in sides)
        return Judged(gold, predicted)

    def unpredicted(self, rows: Examples[Sentence]) -> Sequence[TagPrediction]:
        """Return the tags of the file."""
        return [TagPrediction(list(one.tags), 0, []) for one in rows.examples]

    def write_set(self, folder: Path, rows: Examples[Sentence], predictions: Sequence[TagPrediction]) -> None:
        """Write `predictions.conll` (word, tag, predicted tag), for conlleval, and `entities.tsv`: F1 per type."""
        both = list(zip(rows.examples, predictions, strict=True))
        sentences = (
            "".join(
                f"{word} {tag} {predicted}\n"
                for word, tag, predicted in zip(sentence.words, sentence.tags, prediction.tags, strict=True)
            )
            for sentence, prediction in both
        )
        write_text(folder / "predictions.conll", "\n".join(sentences))
        if self.entities:
            header = ("type", "f1", "precision", "recall", "entities")
            table = [
                (kind, *(f"{value:.4f}" for value in values), str(count))
                for kind, *values, count in _by_type(rows, predictions)
            ]
            write_tsv(folder / "entities.tsv", header, table)

    def outcomes(self, name: str) -> Outcomes:
        """Return how many entities and words of each sentence are right, and the sentences with most errors."""
        rows, predictions = self.sets[name], self.predicted[name]
        columns: dict[str, list[Any]] = {column: [] for column in KINDS["tags"]}
        for sentence, prediction in zip(rows.examples, predictions, strict=True):
            gold, tags = (to_iob2(one) if self.entities else list(one) for one in (sentence.tags, prediction.tags))
            actual, proposed = ({*chunks(one)} if self.entities else set() for one in (gold, tags))
            right = sum(a == b for a, b in zip(gold, tags, strict=True))
            numbers = {
                "right": int(right == len(gold)),
                "hits": len(actual & proposed),
                "proposed": len(proposed),
                "actual": len(actual),
                "right_words": right,
                "words": len(gold),
                "loss": round(float(sum(prediction.losses)), 5),
                "losses": len(prediction.losses),
            }
            for column, value in numbers.items():
                columns[column].append(value)
        errors = [
            Shown(one.line, _marked(one.words, one.tags), _marked(one.words, predictions[i].tags), " ".join(one.words))
            for i, one in ((i, rows.examples[i]) for i in worst(_wrong_words(columns)))
        ]
        return Outcomes(
            kind="tags",
            file=rows.path.name,
            examples=digest(one.words for one in rows.examples),
            answers=digest(one.tags for one in rows.examples),
            lines=[one.line for one in rows.examples],
            metrics=self.scored.get(name) or self.score(rows, predictions),
            columns=columns,
            errors=errors,
            types=_by_type(rows, predictions) if self.entities else [],
        )


def _by_type(
    rows: Examples[Sentence], predictions: Sequence[TagPrediction]
) -> list[tuple[str, float, float, float, int]]:
    """Return type, F1, precision, recall and number of the entities of each type."""
    both = zip(rows.examples, predictions, strict=True)
    kinds = {kind for one, other in both for tags in (one.tags, other.tags) for kind, _, _ in chunks(tags)}
    found = []
    for kind in sorted(kinds):
        gold, predicted = (
            [[tag if type_of(tag) == kind else OUTSIDE for tag in tagged.tags] for tagged in side]
            for side in (rows.examples, predictions)
        )
        scores, count = entity_f1(predicted, gold), sum(len(chunks(tags)) for tags in gold)
        found.append((kind or UNTYPED, scores["f1"], scores["precision"], scores["recall"], count))
    return found


def _wrong_words(columns: Mapping[str, Sequence[int]]) -> list[float]:
    return [float(all_ - right) for all_, right in zip(columns["words"], columns["right_words"], strict=True)]


def _marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """Return the words that have a tag other than O, with it."""
    return ", ".join(f"{word} {tag}" for word, tag in zip(words, tags, strict=True) if tag != OUTSIDE)


class Tagging(Task[Sentence]):
    """Sentences of tagged words. The target of a word stands at its first token, in the window that decides it."""

    name = "token-classification"
    head = TagEvaluation.head
    per_token = True

    train: Sentences
    sets: Mapping[str, Sentences]

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        self.train = self._read(options.data)
        if options.eval_data is not None:
            self.sets = {"dev": self._read(options.eval_data)}
        else:
            self.train, held = hold_out_groups(self.train, lambda i: i, options.eval_fraction, options.seed)
            self.sets = {"dev": replace(held, bad=(), skipped=0)}
        self.tags = options.labels or tuple(self.train.tags())
        if len(self.tags) < 2:
            raise DataError(f"{self.train.path}: all words have the tag {self.tags[0]!r}; two tags are needed")
        check_tags(self.train, self.tags)
        for rows in self.sets.values():
            check_tags(rows, self.tags)

    def _read(self, path: Path | str) -> Sentences:
        options = self.options
        rows = read_tagged(
            path, options.text_column, options.label_column, options.labels, known=options.labels or (),
            skip_bad=options.skip_bad,
        )  # fmt: skip
        return with_merged_tags(rows, options.labels or (), merge=options.merge_labels)

    def label_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        """Return the tags in the order of the model's outputs, if they have the same names."""
        tags = tuple(config.id2label[i] for i in sorted(config.id2label))
        return tags if sorted(tags) == sorted(self.tags) else self.tags

    def file_facts(self, rows: Examples[Sentence]) -> dict[str, Any]:
        """Return the number of words, and the frequency of each tag."""
        counts = Counter(chain.from_iterable(sentence.tags for sentence in rows.examples))
        return {"words": sum(counts.values()), "labels": counts}

    def describe(self) -> str:
        """Return a description in one line, for the log."""
        return f"{self.counts()} (sentences); {len(self.tags)} tags: {', '.join(self.tags[:10])}"

    def texts(self) -> Iterator[str]:
        """Return all training sentences."""
        return (" ".join(sentence.words) for sentence in self.train.examples)

    def configure(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """Return `config` for these tags, and whether a head that was trained with `config` has the same tags."""
        tags = self.label_names(config)
        fits = sorted(config.id2label.values()) == sorted(self.tags)
        return config.replace(id2label=dict(enumerate(tags)), problem_type=None), fits

    def evaluation(self, tokenizer: BertTokenizer, config: PreTrainedConfig, max_length: int) -> TagEvaluation:
        """Return the evaluation on the dev sets."""
        return TagEvaluation(self.sets, self.label_names(config), tokenizer, max_length)

    def targets(self, groups: list[list[Any]], config: PreTrainedConfig) -> tuple[list[Features], Targets]:
        """Return one input per sentence or window, and the tag of each word at its first token.

        Inputs without any tag are left out: sentences of which the tokenizer knows nothing.
        """
        ids, entities = {tag: i for i, tag in enumerate(self.label_names(config))}, self.train.entities
        features: list[Features] = []
        targets: list[npt.NDArray[np.int64]] = []
        for sentence, parts in zip(self.train.examples, groups, strict=True):
            whole: Tokens = parts[0].whole if isinstance(parts[0], Part) else parts[0]
            tags = whole.align([ids[tag] for tag in (to_iob2(sentence.tags) if entities else sentence.tags)])
            for part in parts:
                labels = tags
                if isinstance(part, Part):
                    labels = np.full(len(part), IGNORED, dtype=np.int64)
                    labels[part.own] = tags[part.decided]
                if (labels >= 0).any():
                    features.append(part)
                    targets.append(labels)
        return features, {"labels": targets}


def with_merged_tags(rows: Sentences, names: Sequence[str], *, merge: bool) -> Sentences:
    """Return sentences in which tags that differ in case or spaces alone are one; unless `merge`, only note them."""
    counts = Counter(chain.from_iterable(sentence.tags for sentence in rows.examples))
    other = merged_labels(rows.path, counts, names, merge=merge)
    return rows.retagged({tag: other.get(tag, tag) for tag in counts}) if other else rows


def check_tags(rows: Sentences, tags: Sequence[str]) -> None:
    """Raise `DataError` where the tag of a word (of entities: its type) is not among `tags`."""
    known = {type_of(tag) if rows.entities else tag for tag in tags} | ({None} if rows.entities else set())
    for sentence in rows.examples:
        for i, tag in enumerate(sentence.tags):
            if (type_of(tag) if rows.entities else tag) not in known:
                raise DataError(
                    f"{rows.path}, line {sentence.line + i}: the tag {tag!r} of {sentence.words[i]!r:.40} is not a tag "
                    f"of the model ({', '.join(tags[:20])})"
                )
