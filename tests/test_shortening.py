"""Long texts are shortened where no token depends on it: the same tokens, and the same places in the whole text."""

import random
import threading
import time
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, pre_tokenizers
from tokenizers.normalizers import BertNormalizer

from pocketbert.bundles import BUNDLED, SENTIMENT
from pocketbert.features import encode_questions, encode_texts, encode_tokens
from pocketbert.shortening import _DROPPED, _SOLID, _SPACE, _kinds, shorten
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.windows import encode_long_texts

PIECES = [
    *("a", "é", "ﷺ", "가", "☺", "中", ",", ".", "[MASK]", "film", "[SEP]", "\u200b", "\u0301", "\xad", "\ue000"),
    *("\u0903", "😀", "𝒳", "！", "㍿", "\t", "\n", "\r", "\x00", "\ufffd", "\x0c", "\x85", "\u2028", "İ", "ß", "7"),
    *("½", "##", " ", "a"),
]  # fmt: skip
HUGE = {
    "a word": "a" * 2_000_000,
    "spaces": " " * 2_000_000 + "a",
    "syllables": "가" * 700_000,
    "ligatures": "ﷺ" * 700_000,
    "zero-width": "\u200b" * 700_000 + "a",
    "marks": "e" + "\u0301" * 700_000,
    "in turns": "a\u200b" * 500_000,
    "symbols": "😀" * 500_000,
    "unassigned": "\u0378" * 700_000,
}


@pytest.fixture(scope="module")
def bundled() -> BertTokenizer:
    return AutoTokenizer.from_pretrained(BUNDLED / SENTIMENT)


def odd(draws: random.Random) -> str:
    """A text with long runs of anything."""
    parts = []
    for _ in range(draws.randint(1, 14)):
        kind = draws.random()
        if kind < 0.6:
            parts.append(
                draws.choice(PIECES) * draws.choice([1, 2, 50, 99, 100, 101, 102, 255, 256, 257, 300, 1000, 4000])
            )
        elif kind < 0.8:
            parts += draws.choices(draws.sample(PIECES, draws.randint(2, 4)), k=draws.choice([10, 300, 2000]))
        else:
            parts.append(" ".join(draws.choices(["film", "the", "great", ",", "naïve"], k=draws.randint(1, 30))))
    return "".join(parts)


def test_the_same_tokens_at_the_same_places(bundled: BertTokenizer) -> None:
    vocab = bundled.get_vocab()
    options: Sequence[dict[str, Any]] = [
        {},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"do_lower_case": False, "strip_accents": True, "clean_text": False, "tokenize_chinese_chars": False},
        {"clean_text": False},
    ]
    tokenizers = [BertTokenizer(vocab=vocab, **some) for some in options]
    shortened = 0
    for seed in range(60):
        draws = random.Random(seed)
        tokenizer, text = draws.choice(tokenizers), odd(draws)
        short = shorten(tokenizer, text)
        if short.kept is None:
            assert short.text == text
            continue
        shortened += 1
        assert len(short.text) < len(text)
        whole, part = (tokenizer(one, return_offsets_mapping=True, verbose=False) for one in (text, short.text))
        assert part["input_ids"] == whole["input_ids"], seed
        assert part.word_ids() == whole.word_ids(), seed
        offsets = np.array(part["offset_mapping"], np.int32)
        assert short.restored(offsets).tolist() == [list(one) for one in whole["offset_mapping"]], seed
        for place in draws.sample(range(len(text)), 20):
            if (word := whole.encodings[0].char_to_word(place)) is not None:  # type: ignore[index]
                assert part.encodings[0].char_to_word(short.place(place)) == word  # type: ignore[index]
    assert shortened > 12


@pytest.mark.parametrize(
    ("clean", "lower", "strip"),
    [
        (True, True, None),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in product([True, False], [True, False], [True, False])),
    ],
)
def test_kinds_of_characters(clean: bool, lower: bool, strip: bool | None) -> None:
    """Every one against the normalisation itself."""
    normalize = BertNormalizer(clean, True, strip, lower).normalize_str
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    wrong = []
    for code, kind in enumerate(_kinds(clean, lower if strip is None else strip)[:-1].tolist()):
        if not kind or (code % 17 and strip is None):
            continue
        text = normalize(f"a{chr(code)}a")
        found = [word for word, _ in words(text)]
        right = {_SPACE: found == ["a", "a"], _SOLID: len(found) == 1 and len(found[0]) >= 3, _DROPPED: text == "aa"}
        if not right[kind]:
            wrong.append((hex(code), kind))
    assert not wrong


