"""Feature extraction: raw text, on which an encoder is distilled from teachers; it has no labels, and no head."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pocketbert.configs import PreTrainedConfig
from pocketbert.corpus.corpus import Corpus, Split
from pocketbert.corpus.pretraining_batches import PretrainingBatches, padded
from pocketbert.data.batches import Batches
from pocketbert.errors import ConfigError
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.base import TrainingData
from pocketbert.tokenization import BertTokenizer

_HELD_OUT = 8, 64  # evaluation batches, and examples per batch

Batch = dict[str, npt.NDArray[Any]]


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
        return EncodedText(self.corpora, max_length, int(tokenizer.pad_token_id), self.options.seed)


@dataclass(frozen=True)
class EncodedText:
    """Prepared text as inputs of an encoder."""

    corpora: dict[Split, Corpus]
    max_length: int
    """Maximum tokens per example."""
    pad_token_id: int
    seed: int
    """Seed of the examples of the held-out split."""

    def batches(self, *, batch_size: int, parts: int, seed: int) -> Batches:
        """Return the training batches, each divided into `parts` micro-batches."""
        return _TextBatches(
            self, PretrainingBatches(self.corpora["train"], self.max_length, batch_size, seed=seed), parts
        )

    def held_out(self) -> Iterator[Batch]:
        """Return the evaluation batches, always the same."""
        batches, size = _HELD_OUT
        size = min(size, self._held_out(1).examples)
        reader = self._held_out(size)
        return (self.padded(reader, t) for t in range(min(batches, reader.examples // size)))

    def padded(self, reader: PretrainingBatches, step: int, part: int = 0, parts: int = 1) -> Batch:
        """Return a share of a batch, with the original tokens in the positions of masks."""
        packed = reader.batch(step, part, parts)
        packed["input_ids"][packed["masked_positions"]] = packed["masked_labels"]
        arrays: Batch = {**padded(packed, self.pad_token_id)}
        del arrays["labels"]
        return arrays

    def _held_out(self, size: int) -> PretrainingBatches:
        return PretrainingBatches(self.corpora["held-out"], self.max_length, size, seed=self.seed)


class _TextBatches:
    """step → micro-batches."""

    def __init__(self, text: EncodedText, reader: PretrainingBatches, parts: int) -> None:
        self.text, self.reader, self.parts = text, reader, parts

    def __call__(self, step: int) -> list[Batch]:
        return [self.text.padded(self.reader, step, part, self.parts) for part in range(self.parts)]

    def batches_before(self, epoch: int) -> int:
        return epoch * self.reader.examples // self.reader.size
