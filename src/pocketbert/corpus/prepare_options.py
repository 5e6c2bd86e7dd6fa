"""Options of corpus preparation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.errors import ConfigError
from pocketbert.options import Options, Panel, argument, option

if TYPE_CHECKING:
    from pocketbert.data.executors import ExecutorName
    from pocketbert.tokenization import BertTokenizer

VOCABULARY = Panel("Vocabulary")
EXECUTION = Panel("Execution")


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(Options):
    """Options of `prepare`; the command's options have the same names.

    The vocabulary comes either from a `tokenizer`, which Python callers may pass as such, or from the sources
    themselves (`vocab_size`).

    Raises `ConfigError` for values that are out of range or contradict each other.
    """

    sources: tuple[str | Path, ...] = field(
        metadata=argument(
            "Text, JSON lines, Parquet or WikiExtractor's output: files, folders of files, or hub:NAME.",
            metavar="SOURCE...",
            repeated=True,
        )
    )
    output: Path | str = field(
        metadata=argument("Output folder: a new one, or that of an interrupted run with the same options.")
    )
    tokenizer: str | Path | BertTokenizer | None = field(
        default=None,
        metadata=VOCABULARY.option(
            "Tokenizer: a folder, hub name or vocab.txt.", "FOLDER|NAME|FILE", names=["--tokenizer", "-t"]
        ),
    )
    vocab_size: int | None = field(
        default=None, metadata=VOCABULARY.option("Size of a new vocabulary, trained on the sources.", "N")
    )
    cased: bool = field(
        default=False,
        metadata=VOCABULARY.option("Keep capital letters and accents in a new vocabulary, or one from a vocab.txt."),
    )

    held_out: float = field(default=0.03, metadata=option("Fraction of documents in the held-out split.", "X"))
    similarity: float = field(
        default=0.8, metadata=option("Drop near-duplicates at this Jaccard similarity or above; 0 keeps all.", "X")
    )
    language: str = field(default="en", metadata=option("Language, for sentence boundaries: an ISO 639 code.", "CODE"))
    seed: int = field(default=42, metadata=option("Seed of the held-out split.", "N"))

    workers: int | None = field(
        default=None, metadata=EXECUTION.option("Worker processes.", "N", default="one per processor")
    )
    engine: ExecutorName = field(
        default="local",
        metadata=EXECUTION.option(
            "Processes of this machine, or a Ray cluster; the result is the same.", choices=("local", "ray")
        ),
    )
    address: str | None = field(
        default=None,
        metadata=EXECUTION.option("Address of a Ray cluster, or auto.", "HOST:PORT", default="this machine only"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tokenizer is None) == (self.vocab_size is None):
            raise ConfigError("choose a vocabulary: give either --tokenizer or --vocab-size")
        self._check("held_out", 0 <= self.held_out < 1, "must lie in [0, 1)")
        self._check("similarity", 0 <= self.similarity <= 1, "must lie in [0, 1]")
        self._check("seed", self.seed >= 0, "must not be negative")
        self._check("address", self.address is None or self.engine == "ray", "needs --engine ray")

    def content(self) -> dict[str, Any]:
        """Return the options that decide the contents of the corpus, as its manifest records them."""
        return {name: getattr(self, name) for name in ("language", "held_out", "similarity", "seed")}
