"""Feature extraction: raw text, on which an encoder is distilled from teachers; it has no labels, and no head."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pocketbert.configs import PreTrainedConfig
from pocketbert.corpus.augmented_pairs import with_augmented_copies
from pocketbert.corpus.corpus import Corpus, Split
from pocketbert.corpus.pretraining_batches import MIN_LENGTH, Pairs, PretrainingBatches
from pocketbert.data.batches import Batches
from pocketbert.errors import ConfigError
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.base import TrainingData
from pocketbert.tokenization import BertTokenizer

SHORT_WORDS = 3, 20  # words of a short sentence
SHORT_PAIRS = 3  # some pairs are shorter by this factor: two sentences
_HELD_OUT, _HELD_OUT_PAIRS = (8, 64), (2, 64)  # evaluation batches, and examples per batch

Batch = dict[str, npt.NDArray[Any]]


class Reading(NamedTuple):
    """How examples are cut from the text: arguments of `PretrainingBatches`, and whether an augmented copy follows."""

    length: int
    pairs: Pairs | None = None
    words: tuple[int, int] | None = None
    augmented: bool = False


class RawText(TrainingData):
    """A folder that `prepare` wrote. Examples are runs of sentences, as in pretraining, without masks."""

    name = "feature-extraction"
    head = "Model"

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        splits: tuple[Split, ...] = ("train", "held-out")
        self.corpora = {split: Corpus(options.data, split) for split in splits}

    def facts(self) -> dict[str, Any]:
        """Return facts of both splits, with a hash of the hashes of their shards."""
        return {
            split: {
                "file": Path(self.options.data).resolve().name,
                "sha256": hashlib.sha256(
                    "".join(shard["sha256"] for shard in corpus.manifest[split]).encode()
                ).hexdigest(),
                "examples": corpus.documents,
                "tokens": corpus.tokens,
            }
            for split, corpus in self.corpora.items()
        }

    def describe(self) -> str:
        """Return a description in one line, for the log."""
        parts = [
            f"{corpus.documents:,} {split} documents ({corpus.tokens:,} tokens)"
            for split, corpus in self.corpora.items()
        ]
        return ", ".join(parts)

    def texts(self) -> Iterable[str]:
        """Raise `ConfigError`: the text is tokenized already."""
        raise ConfigError(f"{self.options.data} was prepared with a vocabulary, which the student must have")

    def configure(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """Return `config` unchanged."""
        return config, True

    def encode(self, tokenizer: BertTokenizer, config: PreTrainedConfig, max_length: int) -> EncodedText:
        """Return the corpora, after checking that they were prepared with this vocabulary."""
        self.corpora["train"].check_vocabulary(tokenizer)
        return EncodedText(self.corpora, max_length, self.options.seed)


class MaskedText(RawText):
    """The same for a student that also learns to fill masked words."""

    head = "ForMaskedLM"


@dataclass(frozen=True)
class EncodedText:
    """Prepared text as packed inputs of an encoder."""

    corpora: dict[Split, Corpus]
    max_length: int
    """Maximum tokens per example."""
    seed: int
    """Seed of the examples of the held-out split."""
    copies: float = 0.0
    """Fraction of the examples of a batch of which there are masked copies."""
    short: float = 0.0
    """Fraction of the tokens of a batch in single short sentences."""
    pairs: float = 0.0
    """Fraction of the tokens of a batch in pairs of texts."""
    merges: bool = False
    """Whether a batch of one part is one micro-batch, and not one for each kind of text, whose lengths differ."""

    def batches(self, *, batch_size: int, parts: int, seed: int) -> Batches:
        """Return the training batches, each divided into `parts` micro-batches."""
        readings = [(self.short, Reading(self.max_length, words=SHORT_WORDS))]
        readings += [(self.pairs / len(self.pair_readings), reading) for reading in self.pair_readings]
        replaced = [round(share * batch_size) for share, _ in readings]
        whole = Reading(self.max_length)
        readers = [(whole, self._reader("train", whole, batch_size - sum(replaced), seed), parts)]
        for number, (examples, (_, reading)) in enumerate(zip(replaced, readings, strict=True), 1):
            if examples > 0:
                length = self._reader("train", reading, 1, seed + number).mean_length * (2 if reading.augmented else 1)
                count = max(1, round(examples * self.max_length / length))
                readers.append((reading, self._reader("train", reading, count, seed + number), 1))
        return _TextBatches(self, readers)

    @property
    def pair_readings(self) -> tuple[Reading, ...]:
        """The kinds of pairs, of which all have the same share of the tokens."""
        sentence = max(MIN_LENGTH, self.max_length // SHORT_PAIRS)
        return (
            Reading(self.max_length, pairs="nsp"), Reading(sentence, pairs="nsp"),
            Reading(max(MIN_LENGTH, self.max_length // 2), words=SHORT_WORDS, augmented=True),
        )  # fmt: skip

    def held_out(self) -> Iterator[Batch]:
        """Return the evaluation batches, always the same; with pairs among the examples, some of each kind as well."""
        yield from self._held_out(Reading(self.max_length), *_HELD_OUT)
        if self.pairs > 0:
            for reading in self.pair_readings:
                yield from self._held_out(reading, *_HELD_OUT_PAIRS)

    def _held_out(self, reading: Reading, batches: int, size: int) -> Iterator[Batch]:
        size = min(size, self._reader("held-out", reading, 1, self.seed).examples)
        reader = self._reader("held-out", reading, size, self.seed)
        return (self.packed(reading, reader, t) for t in range(min(batches, reader.examples // size)))

    def packed(self, reading: Reading, reader: PretrainingBatches, step: int, part: int = 0, parts: int = 1) -> Batch:
        """Return a share of a batch with the original tokens, and with masked copies of its first examples.

        The arrays are those of `PretrainingBatches.batch`, without masks; and for copies those that
        `EncoderDistillation` describes.
        """
        batch: Batch = {**reader.batch(step, part, parts)}
        batch.pop("pair_labels", None)
        masked, positions, labels = batch["input_ids"], batch.pop("masked_positions"), batch.pop("masked_labels")
        batch["input_ids"] = masked.copy()
        batch["input_ids"][positions] = labels
        if reading.augmented:
            return {**with_augmented_copies(batch, self.seed, step)}
        if self.copies > 0:
            examples = len(batch["starts"]) - 1
            starts = batch["starts"][: 1 + max(1, round(self.copies * examples))]
            inside = positions < starts[-1]
            batch |= {"copy_ids": masked[: starts[-1]], "copy_starts": starts}
            batch |= {"masked_positions": positions[inside], "masked_labels": labels[inside]}
        return batch

    def _reader(self, split: Split, reading: Reading, size: int, seed: int) -> PretrainingBatches:
        return PretrainingBatches(
            self.corpora[split], reading.length, size, pairs=reading.pairs, words=reading.words, seed=seed
        )


def merged(batches: Sequence[Batch]) -> Batch:
    """Return one packed batch of the examples of several, first those that have masked copies."""
    copied = [len(one.get("copy_ids", ())) for one in batches]
    halves = [(one, slice(0, count)) for one, count in zip(batches, copied, strict=True)]
    halves += [(one, slice(count, None)) for one, count in zip(batches, copied, strict=True)]
    result = {
        name: np.concatenate([one[name][where] for one, where in halves])
        for name in ("input_ids", "token_type_ids", "position_ids")
    }
    lengths = [np.diff(one["starts"]) for one in batches]
    with_copies = [max(0, len(one.get("copy_starts", ())) - 1) for one in batches]
    lengths = [one[:n] for one, n in zip(lengths, with_copies, strict=True)] + [
        one[n:] for one, n in zip(lengths, with_copies, strict=True)
    ]
    result["starts"] = np.cumsum([0, *np.concatenate(lengths)])
    if any(copied):
        having = [one for one in batches if "copy_ids" in one]
        before = np.cumsum([0, *(len(one["copy_ids"]) for one in having)])
        result["copy_ids"] = np.concatenate([one["copy_ids"] for one in having])
        result["copy_starts"] = np.cumsum([0, *np.concatenate([np.diff(one["copy_starts"]) for one in having])])
        result["masked_labels"] = np.concatenate([one["masked_labels"] for one in having])
        places = [one["masked_positions"] + start for one, start in zip(having, before[:-1], strict=True)]
        result["masked_positions"] = np.concatenate(places)
    return result


class _TextBatches:
    """step → micro-batches: those of each reader, which divides its batches into so many."""

    def __init__(self, text: EncodedText, readers: Sequence[tuple[Reading, PretrainingBatches, int]]) -> None:
        self.text, self.readers = text, readers

    def __call__(self, step: int) -> list[Batch]:
        batches = [
            self.text.packed(reading, reader, step, part, parts)
            for reading, reader, parts in self.readers
            for part in range(parts)
        ]
        _, _, parts = self.readers[0]
        return [merged(batches)] if self.text.merges and parts == 1 and len(batches) > 1 else batches

    def batches_before(self, epoch: int) -> int:
        _, reader, _ = self.readers[0]
        return epoch * reader.examples // reader.size
