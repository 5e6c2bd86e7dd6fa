"""Text → arrays: one text, a pair, words with tags, questions over long contexts, choices. NumPy only.

All inputs of models, in training and inference, are made here. Nothing is padded until a batch is made (`pad`), and
each input carries the offsets with which `decode` finds the way back into the text.

Length: an input has at most as many tokens as the model has positions, or fewer if the tokenizer or the caller limits
it (`fit`). Longer inputs are cut at their end, of a pair the longer text first, which `Features.cut` reports; contexts
of questions are read in several windows, and so can all texts be (`windows`). An empty text is a valid input.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import CheckpointError, InputError, TokenizerError
from pocketbert.shortening import Shortened, shorten
from pocketbert.words import with_marks

if TYPE_CHECKING:
    from pocketbert.tokenization import BertTokenizer
    from pocketbert.tokenization.encoding import BatchEncoding

Ints = NDArray[np.int32]

IGNORED = -100  # the label that no loss counts
WHOLE = sys.maxsize  # as `max_length`: nothing is cut


@dataclass(frozen=True, eq=False)
class Features:
    """One input of a model, without padding."""

    input_ids: Ints  # [tokens]
    token_type_ids: Ints  # [tokens]
    cut: bool = field(default=False, kw_only=True)  # whether the end of a text was cut off
    rows: Ints | None = field(default=None, kw_only=True)  # the tokens whose outputs are needed; None: all

    def __len__(self) -> int:
        return len(self.input_ids)


def all_unknown(features: Sequence[Features], tokenizer: BertTokenizer) -> bool:
    """Whether an input has words, and the vocabulary has none of them: its output does not depend on it."""
    others = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    return set().union(*(one.input_ids.tolist() for one in features)) - others == {tokenizer.unk_token_id}


@dataclass(frozen=True, eq=False)
class Tokens(Features):
    """One text for token classification: the offsets of each token, and the word that it belongs to."""

    offsets: Ints  # [tokens, 2], characters of the text; of pre-split words, of the words joined with single spaces
    word_ids: Ints  # [tokens], -1 for [CLS] and [SEP]
    words: int  # of the text, those that were cut off included

    @property
    def first_tokens(self) -> NDArray[np.bool_]:
        """[tokens], True at the first token of each word, which carries the word's tag in training and inference."""
        before = np.concatenate([[-1], self.word_ids[:-1]])
        return np.asarray((self.word_ids >= 0) & (self.word_ids != before))

    def tokens_of_words(self) -> list[list[int]]:
        """The token indices of each word that has any."""
        inside = np.flatnonzero(self.word_ids >= 0)
        words = np.split(inside, np.flatnonzero(self.first_tokens[inside])[1:])
        return [word.tolist() for word in words if len(word)]

    def align(self, labels: Sequence[int]) -> NDArray[np.int64]:
        """[tokens] label ids for training from one per word: each at its word's first token, `IGNORED` elsewhere."""
        if len(labels) != self.words:
            raise InputError(f"{len(labels)} tags do not fit {self.words} words")
        first = self.first_tokens
        aligned = np.full(len(self), IGNORED, dtype=np.int64)
        aligned[first] = np.asarray(labels, dtype=np.int64)[self.word_ids[first]]
        return aligned


