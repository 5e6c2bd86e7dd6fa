"""Small made-up corpora whose tokens say where they stand."""

from pathlib import Path
from typing import Any

import numpy as np

from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert.corpus.corpus import Corpus, ShardEntry, ShardWriter, vocabulary_hash, write_manifest
from pocketbert.tokenization import BertTokenizer

WORDS = 4000  # ordinary tokens; every third is a piece inside a word

Documents = list[list[list[int]]]


def tokenizer() -> BertTokenizer:
    words = (f"##p{i}" if i % 3 == 2 else f"w{i}" for i in range(WORDS))
    return tokenizer_of((*SPECIAL, *words))


def documents(count: int, seed: int = 0, longest: int = 30) -> Documents:
    """`count` documents of 1 to 12 sentences of 1 to `longest` tokens."""
    random = np.random.default_rng(seed)
    return [
        [
            random.integers(len(SPECIAL), len(SPECIAL) + WORDS, random.integers(1, longest + 1)).tolist()
            for _ in range(random.integers(1, 13))
        ]
        for _ in range(count)
    ]


def tagged(count: int, sentences: int = 10, tokens: int = 8) -> Documents:
    """Documents of which every token is unique, counted upwards through documents and sentences."""
    size = sentences * tokens
    return [
        [[5 + d * size + s * tokens + i for i in range(tokens)] for s in range(sentences)] for d in range(count)
    ]  # fmt: skip


def build(folder: Path, *shards: Documents, held_out: Documents | None = None) -> Corpus:
    words = tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    words.save_pretrained(folder)

    def write(split: str, parts: tuple[Documents, ...]) -> list[dict[str, object]]:
        entries: list[ShardEntry | None] = []
        for number, part in enumerate(parts):
            writer = ShardWriter(len(words))
            for document in part:
                writer.add(document)
            entries.append(writer.save(folder / f"{split}-{number:05}.safetensors"))
        return [vars(entry) for entry in entries if entry is not None]

    write_manifest(
        folder,
        {
            "vocabulary": {"size": len(words), "sha256": vocabulary_hash(words)},
            "train": write("train", shards),
            "held-out": write("held-out", (held_out,) if held_out else ()),
        },
    )
    return Corpus(folder)


def write_corpus(folder: Path, documents: int = 60, vocabulary: int = 60) -> Path:
    """A small corpus of random words that follow each other in a way that can be learned."""
    random = np.random.default_rng(0)
    words = tokenizer_of([*SPECIAL, *(f"w{i}" for i in range(vocabulary - len(SPECIAL)))])
    words.save_pretrained(folder)
    manifest: dict[str, Any] = {"vocabulary": {"sha256": vocabulary_hash(words), "size": vocabulary}}
    for split_name, count in (("train", documents), ("held-out", documents // 4)):
        writer = ShardWriter(vocabulary)
        for _ in range(count):
            first = int(random.integers(5, vocabulary))
            ids = [5 + (first + 7 * i) % (vocabulary - 5) for i in range(60)]
            writer.add([ids[a : a + 6] for a in range(0, 60, 6)])
        entry = writer.save(folder / f"{split_name}-00000.safetensors")
        assert entry is not None
        manifest[split_name] = [vars(entry)]
    write_manifest(folder, manifest)
    return folder
