"""Text of a prepared corpus for statistics of activations: long examples, and short ones, which corpora lack.

A corpus is read in examples that are as long as fits. Statistics from such examples alone misjudge short inputs, such
as titles, queries and phrases: so a part of the tokens are single sentences and clauses.
"""

import numpy as np

from pocketbert.corpus.corpus import Corpus
from pocketbert.corpus.pretraining_batches import PackedBatch, PretrainingBatches, inner_tokens
from pocketbert.data.batches import random_words
from pocketbert.errors import DataError

SHORT = 1 / 3  # the share of the tokens in single sentences and clauses
CLAUSE = 3, 20  # words
_BATCH = 8192  # tokens


def calibration_text(corpus: Corpus, length: int, tokens: int, seed: int) -> list[PackedBatch]:
    """Return packed batches of examples of similar length, a pure function of the arguments.

    Args:
        corpus: the corpus.
        length: maximum tokens per example, with special tokens.
        tokens: tokens in all examples together, approximately.
        seed: seed of all random choices.

    Raises:
        DataError: the corpus has fewer tokens.
    """
    if corpus.tokens < tokens:
        raise DataError(
            f"{corpus.folder}: has {corpus.tokens:,} tokens in {corpus.split!r}, too few for --init-tokens "
            f"{tokens:,}: prepare more text, or lower --init-tokens"
        )
    examples = [
        *_long(corpus, length, tokens - int(SHORT * tokens), seed),
        *_short(corpus, length, int(SHORT * tokens), seed),
    ]
    examples.sort(key=len)  # stable: a batch has examples of similar length
    batches, batch, size = [], list[np.ndarray](), 0
    for example in examples:
        batch.append(example)
        size += len(example)
        if size >= _BATCH:
            batches.append(_packed(batch))
            batch, size = [], 0
    return [*batches, _packed(batch)] if batch else batches


def _long(corpus: Corpus, length: int, tokens: int, seed: int) -> list[np.ndarray]:
    """Return examples as of pretraining, without masks."""
    reader, examples = PretrainingBatches(corpus, length, 1, seed=seed), list[np.ndarray]()
    total = 0
    for t in range(reader.examples):
        batch = reader.batch(t)
        ids = batch["input_ids"]
        ids[batch["masked_positions"]] = batch["masked_labels"]
        examples.append(ids)
        total += len(ids)
        if total >= tokens:
            break
    return examples


def _short(corpus: Corpus, length: int, tokens: int, seed: int) -> list[np.ndarray]:
    """Return single sentences, and clauses of `CLAUSE` words cut out of sentences, by turns."""
    tokenizer, examples, total = corpus.tokenizer, list[np.ndarray](), 0
    inner = inner_tokens(tokenizer)
    before = np.cumsum([0, *(len(shard.sentences) - 1 for shard in corpus.shards)])
    while total < tokens:
        words = random_words(seed, "calibration sentences", len(examples), 4)
        number = int(words[0] % np.uint64(before[-1]))
        shard = int(np.searchsorted(before, number, side="right")) - 1
        sentences = corpus.shards[shard].sentences
        first, end = sentences[number - before[shard]], sentences[number - before[shard] + 1]
        ids = np.asarray(corpus.shards[shard].tokens[first:end], dtype=np.int64)
        if len(examples) % 2:
            starts = np.flatnonzero(~inner[ids])
            least, most = CLAUSE
            wanted = least + int(words[1] % np.uint64(most - least + 1))
            at = int(words[2] % np.uint64(max(1, len(starts) - wanted + 1)))
            begins = np.append(starts[at : at + wanted + 1], len(ids))
            ids = ids[begins[0] : begins[min(wanted, len(begins) - 1)]]
        ids = ids[: length - 2]
        examples.append(np.concatenate([[tokenizer.cls_token_id], ids, [tokenizer.sep_token_id]]))
        total += len(ids) + 2
    return examples


def _packed(examples: list[np.ndarray]) -> PackedBatch:
    ids = np.concatenate(examples)
    lengths = [len(example) for example in examples]
    return {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "position_ids": np.concatenate([np.arange(length) for length in lengths]),
        "starts": np.cumsum([0, *lengths]),
    }
