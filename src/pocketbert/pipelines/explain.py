"""Which words decided: what each word of a text contributes to the score of a label, an entity or an answer.

Everything that a text needs is one run of the model without padding. The same text has the same contributions, to the
bit, whatever else is in the batch. Where a label is explained, a word is left out by leaving out its tokens. An entity
or an answer has to stay where it is, so there a word is hidden: its tokens become [MASK], also those of the entity or
answer itself.

- Occlusion: the score of the text, less that of the text without the word.
- Shapley values: the mean change of the score when the word joins some of the others. They add up to the score of the
  text, less the `base`, which is that of a text without words. Up to 8 words all sets of words are computed; for more,
  words join in sampled orders, each with its reverse (Castro and others 2009; antithetic sampling halves the error).

Long texts have parts of several words in place of words, so that there are at most 64. Of two texts the shorter one
keeps its words as long as there are no more than half of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import InputError
from pocketbert.features import Features, Tokens, Window, fit
from pocketbert.pipelines.arguments import F, Reading
from pocketbert.shortening import shorten
from pocketbert.words import word_places

if TYPE_CHECKING:
    from pocketbert.tokenization import BertTokenizer

METHODS = ("shapley", "occlusion")
#: Of a `Job`, as each input is computed hundreds of times.
FEW: dict[str, int] = {"inputs": 16, "characters": 1 << 12}
Floats = NDArray[np.floating[Any]]
Masks = NDArray[np.bool_]

_PARTS = 64  # of a text, at most
_EXACT = 8  # words: 256 sets
_RUNS = 192  # of the model per text, about, unless all sets are computed
_LONGEST = 30  # characters of a word: more are a text without spaces, whose tokens count as words


@dataclass(frozen=True)
class Word:
    """Characters `start` to `end` of a text, or of the other one of two."""

    start: int
    end: int
    other: bool


@dataclass(frozen=True, eq=False)
class Whole(Features, Generic[F]):
    """An input with all of its words, before its variants."""

    read: F
    words: tuple[Word, ...]
    design: Design


@dataclass(frozen=True, eq=False)
class Design:
    """The sets of words that are computed, and what they tell.

    Args:
        sets: [sets, words], the first with all words and the last with none.
        contributions: [sets] scores → [words].
    """

    sets: Masks
    contributions: Callable[[Floats], Floats]


def read_method(explain: bool | str | None, *, windows: bool = False) -> str | None:
    """Return one of `METHODS`, or None; True is the first. Raises `InputError` for anything else, and with windows."""
    if explain is None or explain is False:
        return None
    method = METHODS[0] if explain is True else explain
    if method not in METHODS:
        raise InputError(f"explain={explain!r:.60} must be True, False or one of {', '.join(map(repr, METHODS))}")
    if windows:
        raise InputError("explain works within the model's maximum length: leave windows out")
    return method


def variants(reading: Reading, text: str, second: str | None, method: str) -> list[Features]:
    """Return the input for a text or pair, a `Whole`, and the inputs without some of its words."""
    [features] = reading.texts([text], None if second is None else [second])
    cut = reading.truncation or "longest_first"
    length = fit(reading.tokenizer, reading.max_length)
    encoding = reading.tokenizer(text, second, truncation=cut, max_length=length)[0]
    if len(encoding.offsets) != len(features):
        raise InputError("the text cannot be explained: the tokenizer gives no offsets of its tokens")
    places = [-1 if place is None else place for place in encoding.sequence_ids]
    words, of_token = _words((text, second or ""), places, encoding.offsets)
    design = make_design(len(words), method)
    made: list[Features] = [_whole(features, words, design)]
    for kept in design.sets[1:]:
        keep = np.append(kept, True)[of_token]  # the last: tokens that belong to no word
        made.append(Features(features.input_ids[keep], features.token_type_ids[keep]))
    return made


def hidden_in_text(tokenizer: BertTokenizer, text: str, tokens: Tokens, method: str) -> list[Features]:
    """Return the input for token classification, a `Whole`, and the inputs with some of its words hidden."""
    places = np.where(tokens.word_ids >= 0, 0, -1).tolist()
    return _hidden(tokenizer, tokens, *_words((text, ""), places, tokens.offsets.tolist()), method)


def hidden_in_question(
    tokenizer: BertTokenizer, question: str, context: str, window: Window, method: str
) -> list[Features]:
    """Return the input for a question and its context, a `Whole`, and the inputs with some of their words hidden.

    The question is the other text.
    """
    short = shorten(tokenizer, question.strip())
    encoding = tokenizer(short.text, add_special_tokens=False, verbose=False)[0]
    before = len(question) - len(question.lstrip())
    asked = short.restored(np.array(encoding.offsets, np.int32).reshape(-1, 2)) + before
    places, offsets = np.full(len(window), -1), np.zeros((len(window), 2), np.int32)
    room = slice(1, window.context.start - tokenizer.separators)  # between [CLS] and [SEP]
    places[room], offsets[room] = 1, asked[: room.stop - room.start]
    places[window.context], offsets[window.context] = 0, window.offsets
    words, of_token = _words((context, question), places.tolist(), offsets.tolist())
    return _hidden(tokenizer, window, words, of_token, method)


def _hidden(
    tokenizer: BertTokenizer, one: Features, words: list[Word], of_token: NDArray[np.intp], method: str
) -> list[Features]:
    mask = tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    design = make_design(len(words), method)
    made: list[Features] = [_whole(one, words, design)]
    for kept in design.sets[1:]:
        ids = np.where(np.append(kept, True)[of_token], one.input_ids, mask).astype(np.int32)
        made.append(Features(ids, one.token_type_ids))
    return made


def _whole(one: F, words: Sequence[Word], design: Design) -> Whole[F]:
    return Whole(one.input_ids, one.token_type_ids, cut=one.cut, read=one, words=tuple(words), design=design)


def _words(
    texts: tuple[str, str], places: Sequence[int], offsets: Sequence[Sequence[int]]
) -> tuple[list[Word], NDArray[np.intp]]:
    """Return the parts of two texts, and for each token the number of its part; -1 for special tokens.

    Args:
        texts: the text, and the other one.
        places: of each token: which text it is of, -1 for special tokens.
        offsets: of each token: its characters in its text.
    """
    words: list[Word] = []
    numbers: dict[tuple[int, int], int] = {}
    runs = [word_places(text) for text in texts]
    of_token = np.full(len(offsets), -1)
    for token, (place, (start, end)) in enumerate(zip(places, offsets, strict=True)):
        if place < 0:
            continue
        start += len(texts[place][start:end]) - len(texts[place][start:end].lstrip())
        run = next(((a, b) for a, b in runs[place] if start < b), (start, end))
        if run[1] - run[0] > _LONGEST or end > run[1]:  # of several characters that count as words
            run = (start, end)
        if (place, run[0]) not in numbers:
            numbers[place, run[0]] = len(words)
            words.append(Word(*run, place == 1))
        of_token[token] = numbers[place, run[0]]
    sizes = _sizes(*(sum(word.other is other for word in words) for other in (False, True)))
    parts: list[Word] = []
    part_of, seen = [-1] * (len(words) + 1), [0, 0]  # the last part is what -1 finds
    for number, word in enumerate(words):
        if seen[word.other] % sizes[word.other]:
            parts[-1] = Word(parts[-1].start, word.end, word.other)
        else:
            parts.append(word)
        seen[word.other] += 1
        part_of[number] = len(parts) - 1
    return parts, np.array(part_of)[of_token]


def _sizes(*counts: int) -> list[int]:
    """Return how many words of each of two texts make a part, so that there are at most `_PARTS`."""
    if sum(counts) <= _PARTS:
        return [1, 1]
    short = min(counts)
    size = math.ceil(short / (_PARTS // 2)) or 1
    rest = math.ceil(max(counts) / (_PARTS - math.ceil(short / size)))
    return [size if count == short else rest for count in counts]


def make_design(count: int, method: str) -> Design:
    """Return the sets of `count` words that a method computes."""
    full, none = np.ones(count, bool), np.zeros(count, bool)
    if method == "occlusion":
        sets = np.stack([full, *(~np.eye(count, dtype=bool)), none])
        return Design(sets, lambda scores: scores[0] - scores[1:-1])
    return _all_sets(count) if count <= _EXACT else _sampled_orders(count)


def _all_sets(count: int) -> Design:
    numbers = np.arange(1 << count)[::-1, None]
    sets = (numbers >> np.arange(count)) & 1 > 0  # in the order of falling numbers
    sizes = sets.sum(axis=1)
    # The share of orders in which just the words of a set come before a certain other word.
    share = np.array([1 / (count * math.comb(count - 1, size)) if size < count else 0.0 for size in range(count + 1)])

    def contributions(scores: Floats) -> Floats:
        with_word = np.where(sets, share[sizes - 1][:, None], -share[sizes][:, None])
        return np.asarray((with_word * scores[:, None]).sum(axis=0))

    return Design(sets, contributions)


def _sampled_orders(count: int) -> Design:
    pairs = max(1, _RUNS // (2 * count))
    bits = np.random.PCG64(count).random_raw(pairs * count).reshape(pairs, count)
    forward = np.argsort(bits, axis=1, kind="stable")
    orders = np.concatenate([forward, forward[:, ::-1]])
    place = np.argsort(orders, axis=1)  # [orders, words]
    sets: dict[bytes, int] = {np.ones(count, bool).tobytes(): 0}
    index = np.empty((len(orders), count + 1), dtype=np.intp)
    for row in range(len(orders)):
        for joined in range(1, count + 1):
            members = place[row] < joined
            index[row, joined] = sets.setdefault(members.tobytes(), len(sets))
    last = sets.setdefault(np.zeros(count, bool).tobytes(), len(sets))
    index[:, 0] = last
    rows = np.arange(len(orders))[:, None]

    def contributions(scores: Floats) -> Floats:
        steps = np.diff(scores[index], axis=1)  # [orders, words in their order]
        changes = np.empty_like(steps)
        changes[rows, orders] = steps
        return np.asarray(changes.mean(axis=0))

    return Design(np.array([np.frombuffer(key, dtype=bool) for key in sets]), contributions)


def explained(
    answer: dict[str, Any],
    texts: tuple[str, str | None],
    whole: Whole[Any],
    scores: Sequence[float],
    other: str = "text_pair",
) -> dict[str, Any]:
    """Return an answer with `base` and `words`: what each contributes to a score.

    Args:
        answer: to which they are added.
        texts: the text, and the other one of two.
        whole: the input.
        scores: of each variant.
        other: a name for the other text, under which its words have True.
    """
    column = np.array(scores, dtype=np.float64)
    found = []
    for word, contribution in zip(whole.words, whole.design.contributions(column), strict=True):
        text = texts[word.other] or ""
        place = {"word": text[word.start : word.end], "start": word.start, "end": word.end}
        found.append({**place, **({other: True} if word.other else {}), "score": float(contribution)})
    return {**answer, "base": float(column[-1]), "words": found}
