"""A WordPiece vocabulary from texts, by the `tokenizers` library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pocketbert.errors import DataError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_vocabulary(texts: Iterable[str], size: int, *, lower_case: bool = True) -> dict[str, int]:
    """Learn at most `size` pieces from `texts`, which are gone through twice; the same give the same vocabulary.

    Returns:
        Piece → id, the special tokens first.

    Raises:
        DataError: `size` leaves no room for pieces.
    """
    if size < 100:
        raise DataError(f"a vocabulary of {size} pieces is too small: ask for at least 100")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    counts = Counter[str]()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    for letter in list(counts):
        if letter.isspace():
            del counts[letter]
    # Every letter takes two places, as the start of a word and inside it: rare ones may not fill a small vocabulary.
    commonest = sorted(counts, key=lambda letter: (-counts[letter], letter))[: min(1000, size // 4)]
    alphabet = sorted(commonest)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        # Left to itself, the trainer numbers inner letters in the order of a hash map, another in every process, and
        # equally frequent pairs are merged in the order of those numbers. Named in advance, they have fixed numbers.
        special_tokens=[*SPECIAL, *alphabet, *(f"##{letter}" for letter in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))


def prune_vocabulary(vocabulary: Mapping[str, int], counts: Mapping[int, int], size: int) -> dict[str, int]:
    """The part of a WordPiece vocabulary that some texts use most.

    The special tokens stay, and so do single characters of ASCII or of the texts, as the start of a word and inside it:
    almost any word can still be spelled.

    Args:
        vocabulary: piece → id.
        counts: id → how often it occurs.
        size: how many pieces to keep.

    Returns:
        Piece → new id; the order stays.

    Raises:
        DataError: `size` leaves no room for more than letters.
    """
    special = {piece for piece in vocabulary if piece in SPECIAL}
    single = {piece for piece in vocabulary if len(piece.removeprefix("##")) == 1}
    letters = {piece for piece in single if piece.isascii() or counts.get(vocabulary[piece])}
    room = size - len(special | letters)
    if room < 1:
        raise DataError(
            f"a vocabulary of {size} pieces has no room for more than {len(special | letters)} letters and special "
            "tokens: ask for more"
        )
    others = [piece for piece in vocabulary if piece not in special | letters]
    others.sort(key=lambda piece: (-counts.get(vocabulary[piece], 0), vocabulary[piece]))
    kept = special | letters | set(others[:room])
    return {piece: i for i, piece in enumerate(sorted(kept, key=vocabulary.__getitem__))}
