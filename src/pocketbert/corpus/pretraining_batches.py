"""Pretraining batches from a prepared corpus: segments, pairs and masks, drawn for every batch.

Rules and their sources:

- **Examples** are runs of consecutive sentences of one document, which end as soon as they have as many tokens as fit;
  with a probability of 0.1 an example ends earlier, after a random number of tokens (google-research/bert,
  create_pretraining_data.py, which draws this once per document: it would cut a whole book into short examples).
  With `words`, each example is instead one sentence with so many words.
- **Truncation** removes tokens of the longer segment, from its beginning and its end (the same file). The number of
  tokens from the beginning is uniform here, where BERT decides for every token.
- **NSP** (BERT): an example is divided between two sentences, and half of the time the second part is replaced by
  sentences of another document, from a random sentence on. An example of one sentence always gets such a second part.
  Replaced text is not used until the next epoch, where BERT makes another example of it.
- **SOP** (ALBERT, section 3.1): the same two parts, half of the time in the wrong order. An example of one sentence has
  no order: it stays a single segment, and its label is `IGNORED`.
- **Masks** (BERT): 15 % of an example's tokens, rounded, at least one; of these 80 % become [MASK], 10 % a random
  token that is not special, 10 % stay. With whole words, as in BERT's later models, the tokens of a word are chosen
  together, and words that would exceed the number are skipped; then each token is replaced independently.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from pocketbert.corpus.corpus import Corpus, Shard
from pocketbert.data.batches import Indices, random_order, random_words
from pocketbert.errors import ConfigError, DataError
from pocketbert.features import IGNORED
from pocketbert.tokenization import BertTokenizer

Pairs = Literal["sop", "nsp"]
PackedBatch = dict[str, npt.NDArray[np.int64]]
Words = npt.NDArray[np.uint64]

MIN_LENGTH = 8  # tokens of an example
SHORT = 0.1  # the probability that an example ends early
_OWN_WORDS = 8  # random words per example, besides those of its tokens
_SPLIT, _COIN, _DOCUMENT, _SENTENCE, _FRONT_A, _FRONT_B = range(6)


class PretrainingBatches:
    """Batch *t* of packed examples, a pure function of the seed and of *t*.

    An epoch is a permutation of all examples. Batches are consecutive over all epochs, so all have the same number of
    examples, and one may hold the end of an epoch and the beginning of the next.

    Args:
        corpus: the corpus.
        length: maximum tokens per example, with special tokens.
        batch: examples per batch, over all ranks.
        pairs: objective of the second segment: "sop", "nsp", or None for single segments.
        whole_words: whether the tokens of a word are masked together.
        masked: fraction of the tokens to predict.
        words: least and most words of a sentence; then examples are single sentences. Punctuation counts as words.
        seed: seed of all random choices.

    Raises:
        DataError: the corpus has fewer examples than a batch, or, for NSP, only one document.
        ConfigError: a length, batch size or fraction is out of range.
    """

    def __init__(
        self,
        corpus: Corpus,
        length: int,
        batch: int,
        *,
        pairs: Pairs | None = None,
        whole_words: bool = False,
        masked: float = 0.15,
        words: tuple[int, int] | None = None,
        seed: int = 42,
    ) -> None:
        if length < MIN_LENGTH:
            raise ConfigError(f"examples of {length} tokens are too short: at least {MIN_LENGTH} are needed")
        if batch < 1 or not 0 < masked < 1:
            raise ConfigError(f"{batch=} must be at least 1, and {masked=} must lie between 0 and 1")
        if pairs == "nsp" and corpus.documents < 2:
            raise DataError(f"{corpus.folder}: has only one document, and NSP needs two: use --pairs sop, or more text")
        self.corpus, self.length, self.size, self.pairs = corpus, length, batch, pairs
        self.whole_words, self.masked, self.seed = whole_words, masked, seed
        tokenizer = corpus.tokenizer
        self._cls, self._sep, self._mask = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
        self._special = np.zeros(len(tokenizer), dtype=bool)
        self._special[tokenizer.all_special_ids] = True
        self._ordinary = np.flatnonzero(~self._special)
        self._inner = inner_tokens(tokenizer)
        most = length - (2 if pairs is None else 3)
        runs = [
            _runs(shard, most, seed, number) if words is None else _single_sentences(shard, self._inner, words)
            for number, shard in enumerate(corpus.shards)
        ]
        self._runs = np.concatenate(runs)  # [examples, 2] first sentence, and end (exclusive)
        self._examples_before = np.cumsum([0, *map(len, runs)])
        self._documents_before = np.cumsum([0, *(len(shard.documents) - 1 for shard in corpus.shards)])
        if self.examples < batch:
            raise DataError(
                f"{corpus.folder}: has {self.examples:,} examples of {length} tokens in {corpus.split!r}, and a batch "
                f"needs {batch:,}: use smaller batches, or more text"
            )
        self._order: tuple[int, Indices] = (-1, np.empty(0, np.int64))

    @property
    def examples(self) -> int:
        """Number of examples per epoch."""
        return len(self._runs)

    @property
    def mean_length(self) -> float:
        """Mean tokens per example with special tokens, before truncation."""
        total = 0
        for number, shard in enumerate(self.corpus.shards):
            first, last = self._runs[self._examples_before[number] : self._examples_before[number + 1]].T
            total += int((shard.sentences[last] - shard.sentences[first]).sum())
        return total / self.examples + (2 if self.pairs is None else 3)

    def batch(self, t: int, rank: int = 0, ranks: int = 1) -> PackedBatch:
        """Return the share of batch `t` = 0, 1, 2, … of `rank` of `ranks`; all shares in order are the batch.

        Gradients can be accumulated over shares as well: part p of P on rank r of R is share r·P + p of R·P.

        Returns:
            Arrays of int64, the examples end to end and without padding: `input_ids`, `token_type_ids` and
            `position_ids` [tokens]; `starts` [examples + 1], where each begins, and the end; `masked_positions`
            [masked] into the tokens and `masked_labels` [masked]; with pairs `pair_labels` [examples]: 0 as written, 1
            swapped (SOP) or random (NSP), `IGNORED` for an example of a single segment.
        """
        if not 0 <= rank < ranks <= self.size:
            raise ConfigError(f"a batch of {self.size} examples has no share {rank} of {ranks}")
        start, stop = self.size * rank // ranks, self.size * (rank + 1) // ranks
        width = _OWN_WORDS + -(-self.length // 4) * 4
        words = random_words(self.seed, "pretraining", t, (stop - start) * width, start * width).reshape(-1, width)
        chosen = self._chosen(np.arange(t * self.size + start, t * self.size + stop))
        shards, segments, labels = self._segments(chosen, words)
        batch = self._packed(shards, segments)
        self._mask_tokens(batch, segments, words[:, _OWN_WORDS:])
        if labels is not None:
            batch["pair_labels"] = labels
        return batch

    def members(self, t: int) -> Indices:
        """Return [batch] the examples of batch `t`, over all ranks."""
        return self._chosen(np.arange(t * self.size, (t + 1) * self.size))

    def _chosen(self, numbers: Indices) -> Indices:
        """Return the examples with these numbers, which count over all epochs."""
        epochs, positions = np.divmod(numbers, self.examples)
        chosen = np.empty_like(numbers)
        for epoch in np.unique(epochs).tolist():
            known, order = self._order
            if known != epoch:
                order = random_order(self.seed, "pretraining examples", epoch, self.examples)
                self._order = (epoch, order)  # in one assignment, as several threads may do this
            chosen[epochs == epoch] = order[positions[epochs == epoch]]
        return chosen

    # ── segments: [examples, 2 segments] of shards, and [examples, 2 segments, first and end] of tokens in them ──

    def _segments(self, chosen: Indices, words: Words) -> tuple[Indices, Indices, Indices | None]:
        home = np.searchsorted(self._examples_before, chosen, side="right") - 1
        shards = np.stack([home, home], axis=1)
        segments = np.zeros((len(chosen), 2, 2), dtype=np.int64)
        single = np.ones(len(chosen), dtype=bool)
        own = np.zeros(len(chosen), dtype=np.int64)  # the document of each
        for number in np.unique(home).tolist():
            rows, shard = np.flatnonzero(home == number), self.corpus.shards[number]
            first, last = self._runs[chosen[rows]].T.astype(np.int64)
            count = last - first
            middle = last
            if self.pairs is not None:
                at = first + 1 + _below(words[rows, _SPLIT], np.maximum(1, count - 1))
                middle = np.where(count > 1, at, last)
            single[rows] = middle == last
            begin, cut, end = shard.sentences[first], shard.sentences[middle], shard.sentences[last]
            segments[rows] = np.stack([begin, cut, cut, end], axis=1).reshape(-1, 2, 2)
            own[rows] = self._documents_before[number] + np.searchsorted(shard.documents, first, side="right") - 1
        labels = (words[:, _COIN] >> np.uint64(63)).astype(np.int64)
        if self.pairs == "sop":
            swapped = (labels == 1) & ~single
            segments[swapped] = segments[swapped, ::-1]
            labels[single] = IGNORED
        elif self.pairs == "nsp":
            labels[single] = 1
            self._replace(np.flatnonzero(labels), shards, segments, own, words)
        return shards, self._truncated(segments, words), None if self.pairs is None else labels

    def _replace(self, rows: Indices, shards: Indices, segments: Indices, own: Indices, words: Words) -> None:
        """Replace the second segments of `rows` by sentences of other documents."""
        lengths = segments[rows, :, 1] - segments[rows, :, 0]
        wanted = np.where(lengths[:, 1] > 0, lengths[:, 1], np.maximum(1, self.length - 3 - lengths[:, 0]))
        others = _below(words[rows, _DOCUMENT], np.full(len(rows), self.corpus.documents - 1))
        others += others >= own[rows]
        home = np.searchsorted(self._documents_before, others, side="right") - 1
        for number in np.unique(home).tolist():
            chosen, shard = home == number, self.corpus.shards[number]
            document = others[chosen] - self._documents_before[number]
            first, last = shard.documents[document], shard.documents[document + 1]
            first = first + _below(words[rows[chosen], _SENTENCE], last - first)
            begin = shard.sentences[first]
            stop = np.minimum(np.searchsorted(shard.sentences, begin + wanted[chosen]), last)
            segments[rows[chosen], 1] = np.stack([begin, shard.sentences[stop]], axis=1)
        shards[rows, 1] = home

    def _truncated(self, segments: Indices, words: Words) -> Indices:
        lengths = segments[:, :, 1] - segments[:, :, 0]
        most = self.length - 2 - (lengths[:, 1] > 0)
        first = np.maximum(np.minimum(lengths[:, 0], (most + 1) // 2), most - lengths[:, 1])
        kept = np.where((lengths.sum(axis=1) > most)[:, None], np.stack([first, most - first], axis=1), lengths)
        begin = segments[:, :, 0] + _below(words[:, [_FRONT_A, _FRONT_B]], lengths - kept + 1)
        return np.stack([begin, begin + kept], axis=2)

    # ── tokens ──

    def _packed(self, shards: Indices, segments: Indices) -> PackedBatch:
        a, b = (segments[:, :, 1] - segments[:, :, 0]).T
        lengths = 2 + a + b + (b > 0)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        begin = starts[:-1]
        ids = np.full(starts[-1], self._sep, dtype=np.int64)
        ids[begin] = self._cls
        for segment, (position, count) in enumerate(((begin + 1, a), (begin + 2 + a, b))):
            for number in np.unique(shards[:, segment]).tolist():
                rows = np.flatnonzero(shards[:, segment] == number)
                source = _ranges(segments[rows, segment, 0], count[rows])
                ids[_ranges(position[rows], count[rows])] = self.corpus.shards[number].tokens[source]
        types = np.zeros_like(ids)
        types[_ranges(begin + 2 + a, np.where(b > 0, b + 1, 0))] = 1
        positions = _ranges(np.zeros_like(lengths), lengths)
        return {"input_ids": ids, "token_type_ids": types, "position_ids": positions, "starts": starts}

    # ── masks ──

    def _mask_tokens(self, batch: PackedBatch, segments: Indices, words: Words) -> None:
        """Choose and replace tokens, by the high bits and the low bits of each token's random word."""
        ids, starts = batch["input_ids"], batch["starts"]
        lengths = np.diff(starts)
        real = np.arange(words.shape[1]) < lengths[:, None]  # [examples, positions]
        candidates = np.zeros_like(real)
        candidates[real] = ~self._special[ids]
        count = np.maximum(1, np.rint(self.masked * lengths).astype(np.int64))
        count = np.minimum(count, candidates.sum(axis=1))
        if self.whole_words:
            begins = np.zeros_like(real)
            begins[real] = ~self._inner[ids]
            rows = np.arange(len(begins))
            begins[rows, 1] = True  # truncation may have cut into a word
            second = segments[:, 1, 1] > segments[:, 1, 0]
            begins[rows[second], (segments[:, 0, 1] - segments[:, 0, 0])[second] + 2] = True
            chosen = _choose_words(words, candidates, begins, count)
        else:
            chosen = _choose_tokens(words, candidates, count)
        positions = np.flatnonzero(chosen[real])
        low = words[chosen] & np.uint64((1 << 40) - 1)
        labels, action = ids[positions], low % np.uint64(10)
        random = self._ordinary[_below(low // np.uint64(10), np.full(len(low), len(self._ordinary)))]
        ids[positions] = np.where(action < 8, self._mask, np.where(action == 8, random, labels))
        batch["masked_positions"], batch["masked_labels"] = positions, labels


def inner_tokens(tokenizer: BertTokenizer) -> npt.NDArray[np.bool_]:
    """Return for each id whether it is a token inside a word, not its beginning; `DataError` if it cannot be told."""
    if not tokenizer.knows_words:
        raise DataError("--whole-words needs a WordPiece tokenizer, and the corpus has another")
    inner = np.zeros(len(tokenizer), dtype=bool)
    prefix, vocabulary = tokenizer.wordpieces_prefix, tokenizer.get_vocab()
    inner[[i for token, i in vocabulary.items() if token.startswith(prefix) and token != prefix]] = True
    return inner


def padded(batch: PackedBatch, pad_token_id: int = 0) -> PackedBatch:
    """Return a packed batch with padding, for models without packed attention.

    Returns:
        `input_ids`, `token_type_ids`, `attention_mask` and `labels` (`IGNORED` where nothing is masked), each
        [examples, longest], and `pair_labels` [examples] where there are pairs.
    """
    lengths = np.diff(batch["starts"])
    real = np.arange(lengths.max()) < lengths[:, None]
    arrays = {"input_ids": np.full(real.shape, pad_token_id), "token_type_ids": np.zeros(real.shape, np.int64)}
    for name, array in arrays.items():
        array[real] = batch[name]
    labels = np.full(len(batch["input_ids"]), IGNORED)
    labels[batch["masked_positions"]] = batch["masked_labels"]
    arrays["attention_mask"] = real.astype(np.int64)
    arrays["labels"] = np.full(real.shape, IGNORED)
    arrays["labels"][real] = labels
    return arrays | ({"pair_labels": batch["pair_labels"]} if "pair_labels" in batch else {})


def _runs(shard: Shard, most: int, seed: int, number: int) -> npt.NDArray[np.uint32]:
    """Return [examples, 2] the sentences of a shard as runs within documents: first sentence and end (exclusive).

    All documents are cut at the same time, with one run of each document per iteration.
    """
    sentences, runs = np.asarray(shard.sentences), list[npt.NDArray[np.uint32]]()
    first, last = shard.documents[:-1], shard.documents[1:]
    while len(first):
        words = random_words(seed, f"pretraining lengths/{most}/{number}", len(runs), 2 * len(first)).reshape(-1, 2)
        short = words[:, 0] < np.uint64(int(SHORT * 2**64))
        target = np.where(short, 2 + _below(words[:, 1], np.full(len(first), most - 1)), most)
        stop = np.minimum(np.searchsorted(sentences, sentences[first] + target), last)
        runs.append(np.stack([first, stop], axis=1).astype(np.uint32))
        first, last = stop[stop < last], last[stop < last]
    return np.concatenate(runs)


def _single_sentences(shard: Shard, inner: npt.NDArray[np.bool_], words: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Return [examples, 2] the sentences of a shard with so many words, as runs of one; `inner`: tokens in words."""
    counts = np.add.reduceat(~inner[shard.tokens], shard.sentences[:-1], dtype=np.int64)
    chosen = np.flatnonzero((counts >= words[0]) & (counts <= words[1]))
    return np.stack([chosen, chosen + 1], axis=1).astype(np.uint32)


def _below(words: Words, bounds: Indices) -> Indices:
    """Return random numbers 0 … bound - 1, one per word."""
    return (words % bounds.astype(np.uint64)).astype(np.int64)


def _ranges(starts: Indices, counts: Indices) -> Indices:
    """Return start, start + 1, … for each start, `counts` numbers each, concatenated."""
    ends = np.cumsum(counts)
    return np.repeat(starts - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)


def _choose_tokens(words: Words, candidates: npt.NDArray[np.bool_], count: Indices) -> npt.NDArray[np.bool_]:
    """Return [examples, positions] the `count` candidates of each example with the smallest words."""
    scores = np.where(candidates, words, np.iinfo(np.uint64).max)
    limit = np.take_along_axis(np.sort(scores, axis=1), np.maximum(0, count - 1)[:, None], axis=1)
    chosen: npt.NDArray[np.bool_] = candidates & (scores <= limit) & (count > 0)[:, None]
    return chosen


def _choose_words(
    words: Words, candidates: npt.NDArray[np.bool_], begins: npt.NDArray[np.bool_], count: Indices
) -> npt.NDArray[np.bool_]:
    """Return the same for whole words, with their first tokens in `begins`; skip words that would exceed `count`."""
    rows = np.arange(len(words))
    begins = begins | ~candidates
    begins[:, 0] = True
    first = np.maximum.accumulate(
        np.where(begins, np.arange(words.shape[1]), 0), axis=1
    )  # first token of each token's word
    scores = np.where(candidates, np.take_along_axis(words, first, axis=1), np.iinfo(np.uint64).max)
    sizes = np.zeros(words.shape, dtype=np.int64)  # at the first token
    np.add.at(sizes, (rows[:, None], first), 1)
    chosen = np.zeros_like(candidates)
    sum_, fits = np.zeros(len(words), dtype=np.int64), np.zeros(len(words), dtype=bool)
    # Sorted, the tokens of a word are adjacent; all examples are processed at the same time.
    for position in np.argsort(scores, axis=1, kind="stable").T:
        enough = sum_ + sizes[rows, position] <= count
        fits = np.where(begins[rows, position], enough, fits) & candidates[rows, position]
        chosen[rows, position] = fits
        sum_ += fits
    return chosen