@dataclass(frozen=True, eq=False)
class Window(Features):
    """A question with a part of its context: [CLS] question [SEP] part [SEP]."""

    context: slice  # the tokens of the part
    offsets: Ints  # [part, 2], characters of the whole context
    max_context: NDArray[np.bool_]  # [part], True where no other window shows more around the token
    seen: tuple[int, int]  # characters that no token before or after the part reaches into

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """First and last token of the characters `start` to `end` (exclusive); (0, 0), [CLS], if not all are here."""
        first = int(np.searchsorted(self.offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(self.offsets[:, 0], end, side="left")) - 1
        if start < self.seen[0] or end > self.seen[1] or first > last:
            return 0, 0
        return self.context.start + first, self.context.start + last


class Predictor(Protocol):
    """A callable that runs a model: one dictionary of arrays per input, in order, without padding.

    The names are those of the model's output: "logits" [labels], [tokens, labels] or [tokens, vocabulary],
    "start_logits" and "end_logits" [tokens], "last_hidden_state" [tokens, hidden], "pooler_output" [hidden]; of an
    input with `rows`, only of these tokens. Batching is the predictor's business; `runtime.stream` gives
    it a bounded number of tokens, of similar lengths, at a time.
    """

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        """Run the model on `inputs`."""
        ...


def check_finite(output: Mapping[str, np.ndarray]) -> None:
    """Raise `CheckpointError` if a model computed NaN or infinity, from which a decoder would make an answer."""
    for name, values in output.items():
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"the model computed {name} that are not finite numbers: its weights are damaged, or its training "
                "diverged"
            )


