"""Text → arrays: what the inputs of each task hold, and that nothing is lost on the way."""

import json
import os
import struct
import tracemalloc
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.pairs import in_turn
from helpers.tokenizers import LETTERS, spelling, tokenizer_of
from pocketbert.errors import InputError, TokenizerError
from pocketbert.features import (
    IGNORED,
    Features,
    Window,
    encode_choices,
    encode_questions,
    encode_texts,
    encode_tokens,
    encode_words,
    fit,
    pad,
    usual_windows,
)
from pocketbert.tokenization import BertTokenizer

PIECES = spelling("the", "un", ".", "'")
TOKENIZER = tokenizer_of(PIECES)


def tokens(features: Features) -> list[str]:
    names: list[str] = TOKENIZER.convert_ids_to_tokens(features.input_ids.tolist())
    return names


# ── texts ──


def test_texts_and_pairs() -> None:
    [one, empty] = encode_texts(TOKENIZER, ["the un", ""])
    assert tokens(one) == ["[CLS]", "the", "un", "[SEP]"]
    assert tokens(empty) == ["[CLS]", "[SEP]"]
    assert one.input_ids.dtype == one.token_type_ids.dtype == np.int32
    [pair] = encode_texts(TOKENIZER, ["the"], ["un un"])
    assert tokens(pair) == ["[CLS]", "the", "[SEP]", "un", "un", "[SEP]"]
    assert pair.token_type_ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert encode_texts(TOKENIZER, []) == []


def test_long_texts_are_cut() -> None:
    [long] = encode_texts(TOKENIZER, ["the " * 600])
    assert len(long) == 512
    [pair] = encode_texts(TOKENIZER, ["the " * 9], ["un " * 3], max_length=10)
    assert tokens(pair) == ["[CLS]", *["the"] * 4, "[SEP]", *["un"] * 3, "[SEP]"]
    [pair] = encode_texts(TOKENIZER, ["the " * 3], ["un " * 9], max_length=13, truncation="only_first")
    assert tokens(pair) == ["[CLS]", "the", "[SEP]", *["un"] * 9, "[SEP]"]


LONG = {
    "words": "the un them " * 9000,
    "no spaces": "the.un'" * 9000,
    "one word": "the" * 20_000,
    "spaces first": " " * 50_000 + "the un " * 9000,
    "a word, then words": "x" * 40_000 + " un" * 9000,
    "spaces in between": f"the{' ' * 40_000}un " * 3,
    "line breaks": "the\nun\n" * 9000,
    "half of a word": "t" * 99 + " " + "u" * 32_000,
}


@pytest.mark.parametrize(("name", "max_length"), in_turn([(list(LONG), [5, 64, 512])]))
def test_very_long_texts_are_cut_as_if_all_of_them_were_read(name: str, max_length: int) -> None:
    text = LONG[name]
    whole = TOKENIZER(text, truncation=True, max_length=max_length)["input_ids"]
    [one] = encode_texts(TOKENIZER, [text], max_length=max_length)
    assert one.input_ids.tolist() == whole
    assert one.cut == (len(TOKENIZER(text, verbose=False)["input_ids"]) > max_length)
    [one] = encode_tokens(TOKENIZER, [text], max_length=max_length)
    assert one.input_ids.tolist() == whole
    [pair] = encode_texts(TOKENIZER, [text], ["un"], max_length=max_length, truncation="only_first")
    assert pair.input_ids.tolist() == TOKENIZER(text, "un", truncation="only_first", max_length=max_length)["input_ids"]
    last = BertTokenizer(vocab=TOKENIZER.get_vocab(), truncation_side="left")
    [one] = encode_texts(last, [text + " un the"], max_length=max_length)
    assert one.input_ids.tolist() == last(text + " un the", truncation=True, max_length=max_length)["input_ids"]


