"""Raw text, from which an encoder learns what another makes of it: there are no labels, and no head."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pocketbert.configs import PreTrainedConfig
from pocketbert.corpus.corpus import Corpus, Split
from pocketbert.corpus.pretraining_batches import PretrainingBatches, padded
from pocketbert.data.batches import Batches
from pocketbert.errors import ConfigError
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.task import Material
from pocketbert.tokenization import BertTokenizer
from pocketbert.training.objectives import Batch

_HELD_OUT = 8, 64  # batches to measure on, and examples of each


class RawText(Material):
    """A folder that `pocketbert prepare` wrote. Examples are runs of sentences, as in pretraining, without masks."""

    name = "feature-extraction"
    head = "Model"

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        self.corpora = {split: Corpus(options.data, split) for split in ("train", "held-out")}

    def facts(self) -> dict[str, Any]:
        """Both parts, with a hash of their shards' hashes."""
        return {
            split: {
                "file": Path(self.options.data).resolve().name,
                "sha256": hashlib.sha256("".join(one["sha256"] for one in corpus.manifest[split]).encode()).hexdigest(),
                "examples": corpus.documents,
                "tokens": corpus.tokens,
            }
            for split, corpus in self.corpora.items()
        }

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{one.documents:,} in {name} ({one.tokens:,} tokens)" for name, one in self.corpora.items()]
        return f"documents: {', '.join(parts)}"

    def texts(self) -> Iterable[str]:
        """None: the text was tokenised when it was prepared."""
        raise ConfigError(f"{self.options.data} was prepared with a vocabulary, which the student must have")

    def adapt(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """`config` as it is."""
        return config, True

    def encode(self, tokenizer: BertTokenizer, max_length: int) -> None:
        """Check that the student reads the pieces that the corpus is made of."""
        self.corpora["train"].check_vocabulary(tokenizer)
        self.pad_token_id, self.max_length = int(tokenizer.pad_token_id), max_length

    def batches(self) -> Batches:
        """The training batches."""
        return _TextBatches(self, self._reader("train", self.options.batch_size))

    def held_out(self) -> Iterator[Batch]:
        """What the model is measured on: always the same."""
        batches, size = _HELD_OUT
        size = min(size, self._reader("held-out", 1).examples)
        reader = self._reader("held-out", size)
        return (self.padded(reader, t) for t in range(min(batches, reader.examples // size)))

    def padded(self, reader: PretrainingBatches, step: int, part: int = 0, parts: int = 1) -> Batch:
        """A share of a batch, with the words in the places of the masks."""
        packed = reader.batch(step, part, parts)
        packed["input_ids"][packed["masked_positions"]] = packed["masked_labels"]
        arrays: Batch = {**padded(packed, self.pad_token_id)}
        del arrays["labels"]
        return arrays

    def _reader(self, split: Split, size: int) -> PretrainingBatches:
        return PretrainingBatches(self.corpora[split], self.max_length, size, seed=self.options.seed)


class _TextBatches:
    """step → micro-batches."""

    def __init__(self, text: RawText, reader: PretrainingBatches) -> None:
        self.text, self.reader = text, reader

    def __call__(self, step: int) -> list[Batch]:
        parts = self.text.options.accumulation
        return [self.text.padded(self.reader, step, part, parts) for part in range(parts)]

    def batches_before(self, epoch: int) -> int:
        return epoch * self.reader.examples // self.reader.size