def pad(inputs: Sequence[Features], pad_token_id: int = 0) -> dict[str, NDArray[np.int64]]:
    """A batch: `input_ids`, `attention_mask` and `token_type_ids`, each [batch, longest]."""
    shape = len(inputs), max(map(len, inputs), default=0)
    ids = np.full(shape, pad_token_id, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, one in enumerate(inputs):
        ids[row, : len(one)] = one.input_ids
        mask[row, : len(one)] = 1
        types[row, : len(one)] = one.token_type_ids
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def fit(tokenizer: BertTokenizer, max_length: int | None = None) -> int:
    """The number of tokens that inputs are cut to: the lesser of `max_length` and the tokenizer's limit, if it has one.

    Without either it is that of the published models, 512; `WHOLE` is no limit at all.
    """
    if max_length == WHOLE:
        return WHOLE
    stated = [limit for limit in (tokenizer.stated_max_length, max_length) if limit is not None]
    length = min(stated, default=tokenizer.model_max_length)
    if length < 4:
        raise TokenizerError(f"max_length={length} leaves no room for text between [CLS] and [SEP]: 4 is the least")
    return length


# ── texts ──


def encode_texts(
    tokenizer: BertTokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
    truncation: str = "longest_first",
) -> list[Features]:
    """Texts, or pairs of texts, as inputs of a classifier, an encoder or a masked language model.

    `truncation` is the text of an over-long pair that is cut: "longest_first", "only_first" or "only_second".
    """
    if not texts:
        return []
    check_texts(texts)
    if pairs is not None:
        check_texts(pairs)
        if len(pairs) != len(texts):
            raise InputError(f"{len(texts)} texts and {len(pairs)} second texts do not make pairs")
    length = fit(tokenizer, max_length)
    first, second = _read_of_pairs(tokenizer, texts, pairs, length, truncation)
    encoded = tokenizer(
        first,
        second,
        truncation=truncation,
        max_length=length,
        return_attention_mask=False,
        return_token_type_ids=True,
    )
    return [
        Features(_ints(ids), _ints(types), cut=_is_cut(encoded, row))
        for row, (ids, types) in enumerate(zip(encoded["input_ids"], encoded["token_type_ids"], strict=True))
    ]


class TokenIds(tuple[int, ...]):
    """The tokens of a text, by their ids, in place of the text itself."""

    __slots__ = ()


def encode_ids(
    tokenizer: BertTokenizer, inputs: Sequence[TokenIds], before: Sequence[int] = (), *, max_length: int | None = None
) -> list[Features]:
    """Token ids as inputs of an encoder, `before` them the ids of a prompt.

    [CLS] and [SEP] are put around ids that do not begin with [CLS]; what is too long is cut as texts are.
    """
    length, known = fit(tokenizer, max_length), len(tokenizer)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    found = []
    for position, ids in enumerate(inputs):
        if unknown := [one for one in ids if not 0 <= one < known]:
            raise InputError(f"the token id {unknown[0]} is not one of the vocabulary's {known}", position)
        inner = list(ids)
        if inner[:1] == [cls]:
            inner = inner[1:-1] if inner[-1] == sep else inner[1:]
        inner = [*before, *inner]
        cut = len(inner) > length - 2
        inner = inner[-(length - 2) :] if tokenizer.truncation_side == "left" else inner[: length - 2]
        row = _ints([cls, *inner, sep])
        found.append(Features(row, np.zeros_like(row), cut=cut))
    return found


def _ints(values: Any) -> Ints:
    return np.asarray(values, dtype=np.int32)


def _read_of_pairs(
    tokenizer: BertTokenizer, texts: Sequence[str], pairs: Sequence[str] | None, length: int, truncation: str
) -> tuple[list[str], list[str] | None]:
    """Texts and second texts without most of what will be cut off."""
    if pairs is None:
        return [one.text for one in beginnings(tokenizer, texts, length)], None
    first, second = ([shorten(tokenizer, text).text for text in some] for some in (texts, pairs))
    for row, pair in enumerate(zip(first, second, strict=True)):
        for mine, side in ((first, 0), (second, 1)):
            text, other = pair[side], pair[1 - side]
            # Where the longer one is cut first, how much of it is read depends on all of the other.
            if len(text) > _long(length) and (
                truncation == ("only_first", "only_second")[side]
                or (
                    truncation == "longest_first"
                    and len(other) <= _long(length)
                    and len(tokenizer(other, **_BARE)["input_ids"]) <= length
                )
            ):
                mine[row] = _part(tokenizer, text, length)
    return first, second


def beginnings(tokenizer: BertTokenizer, texts: Sequence[str], length: int) -> list[Shortened]:
    """Texts without most of what will be cut off: to tokenise a whole book of them would take gigabytes.

    Those of a tokenizer that cuts at the left have their ends instead.
    """
    found = []
    for text in texts:
        one = shorten(tokenizer, text)
        if len(one.text) > _long(length):
            part, kept = _part(tokenizer, one.text, length), one.kept
            if tokenizer.truncation_side == "left" and len(part) < len(one.text):
                kept = (np.arange(len(text)) if kept is None else kept)[len(one.text) - len(part) :]
            one = Shortened(part, kept)
        found.append(one)
    return found


def _long(length: int) -> int:
    return 64 * length  # characters: far more than so many tokens usually have


def _part(tokenizer: BertTokenizer, text: str, length: int) -> str:
    """The beginning of a text, or its end, with at least `length` tokens, and all that are in it right."""
    size, left = _long(length), tokenizer.truncation_side == "left"
    while size < len(text):
        if left:
            start = len(text) - size
            space = text.find(" ", start, start + size // 2)
            part = text[start if space < 0 else space :]
        else:
            part = text[: text.rfind(" ", size // 2, size) + 1 or size]
        # Without a space there, the part may be cut inside a word, which has at most 100 tokens.
        if len(tokenizer(part, **_BARE)["input_ids"]) > length + 100:
            return part
        size *= 2
    return text


def _is_cut(encoded: BatchEncoding, row: int) -> bool:
    return bool(encoded[row].overflowing)


def check_texts(texts: Sequence[Any], position: int | None = None) -> None:
    """Refuse values that are not texts; `texts` are several inputs, or the parts of the input at `position`."""
    for number, text in enumerate(texts):
        where = number if position is None else position
        if not isinstance(text, str):
            raise InputError(f"{type(text).__name__} {text!r:.60} is not a text", where)
        if not text.isascii() and (broken := _HALF.search(text)):
            raise InputError(
                f"the text contains the unpaired surrogate {broken[0]!r}: it was decoded with the wrong encoding", where
            )


_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair


def encode_choices(
    tokenizer: BertTokenizer,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_length: int | None = None,
) -> list[list[Features]]:
    """For each prompt one input per choice: [CLS] prompt [SEP] choice [SEP]."""
    for position, (prompt, options) in enumerate(zip(prompts, choices, strict=True)):
        check_texts([prompt, *options], position)
    flat = [(prompt, choice) for prompt, options in zip(prompts, choices, strict=True) for choice in options]
    features = iter(encode_texts(tokenizer, [p for p, _ in flat], [c for _, c in flat], max_length=max_length))
    return [[next(features) for _ in options] for options in choices]


# ── words and tokens ──


def encode_tokens(tokenizer: BertTokenizer, texts: Sequence[str], *, max_length: int | None = None) -> list[Tokens]:
    """Texts for token classification; the words are the tokenizer's, which separates punctuation from letters."""
    check_texts(texts)
    return list(_encode_tokens(tokenizer, texts, max_length)) if texts else []


def encode_words(
    tokenizer: BertTokenizer, sentences: Sequence[Sequence[str]], *, max_length: int | None = None
) -> list[Tokens]:
    """Sentences of words for token classification. Words beyond the length limit have no token and get no tag."""
    for position, words in enumerate(sentences):
        if isinstance(words, str):
            raise InputError(f"a sentence must be a sequence of words, not the text {words!r:.60}", position)
        check_texts(words, position)
    return list(_encode_tokens(tokenizer, sentences, max_length, split=True)) if sentences else []


def _encode_tokens(
    tokenizer: BertTokenizer, texts: Sequence[Any], max_length: int | None, *, split: bool = False
) -> Iterator[Tokens]:
    length = fit(tokenizer, max_length)
    short = None if split else beginnings(tokenizer, texts, length)
    encoded = tokenizer(
        [list(words) for words in texts] if short is None else [one.text for one in short],
        is_split_into_words=split,
        truncation=True,
        max_length=length,
        return_attention_mask=False,
        return_token_type_ids=True,
        return_offsets_mapping=True,
    )
    for row, text in enumerate(texts):
        word_ids = _ints([-1 if word is None else word for word in encoded.word_ids(row)])
        offsets = _ints(encoded["offset_mapping"][row]).reshape(-1, 2)
        if short is not None:
            offsets = short[row].restored(offsets)
        if not (split or tokenizer.knows_words):
            word_ids = _words_by_spaces(word_ids, offsets, text)
        if split:  # the tokenizer counts from the start of each word
            lengths = [0, *(len(word) + 1 for word in text)]
            offsets = offsets + np.where(word_ids >= 0, np.cumsum(lengths)[word_ids], 0)[:, None].astype(np.int32)
        offsets = with_marks(" ".join(text) if split else text, offsets)
        words = len(text) if split else int(word_ids.max(initial=-1)) + 1
        ids, types = _ints(encoded["input_ids"][row]), _ints(encoded["token_type_ids"][row])
        yield Tokens(ids, types, offsets, word_ids, words, cut=_is_cut(encoded, row))


def _words_by_spaces(word_ids: Ints, offsets: Ints, text: str) -> Ints:
    """Number the words of a text where a token begins one if there is a space at its start or before it.

    So the pipelines of the field read tokenizers whose pieces do not say whether they continue a word.
    """
    inside = word_ids >= 0
    begins = [start == 0 or " " in text[start - 1 : start + 1] for start, _ in offsets[inside].tolist()]
    if begins:
        begins[0] = True
    numbers = np.full(len(word_ids), -1, np.int32)
    numbers[inside] = np.cumsum(begins) - 1
    return numbers


# ── questions ──


def usual_windows(length: int) -> tuple[int, int]:
    """How far apart windows of `length` tokens start, and how many tokens of a question they hold.

    The original BERT's 128 and 64, which go with windows of 384; a third and a sixth of shorter ones.
    """
    return min(128, max(1, length // 3)), min(64, max(1, length // 6))


def encode_questions(
    tokenizer: BertTokenizer,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    max_length: int = 384,
    doc_stride: int | None = None,
    max_question_length: int | None = None,
) -> list[list[Window]]:
    """For each question the windows that cover its context, each starting `doc_stride` tokens after the one before.

    This is the original BERT's stride, the step; elsewhere the word means the overlap. Question tokens past
    `max_question_length` are dropped. The defaults are those of `usual_windows`. A context that several questions share
    is tokenised once.

    Raises:
        InputError: If the windows, next to the longest question allowed, have less room than one step, so that tokens
            would be skipped.
    """
    check_texts(questions)
    check_texts(contexts)
    if len(questions) != len(contexts):
        raise InputError(f"{len(questions)} questions do not go with {len(contexts)} contexts: one is needed for each")
    length = fit(tokenizer, max_length)
    usual_stride, usual_question = usual_windows(length)
    doc_stride = usual_stride if doc_stride is None else doc_stride
    max_question_length = usual_question if max_question_length is None else max_question_length
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = length - max_question_length - special
    if max_question_length < 1 or not 1 <= doc_stride <= room:
        raise InputError(
            f"{length} tokens less a question of {max_question_length} and {special} special tokens leave {room} for "
            f"the context: no room for doc_stride={doc_stride}; lower doc_stride or max_question_length"
        )
    # Contexts that are cut before they are tokenised would lose answers, so nothing is cut here.
    asked = [shorten(tokenizer, question.strip()).text for question in questions]
    question_ids = tokenizer(asked, **_BARE)["input_ids"] if questions else []
    texts = list(dict.fromkeys(contexts))
    short = [shorten(tokenizer, text) for text in texts]
    read = tokenizer([one.text for one in short], return_offsets_mapping=True, **_BARE) if texts else {}
    tokens = {
        text: (
            _ints(read["input_ids"][row]),
            with_marks(text, short[row].restored(_ints(read["offset_mapping"][row]).reshape(-1, 2))),
        )
        for row, text in enumerate(texts)
    }
    cls, sep = _ints([tokenizer.cls_token_id]), _ints([tokenizer.sep_token_id])
    between = _ints([tokenizer.sep_token_id] * tokenizer.separators)
    frame = _Frame(cls, between, sep, tokenizer.second_segment)
    return [
        list(_windows(frame, _ints(ids), *tokens[context], length, doc_stride, max_question_length))
        for ids, context in zip(question_ids, contexts, strict=True)
    ]


_BARE: dict[str, Any] = {
    "add_special_tokens": False,
    "return_attention_mask": False,
    "return_token_type_ids": False,
    "verbose": False,  # contexts are longer than a model's input, and may be
}


class _Frame(NamedTuple):
    """The tokens around the question and a part of its context."""

    before: Ints
    between: Ints
    after: Ints
    segment: int  # of the part

    @property
    def size(self) -> int:
        """In tokens."""
        return len(self.before) + len(self.between) + len(self.after)


def _windows(
    frame: _Frame, question: Ints, ids: Ints, offsets: Ints, length: int, step: int, longest: int
) -> Iterator[Window]:
    cut, question = len(question) > longest, question[:longest]
    room = length - len(question) - frame.size
    starts = range(0, max(len(ids) - room, 0) + step, step)
    parts = [slice(start, min(start + room, len(ids))) for start in starts]
    # [tokens]: how much of the text is seen around each, at best, as the original BERT counts it; and in which window.
    best, widest = np.full(len(ids), -np.inf), np.zeros(len(ids), dtype=np.int64)
    for number, part in enumerate(parts):
        before = np.arange(part.stop - part.start)
        around = np.minimum(before, before[::-1]) + 0.01 * len(before)
        better = around > best[part]
        best[part][better], widest[part][better] = around[better], number
    opening = np.concatenate([frame.before, question, frame.between])
    for number, part in enumerate(parts):
        start, end = part.start, part.stop
        yield Window(
            np.concatenate([opening, ids[part], frame.after]),
            np.repeat(_ints([0, frame.segment]), [len(opening), end - start + 1]),
            slice(len(opening), len(opening) + end - start),
            offsets[part],
            widest[part] == number,
            (
                int(offsets[start - 1, 1]) if start else 0,
                int(offsets[end, 0]) if end < len(offsets) else sys.maxsize,
            ),
            cut=cut,
        )