def test_of_very_long_texts_only_the_beginning_is_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    call = BertTokenizer.__call__

    def spy(self: BertTokenizer, text: Any, *args: Any, **options: Any) -> Any:
        read.append(len(text) if isinstance(text, str) else max(map(len, text)))
        return call(self, text, *args, **options)

    monkeypatch.setattr(BertTokenizer, "__call__", spy)
    [one] = encode_texts(TOKENIZER, ["the un " * 500_000])
    assert one.cut
    assert max(read) < 40_000


def test_length_limit() -> None:
    assert fit(TOKENIZER) == 512
    assert fit(TOKENIZER, 100) == 100
    assert fit(TOKENIZER, 5000) == 5000  # a model may have more positions than the published ones
    short = BertTokenizer(vocab=TOKENIZER.get_vocab(), model_max_length=64)
    assert (fit(short), fit(short, 100), fit(short, 50)) == (64, 64, 50)
    short.model_max_length = 600
    assert fit(short, 2048) == 600
    with pytest.raises(TokenizerError, match="max_length=3"):
        fit(TOKENIZER, 3)


@pytest.mark.parametrize("wrong", [None, 3, b"the", ["the", "un"]])
def test_what_is_no_text_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"input 1: .*not a text"):
        encode_texts(TOKENIZER, ["the", wrong])
    with pytest.raises(InputError, match=r"input 1: .*not a text"):
        encode_tokens(TOKENIZER, ["the", wrong])
    with pytest.raises(InputError, match="not a text"):
        encode_words(TOKENIZER, [["the", wrong]])


def test_counts_must_agree() -> None:
    with pytest.raises(InputError, match="2 texts and 1 second"):
        encode_texts(TOKENIZER, ["the", "un"], ["un"])
    with pytest.raises(InputError, match="2 questions do not go with 1 contexts"):
        encode_questions(TOKENIZER, ["the", "un"], ["un"])
    with pytest.raises(InputError, match="sequence of words"):
        encode_words(TOKENIZER, ["the un"])


def test_choices_stay_with_their_prompt() -> None:
    first, second = encode_choices(TOKENIZER, ["the", "un"], [["a", "b", "c"], ["d"]])
    assert [tokens(one)[1:] for one in first] == [["the", "[SEP]", x, "[SEP]"] for x in "abc"]
    assert tokens(second[0])[1:] == ["un", "[SEP]", "d", "[SEP]"]


def test_pad() -> None:
    batch = pad(encode_texts(TOKENIZER, ["the un", ""]), pad_token_id=9)
    assert {name: array.dtype for name, array in batch.items()} == dict.fromkeys(batch, np.dtype(np.int64))
    assert batch["input_ids"].tolist() == [[2, PIECES.index("the"), PIECES.index("un"), 3], [2, 3, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0] * 4] * 2
    assert pad([])["input_ids"].shape == (0, 0)


# ── words ──


def test_words_and_their_tags() -> None:
    words = ["unit", "the", "u.n.", "", "x"]
    [found] = encode_words(TOKENIZER, [words])
    assert tokens(found)[1:-1] == ["un", "##i", "##t", "the", "u", ".", "n", ".", "x"]
    assert found.word_ids.tolist() == [-1, 0, 0, 0, 1, 2, 2, 2, 2, 4, -1]
    assert found.words == 5
    assert np.flatnonzero(found.first_tokens).tolist() == [1, 4, 5, 9]
    assert found.tokens_of_words() == [[1, 2, 3], [4], [5, 6, 7, 8], [9]]
    assert found.align([7, 8, 9, 10, 11]).tolist() == [IGNORED, 7, IGNORED, IGNORED, 8, 9, *[IGNORED] * 3, 11, IGNORED]
    with pytest.raises(InputError, match="2 tags do not fit 5 words"):
        found.align([1, 2])
    text = " ".join(words)
    pieces = [text[start:end] for start, end in found.offsets[1:-1]]
    assert pieces == ["un", "i", "t", "the", "u", ".", "n", ".", "x"]


