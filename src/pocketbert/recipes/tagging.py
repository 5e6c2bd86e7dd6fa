"""Tagging of words: names and the like, or parts of speech, from the columns of CoNLL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import write_text
from pocketbert.configs import PreTrainedConfig
from pocketbert.data.conll import Sentence, Sentences, read_conll, to_iob2
from pocketbert.data.examples import Examples, hold_out_groups
from pocketbert.decode import Output, chunks, softmax, word_tags
from pocketbert.errors import ConfigError, DataError
from pocketbert.features import Features, Tokens, encode_words
from pocketbert.metrics import entity_f1
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.task import Evaluation, Scores, Task, write_tsv
from pocketbert.tokenization import BertTokenizer


class TagPrediction(NamedTuple):
    """The tags of one sentence, how many of its words no token stands for, and the loss."""

    tags: list[str]
    unread: int
    losses: list[float]  # of each word that is read


class TagEvaluation(Evaluation[Sentence, TagPrediction]):
    """Tagged sentences, and what a model scores on them.

    Entities count whole, with limits and type, as conlleval and seqeval's default mode count them, whatever scheme file
    and model use. Words that were cut off, or that the tokenizer does not see, count as "O".

    Args:
        sets: name → sentences.
        tags: of the model, in the order of their ids.
        tokenizer: the model's.
        max_length: how many tokens of a sentence are read.
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
        """One input a sentence."""
        words = [one.words for one in examples]
        return [[one] for one in encode_words(self.tokenizer, words, max_length=self.max_length)]

    def read(self, example: Sentence, inputs: Sequence[Tokens], outputs: Sequence[Output]) -> TagPrediction:
        """A tag for every word."""
        [tokens], logits = inputs, outputs[0]["logits"]
        first = tokens.first_tokens
        ids = {tag: i for i, tag in enumerate(self.tags)}
        gold = to_iob2(example.tags) if self.entities else example.tags
        shares = softmax(logits[first].astype(np.float64))
        losses = [
            float(-np.log(max(row[ids[gold[word]]], 1e-12)))
            for row, word in zip(shares, tokens.word_ids[first].tolist(), strict=True)
            if gold[word] in ids  # not where file and model use different schemes
        ]
        found = word_tags(logits, tokens, dict(enumerate(self.tags)))
        return TagPrediction(found, tokens.words - int(first.sum()), losses)

    def score(self, rows: Examples[Sentence], predictions: Sequence[TagPrediction]) -> Scores:
        """Entity F1, precision and recall where the tags mark entities; the share of right words; the mean loss."""
        gold, found = [one.tags for one in rows.examples], [one.tags for one in predictions]
        if self.entities:
            gold, found = [tuple(to_iob2(tags)) for tags in gold], [to_iob2(tags) for tags in found]
        pairs = [(a, b) for one, other in zip(gold, found, strict=True) for a, b in zip(one, other, strict=True)]
        losses = [loss for one in predictions for loss in one.losses]
        right = {"accuracy": sum(a == b for a, b in pairs) / len(pairs), "loss": float(np.mean(losses or [np.nan]))}
        if not self.entities:
            return right
        scores = entity_f1(found, gold)
        return {"f1": scores["f1"], "precision": scores["precision"], "recall": scores["recall"], **right}

    def metrics_of_a_set(self) -> list[str]:
        """Their names."""
        return [*(("f1", "precision", "recall") if self.entities else ()), "accuracy", "loss"]

    def write_set(self, folder: Path, rows: Examples[Sentence], predictions: Sequence[TagPrediction]) -> None:
        """`predictions.conll` (word, tag, predicted tag), for conlleval; `entities.tsv`: the F1 of each type."""
        sentences = (
            "".join(f"{word} {tag} {said}\n" for word, tag, said in zip(one.words, one.tags, guess.tags, strict=True))
            for one, guess in zip(rows.examples, predictions, strict=True)
        )
        write_text(folder / "predictions.conll", "\n".join(sentences))
        if self.entities:
            kinds = [
                [{kind for kind, _, _ in chunks(tags)} for tags in (one.tags, guess.tags)]
                for one, guess in zip(rows.examples, predictions, strict=True)
            ]
            header = ("type", "f1", "precision", "recall", "entities")
            table = []
            for kind in sorted(set().union(*chain.from_iterable(kinds))):
                gold, found = (
                    [[tag if tag[2:] == kind else "O" for tag in one.tags] for one in side]
                    for side in (rows.examples, predictions)
                )
                scores = entity_f1(found, gold)
                count = sum(len(chunks(tags)) for tags in gold)
                values = [f"{scores[name]:.4f}" for name in header[1:4]]
                table.append((kind, *values, str(count)))
            write_tsv(folder / "entities.tsv", header, table)