def test_megabytes_become_little(bundled: BertTokenizer) -> None:
    for name, text in HUGE.items():
        assert len(shorten(bundled, text).text) < 1000, name
        [one] = encode_texts(bundled, [text + " film"], max_length=64)
        assert len(one) <= 4, name
        [tokens] = encode_tokens(bundled, ["film " + text], max_length=64)
        assert tokens.offsets[1].tolist() == [0, 4]
        assert tokens.offsets.max() <= 5 + len(text)


def test_an_unknown_word_ends_where_it_ends(bundled: BertTokenizer) -> None:
    text = "the " + "é" * 9000 + " film"
    [one] = encode_tokens(bundled, [text])
    assert one.offsets.tolist() == [[0, 0], [0, 3], [4, 9004], [9005, 9009], [0, 0]]
    [[window]] = encode_questions(bundled, ["why" * 3000], [text])
    assert window.offsets.tolist() == one.offsets[1:-1].tolist()


def test_added_tokens_of_letters_are_found_in_words(bundled: BertTokenizer) -> None:
    tokenizer = BertTokenizer(vocab=bundled.get_vocab())
    text = "x" * 5000 + "zork" + "x" * 5000
    assert shorten(tokenizer, text).kept is not None
    tokenizer.add_tokens([AddedToken("zork")])
    assert shorten(tokenizer, text).kept is None


def test_pairs_are_cut_as_if_they_were_read_whole(bundled: BertTokenizer) -> None:
    """Beside a short text, the longer one is cut before it is tokenised."""
    draws = random.Random(0)
    words = ["film", "the", "great", ",", "a" * 12, "naïve"]
    for rule in ("longest_first", "only_first", "only_second"):
        for lengths in ((900, 10), (10, 900), (900, 200), (700, 900), (3, 5)):
            first, second = (" ".join(draws.choices(words, k=count)) for count in lengths)
            if rule != "longest_first" and lengths[rule == "only_first"] > 100:
                continue  # nothing of the other would be left
            [found] = encode_texts(bundled, [first], [second], max_length=128, truncation=rule)
            whole = bundled(first, second, truncation=rule, max_length=128)
            assert found.input_ids.tolist() == whole["input_ids"], (rule, lengths)
            assert found.token_type_ids.tolist() == whole["token_type_ids"]


def test_the_end_of_a_text_is_read_where_it_is_cut_at_the_left(bundled: BertTokenizer) -> None:
    tokenizer = BertTokenizer(vocab=bundled.get_vocab(), truncation_side="left")
    text = "dull " * 3000 + "a great film"
    [one] = encode_tokens(tokenizer, [text], max_length=32)
    whole = tokenizer(text, truncation=True, max_length=32, return_offsets_mapping=True)
    assert one.input_ids.tolist() == whole["input_ids"]
    assert one.offsets.tolist() == [list(pair) for pair in whole["offset_mapping"]]
    assert one.cut


def test_windows_have_all_tokens(bundled: BertTokenizer) -> None:
    text = "the film " * 300 + "a" * 50_000 + " is great" * 300
    [windows] = encode_long_texts(bundled, [text], max_length=100)
    ids = bundled(text, verbose=False)["input_ids"]
    assert {one for window in windows for one in window.input_ids.tolist()} == set(ids)


def test_other_threads_go_on_while_a_long_text_is_tokenised(bundled: BertTokenizer) -> None:
    """The event loop of a service is one of them: it runs meanwhile, and not only afterwards."""
    turns, done = 0, threading.Event()

    def encode() -> None:
        bundled("the film " * 15_000, verbose=False)
        done.set()

    thread = threading.Thread(target=encode)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        turns += 1
    thread.join()
    assert turns > 1
