"""Small vocabularies and the tokenizers made of them."""

from collections.abc import Iterable
from typing import Any

from pocketbert.tokenization import BertTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def spelling(*words: str) -> list[str]:
    """Special tokens, every letter at the start of a word and inside one, and `words`: no word is unknown."""
    return [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *words]


def tokenizer_of(pieces: Iterable[str], kind: type[BertTokenizer] = BertTokenizer, **options: Any) -> BertTokenizer:
    """A tokenizer of the class `kind` whose ids count `pieces` in their order."""
    return kind(vocab={piece: i for i, piece in enumerate(pieces)}, **options)