def test_words_past_the_limit_have_no_token() -> None:
    [found] = encode_words(TOKENIZER, [["the", "unit", "x"]], max_length=5)
    assert tokens(found) == ["[CLS]", "the", "un", "##i", "[SEP]"]
    assert found.words == 3
    assert found.align([1, 2, 3]).tolist() == [IGNORED, 1, 2, IGNORED, IGNORED]
    [empty] = encode_words(TOKENIZER, [[]])
    assert (len(empty), empty.words, empty.tokens_of_words()) == (2, 0, [])


def test_tokens_of_a_text_know_their_characters() -> None:
    text = "The  unit's X"
    [found, empty] = encode_tokens(TOKENIZER, [text, ""])
    assert [text[a:b] for a, b in found.offsets[1:-1]] == ["The", "un", "i", "t", "'", "s", "X"]
    assert found.word_ids.tolist() == [-1, 0, 1, 1, 1, 2, 3, 4, -1]
    assert (found.words, empty.words, len(empty)) == (5, 0, 2)


# ── windows ──


@pytest.mark.parametrize(("max_length", "step"), [(12, 1), (12, 3), (12, 6), (40, 20)])
def test_windows_cover_the_context(max_length: int, step: int) -> None:
    for length in (*range(12), 100, 1000):
        windows_cover(length, max_length, step)


def windows_cover(length: int, max_length: int, step: int) -> None:
    """Of a context of `length` words every one is in some window, and counts in that in which it has most around it."""
    context = " ".join(LETTERS[i % 26] for i in range(length))
    options = {"max_length": max_length, "doc_stride": step, "max_question_length": 3}
    [windows] = encode_questions(TOKENIZER, ["the un"], [context], **options)
    room = max_length - 2 - 3
    seen: dict[int, list[tuple[int, Window]]] = defaultdict(list)
    for number, window in enumerate(windows):
        assert tokens(window)[:4] == ["[CLS]", "the", "un", "[SEP]"]
        assert tokens(window)[-1] == "[SEP]"
        assert len(window) <= max_length
        assert window.token_type_ids.tolist() == [0] * 4 + [1] * (len(window) - 4)
        assert len(window.offsets) == len(window.max_context) == window.context.stop - window.context.start
        texts = [context[start:end] for start, end in window.offsets]
        assert texts == tokens(window)[window.context]
        for place in window.offsets[:, 0] // 2:
            seen[int(place)].append((number, window))
        assert number in (0, len(windows) - 1) or len(texts) == room
    assert sorted(seen) == list(range(length))
    for place, showing in seen.items():
        margins = []
        for number, window in showing:
            local = place - number * step
            margins.append(min(local, len(window.offsets) - 1 - local) + 0.01 * len(window.offsets))
        chosen = [bool(window.max_context[place - number * step]) for number, window in showing]
        assert chosen.index(True) == margins.index(max(margins))
        assert sum(chosen) == 1


def test_windows_fit_what_the_model_reads() -> None:
    assert usual_windows(512) == usual_windows(384) == (128, 64)
    assert usual_windows(60) == (20, 10)
    [windows] = encode_questions(TOKENIZER, ["the " * 20], ["un " * 100], max_length=60)
    assert [len(window) for window in windows] == [60, 60, 60, 53]
    assert tokens(windows[0])[:13] == ["[CLS]", *["the"] * 10, "[SEP]", "un"]
    assert windows[1].offsets[0, 0] == 20 * len("un ")


def test_windows_of_a_long_context_take_memory_in_proportion() -> None:
    context = "un " * 20_000
    tracemalloc.start()
    try:
        [windows] = encode_questions(TOKENIZER, ["the"], [context], max_length=40, doc_stride=10, max_question_length=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(windows) == 1998
    assert sum(int(window.max_context.sum()) for window in windows) == 20_000
    assert peak < 50e6


def test_windows_that_would_skip_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="doc_stride=10"):
        encode_questions(TOKENIZER, ["the"], ["un"], max_length=20, doc_stride=10, max_question_length=8)
    with pytest.raises(InputError, match="leave -4 for the context"):
        encode_questions(TOKENIZER, ["the"], ["un"], max_length=20, max_question_length=21)