class Tagging(Task[Sentence]):
    """Sentences of tagged words. The model learns one tag a word, at the word's first token."""

    name = "token-classification"
    head = TagEvaluation.head
    per_token = True

    train: Sentences
    sets: Mapping[str, Sentences]

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        self.train = read_sentences(options.data, options.text_column, options.label_column)
        if options.eval_data is not None:
            self.sets = {"dev": read_sentences(options.eval_data, options.text_column, options.label_column)}
        else:
            self.train, held = hold_out_groups(self.train, lambda i: i, options.eval_fraction, options.seed)
            self.sets = {"dev": held}
        self.tags = options.labels or tuple(self.train.tags())
        if len(self.tags) < 2:
            raise DataError(f"{self.train.path}: all words have the tag {self.tags[0]!r}; two tags are needed")
        check_tags(self.train, self.tags)
        for rows in self.sets.values():
            check_tags(rows, self.tags)

    @property
    def names(self) -> tuple[str, ...]:
        """The tags."""
        return self.tags

    def about(self, rows: Examples[Sentence]) -> dict[str, Any]:
        """Words, and how often each tag occurs."""
        counts = Counter(chain.from_iterable(one.tags for one in rows.examples))
        return {"words": sum(counts.values()), "labels": counts}

    def describe(self) -> str:
        """One line for people."""
        return f"{self.counts()} (sentences); {len(self.tags)} tags: {', '.join(self.tags[:10])}"

    def texts(self) -> Iterator[str]:
        """All training sentences."""
        return (" ".join(one.words) for one in self.train.examples)

    def adapt(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """`config` for these tags, and whether a tagger that was trained with `config` has the same ones."""
        theirs = tuple(config.id2label[i] for i in sorted(config.id2label))
        fits = sorted(theirs) == sorted(self.tags)
        self.tags = theirs if fits else self.tags
        return config.replace(id2label=dict(enumerate(self.tags)), problem_type=None), fits

    def evaluate_with(self, tokenizer: BertTokenizer, max_length: int) -> TagEvaluation:
        """The evaluation on `sets`."""
        return TagEvaluation(self.sets, self.tags, tokenizer, max_length)

    def learned(self, groups: list[list[Any]]) -> tuple[list[Features], Mapping[str, Any]]:
        """One input a sentence, and the tag of each word at its first token; sentences without a word are left out."""
        ids, entities = {tag: i for i, tag in enumerate(self.tags)}, self.train.entities
        features: list[Features] = []
        targets: list[npt.NDArray[np.int64]] = []
        for one, [tokens] in zip(self.train.examples, groups, strict=True):
            labels = tokens.align([ids[tag] for tag in (to_iob2(one.tags) if entities else one.tags)])
            if (labels >= 0).any():
                features.append(tokens)
                targets.append(labels)
        return features, {"labels": targets}


def read_sentences(path: str | Path, word_column: str | None = None, tag_column: str | None = None) -> Sentences:
    """Sentences whose columns go by numbers, from 1, as a shell gives them."""
    numbers: dict[str, int] = {}
    for name, flag, value in (("word", "text", word_column), ("tag", "label", tag_column)):
        if value is not None:
            if not value.isdecimal() or int(value) < 1:
                raise ConfigError(f"--{flag}-column {value}: the columns of CoNLL have numbers, from 1")
            numbers[f"{name}_column"] = int(value)
    return read_conll(path, **numbers)


def check_tags(rows: Sentences, tags: Sequence[str]) -> None:
    """Raise `DataError` where a word has a tag, or for entities a type, that is not among `tags`."""
    known = {tag[2:] for tag in tags if tag != "O"} if rows.entities else set(tags)
    for one in rows.examples:
        for i, tag in enumerate(one.tags):
            if (tag[2:] if rows.entities else tag) not in known and not (rows.entities and tag == "O"):
                raise DataError(
                    f"{rows.path}, line {one.line + i}: the tag {tag!r} of {one.words[i]!r:.40} is none that the model "
                    f"has ({', '.join(tags[:20])})"
                )
