"""A prepared corpus: documents as token ids, in memory-mapped shards, and the manifest that lists them.

    OUT/manifest.json                versions, options, sources, vocabulary, counts; size and hash of every shard
    OUT/train-00000.safetensors      tokens     [tokens]         uint16, or uint32 for a larger vocabulary
                                     sentences  [sentences + 1]  int64: beginnings in `tokens`, and the end
                                     documents  [documents + 1]  int64: beginnings in `sentences`, and the end
    OUT/held-out-00000.safetensors   the same for the held-out documents
    OUT/vocab.txt, …                 the tokenizer, as in a model folder

Special tokens are not stored. Shards are memory-mapped, unlike weights: a corpus may be larger than memory.
"""

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from pocketbert.checkpoints.files import read_json, write_text
from pocketbert.checkpoints.safetensors_files import NUMPY_TYPES, write_tensors
from pocketbert.errors import CheckpointError, DataError
from pocketbert.tokenization import AutoTokenizer, BertTokenizer

FORMAT = 1
MANIFEST = "manifest.json"
Split = Literal["train", "held-out"]


class Shard(NamedTuple):
    """The memory-mapped arrays of one file."""

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    sentences: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardEntry:
    """The manifest's entry of a shard."""

    file: str
    bytes: int
    sha256: str
    documents: int
    sentences: int
    tokens: int


class ShardWriter:
    """Collects the documents of one shard, for a vocabulary of this size."""

    def __init__(self, vocabulary_size: int) -> None:
        small = vocabulary_size <= 1 << 16
        self._tokens = array("H" if small else "I")
        self._dtype = np.uint16 if small else np.uint32
        self._sentences, self._documents = array("q", [0]), array("q", [0])

    def add(self, document: Sequence[Sequence[int]]) -> bool:
        """Add the sentences of a document that have tokens; return False if there are none."""
        for sentence in document:
            if len(sentence):
                self._tokens.extend(sentence)
                self._sentences.append(len(self._tokens))
        sentences = len(self._sentences) - 1
        if sentences == self._documents[-1]:
            return False
        self._documents.append(sentences)
        return True

    def save(self, path: Path) -> ShardEntry | None:
        """Write the file atomically; write nothing without documents."""
        if len(self._documents) == 1:
            return None
        arrays = Shard(
            np.asarray(self._tokens, dtype=self._dtype),
            np.asarray(self._sentences, dtype=np.int64),
            np.asarray(self._documents, dtype=np.int64),
        )
        write_tensors(path, arrays._asdict(), {"format": "pocketbert-corpus"})
        return ShardEntry(
            path.name, path.stat().st_size, sha256(path), len(self._documents) - 1, len(self._sentences) - 1,
            len(self._tokens),
        )  # fmt: skip


class Corpus:
    """A folder that `pocketbert prepare` wrote, opened for reading.

    Args:
        folder: the folder of the corpus.
        split: "train" or "held-out".
        verify: read every shard once and compare its hash with the manifest (about a second per gigabyte); otherwise
            compare sizes and headers only.

    Raises:
        DataError: the manifest is missing, damaged or of another version; a shard is missing or has changed; the
            tokenizer is not the one that the shards were made with; or the split has no documents.
    """

    def __init__(self, folder: str | Path, split: Split = "train", *, verify: bool = True) -> None:
        self.folder, self.split = Path(folder), split
        self.manifest = read_manifest(self.folder)
        try:
            entries = [ShardEntry(**entry) for entry in self.manifest[split]]
            self.vocabulary_sha256 = str(self.manifest["vocabulary"]["sha256"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.folder / MANIFEST}: is damaged ({error}): prepare the corpus again") from None
        if not entries:
            raise DataError(f"{self.folder}: has no documents in {split!r}; prepare it with a larger --held-out")
        self.shards = [_open_shard(self.folder, entry, verify) for entry in entries]
        self.documents = sum(entry.documents for entry in entries)
        self.sentences = sum(entry.sentences for entry in entries)
        self.tokens = sum(entry.tokens for entry in entries)

    @cached_property
    def tokenizer(self) -> BertTokenizer:
        """The tokenizer of the corpus, which models trained on it need."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.check_vocabulary(tokenizer)
        return tokenizer

    def check_vocabulary(self, tokenizer: BertTokenizer) -> None:
        """Raise `DataError` unless the ids of the corpus are those of `tokenizer`."""
        if vocabulary_hash(tokenizer) != self.vocabulary_sha256:
            size = self.manifest["vocabulary"].get("size")
            raise DataError(
                f"{self.folder}: was prepared with another vocabulary (of {size} tokens) than this one (of "
                f"{len(tokenizer)}): use the tokenizer of that folder, or prepare the corpus with --tokenizer"
            )


def vocabulary_hash(tokenizer: BertTokenizer) -> str:
    """Return the SHA-256 of all tokens in the order of their ids."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def write_manifest(folder: Path, contents: dict[str, Any]) -> None:
    """Write the manifest, which is the last file of a complete corpus."""
    write_text(folder / MANIFEST, json.dumps({"format": FORMAT, **contents}, indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a corpus. Raises `DataError` if it cannot be read."""
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(
            f"{folder}: is not a prepared corpus (it has no {MANIFEST}): pocketbert prepare SOURCES {folder}"
        )
    try:
        manifest = read_json(path)
    except CheckpointError as error:
        raise DataError(f"{error}: prepare the corpus again") from None
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{path}: has format {manifest.get('format')!r}, and this version reads {FORMAT}: prepare the corpus again"
        )
    return manifest


def sha256(path: Path) -> str:
    """Return the hash of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_shard(folder: Path, entry: ShardEntry, verify: bool) -> Shard:
    path = folder / entry.file
    changed = DataError(
        f"{path}: is not the file that {MANIFEST} lists: restore it, or delete {folder} and prepare the corpus again"
    )
    try:
        if path.stat().st_size != entry.bytes or (verify and sha256(path) != entry.sha256):
            raise changed
        with safe_open(path, framework="numpy"):  # checks the header
            shard = _mapped(path)
    except FileNotFoundError:
        raise DataError(f"{path}: is missing: restore it, or prepare the corpus again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, KeyError):
        raise changed from None
    if [len(shard.documents) - 1, len(shard.sentences) - 1, len(shard.tokens)] != [
        entry.documents, entry.sentences, entry.tokens,
    ]:  # fmt: skip
        raise changed
    return shard


def _mapped(path: Path) -> Shard:
    """Return the arrays of a safetensors file, memory-mapped by one map, as each map keeps a file open."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    whole = np.memmap(path, np.uint8, "r", offset=8 + length)
    arrays = []
    for name in Shard._fields:
        start, stop = entries[name]["data_offsets"]
        arrays.append(whole[start:stop].view(NUMPY_TYPES[entries[name]["dtype"]]))
    return Shard(*arrays)