def test_long_questions_are_cut_and_empty_contexts_have_a_window() -> None:
    [[window]] = encode_questions(TOKENIZER, [" the " * 9], [""], max_length=20, doc_stride=2, max_question_length=4)
    assert tokens(window) == ["[CLS]", *["the"] * 4, "[SEP]", "[SEP]"]
    assert len(window.offsets) == 0


def test_answers_are_located_only_where_all_of_them_is() -> None:
    context = "a b unit d e f g h"
    options = {"max_length": 11, "doc_stride": 3, "max_question_length": 3}
    [windows] = encode_questions(TOKENIZER, ["the un"], [context], **options)
    parts = [tokens(window)[window.context] for window in windows]
    assert parts == [["a", "b", "un", "##i", "##t", "d"], ["##i", "##t", *"defg"], [*"efgh"]]
    whole, part, cut = (4, 8), (5, 8), (13, 14)
    assert [window.locate(*whole) for window in windows] == [(6, 8), (0, 0), (0, 0)]
    assert [window.locate(*part) for window in windows] == [(6, 8), (0, 0), (0, 0)]  # begins inside the token "un"
    assert [window.locate(*cut) for window in windows] == [(0, 0), (8, 8), (5, 5)]
    assert windows[0].locate(0, 3) == (4, 5)  # a space at its end belongs to no token
    assert windows[0].locate(3, 3) == (0, 0)
    assert windows[0].locate(3, 4) == (0, 0)


# ── real data ──


def _varint(data: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[i]
        value, shift, i = value | (byte & 127) << shift, shift + 7, i + 1
        if byte < 128:
            return value, i


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers and contents of a protocol buffer that has only fields with a length."""
    i = 0
    while i < len(data):
        key, i = _varint(data, i)
        length, i = _varint(data, i)
        yield key >> 3, data[i : i + length]
        i += length


def _examples(path: Path) -> Iterator[dict[str, Any]]:
    """Features of a zlib-compressed file of tf.train.Example, whole numbers as lists, texts as bytes."""
    data, i = zlib.decompress(path.read_bytes()), 0
    while i < len(data):
        (length,) = struct.unpack_from("<Q", data, i)
        example: dict[str, Any] = {}
        for _, entry in _fields(next(_fields(data[i + 12 : i + 12 + length]))[1]):
            name, value = (content for _, content in _fields(entry))
            [(kind, content)] = _fields(value)
            items = [item for _, item in _fields(content)]
            if kind == 3:  # int64_list, packed
                numbers, j = [], 0
                while j < len(items[0]):
                    number, j = _varint(items[0], j)
                    numbers.append(number)
                example[name.decode()] = numbers
            else:
                example[name.decode()] = items
        yield example
        i += 16 + length


@pytest.mark.data
@pytest.mark.skipif("POCKETBERT_DATA" not in os.environ, reason="POCKETBERT_DATA is not set")
def test_squad_windows_are_those_of_mlperf() -> None:
    """All windows of SQuAD v1.1 dev, with the flags of the tokens of most context, as the original BERT makes them."""
    data = Path(os.environ["POCKETBERT_DATA"])
    articles = json.loads((data / "squad/dev-v1.1.json").read_text(encoding="utf-8"))["data"]
    asked = [
        (question["id"], question["question"], paragraph["context"])
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    ids, questions, contexts = zip(*asked, strict=True)
    tokenizer = BertTokenizer(data / "vocab/bert-base-uncased-vocab.txt")
    ours = dict(zip(ids, encode_questions(tokenizer, questions, contexts), strict=True))
    theirs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for example in _examples(data / "oracles/squad_eval.tfrecord"):
        theirs[example["qas_id"][0].decode()].append(example)
    assert ours.keys() == theirs.keys()
    for key, windows in ours.items():
        for window, example in zip(windows, theirs[key], strict=True):
            length = sum(example["input_mask"])
            assert example["input_ids"][:length] == window.input_ids.tolist()
            assert example["segment_ids"][:length] == window.token_type_ids.tolist()
            assert example["token_is_max_context"] == window.max_context.tolist()
