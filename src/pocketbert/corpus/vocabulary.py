"""WordPiece vocabularies: training, by the `tokenizers` library, and pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pocketbert.errors import DataError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_vocabulary(texts: Iterable[str], size: int, *, lower_case: bool = True) -> dict[str, int]:
    """Train a vocabulary of at most `size` tokens on `texts`, which are iterated twice; deterministic.

    Returns:
        Token → id, the special tokens first.

    Raises:
        DataError: `size` is too small.
    """
    if size < 100:
        raise DataError(f"a vocabulary of {size} tokens is too small: at least 100 are needed")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    counts = Counter[str]()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    for letter in list(counts):
        if letter.isspace():
            del counts[letter]
    # A letter takes two tokens, at the start of a word and inside it: rare ones must not fill a small vocabulary.
    commonest = sorted(counts, key=lambda letter: (-counts[letter], letter))[: min(1000, size // 4)]
    alphabet = sorted(commonest)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        # By default, the trainer numbers inner letters in the order of a hash map, which differs between processes, and
        # merges equally frequent pairs in the order of those numbers. As special tokens they have fixed numbers.
        special_tokens=[*SPECIAL, *alphabet, *(f"##{letter}" for letter in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))


def prune_vocabulary(vocabulary: Mapping[str, int], counts: Mapping[int, int], size: int) -> dict[str, int]:
    """Return the most frequent tokens of a WordPiece vocabulary.

    Special tokens are kept, and single characters of ASCII or of the texts, at the start of a word and inside it:
    almost any word can still be spelled.

    Args:
        vocabulary: token → id.
        counts: id → frequency.
        size: number of tokens to keep.

    Returns:
        Token → new id, in the same order.

    Raises:
        DataError: `size` is too small for more than letters.
    """
    special = {token for token in vocabulary if token in SPECIAL}
    single = {token for token in vocabulary if len(token.removeprefix("##")) == 1}
    letters = {token for token in single if token.isascii() or counts.get(vocabulary[token])}
    room = size - len(special | letters)
    if room < 1:
        raise DataError(
            f"a vocabulary of {size} tokens is too small: letters and special tokens are already "
            f"{len(special | letters)}"
        )
    others = [token for token in vocabulary if token not in special | letters]
    others.sort(key=lambda token: (-counts.get(vocabulary[token], 0), vocabulary[token]))
    kept = special | letters | set(others[:room])
    return {token: i for i, token in enumerate(sorted(kept, key=vocabulary.__getitem__))}
