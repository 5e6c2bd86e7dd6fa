"""Options of corpus preparation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketbert.corpus.executors import ExecutorName
from pocketbert.errors import ConfigError
from pocketbert.tokenization import BertTokenizer


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of `prepare`; the command's options have the same names.

    The vocabulary comes either from a `tokenizer` or from the sources themselves (`vocab_size`).

    Raises `ConfigError` for values that are out of range or contradict each other.
    """

    sources: tuple[str | Path, ...]
    """Files, folders of files, or `hub:NAME` for a data set of the hub; see `pocketbert.corpus.sources`."""
    output: str | Path
    """The folder for the corpus: new, or left unfinished by an earlier run with the same options."""
    tokenizer: str | Path | BertTokenizer | None = None
    """A tokenizer, a folder with one, a name on the hub, or a `vocab.txt`."""
    vocab_size: int | None = None
    """Train a new vocabulary of this size on the sources."""
    cased: bool = False
    """Keep capital letters and accents in a new vocabulary or one from a `vocab.txt`."""

    held_out: float = 0.03
    """Fraction of documents in the held-out split; SqueezeBERT's is said to have been 3 %."""
    similarity: float = 0.8
    """Drop near-duplicates at this Jaccard similarity or above; 0 keeps all."""
    language: str = "en"
    """Language of the text, for sentence boundaries: an ISO 639 code."""
    seed: int = 42
    """Seed of the held-out split."""

    workers: int | None = None
    """Worker processes [default: one per processor]."""
    engine: ExecutorName = "local"
    """local (processes of this machine) or ray; both write the same bytes."""
    address: str | None = None
    """Address of a Ray cluster, or auto [default: this machine alone]."""

    def __post_init__(self) -> None:
        if (self.tokenizer is None) == (self.vocab_size is None):
            raise ConfigError("give either a tokenizer (folder, hub name or vocab.txt) or the size of a new vocabulary")
        if not 0 <= self.held_out < 1 or not 0 <= self.similarity <= 1:
            raise ConfigError(f"{self.held_out=} and {self.similarity=} must be from 0 to 1")
        if self.seed < 0:
            raise ConfigError(f"{self.seed=} must not be negative")

    def content(self) -> dict[str, Any]:
        """Return the options that decide the contents of the corpus, as its manifest records them."""
        return {name: getattr(self, name) for name in ("language", "held_out", "similarity", "seed")}
