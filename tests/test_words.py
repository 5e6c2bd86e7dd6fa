"""Words, also where a script puts no spaces between them."""

import random
import unicodedata
from itertools import pairwise

import numpy as np

from pocketbert.data.augment import augment, augment_all
from pocketbert.words import (
    _marks,
    bare_words,
    count_words,
    is_right_to_left,
    is_unspaced,
    with_marks,
    word_places,
    words_of,
)

TEXTS = {
    "The plot is thin.": ["The", "plot", "is", "thin."],
    "今天天气很好。": ["今", "天", "天", "气", "很", "好", "。"],
    "我用 BERT 模型": ["我", "用", "BERT", "模", "型"],
    "ひらがなとカタカナ": list("ひらがなとカタカナ"),
    "สวัสดี": ["ส", "วั", "ส", "ดี"],
    "Привет, мир": ["Привет,", "мир"],
    "한국어 문장": ["한국어", "문장"],
    "  ": [],
}


def test_words() -> None:
    for text, words in TEXTS.items():
        assert [word for _, word in words_of(text)] == words
        assert "".join(space + word for space, word in words_of(text)) == " ".join(text.split())
        assert [text[start:end] for start, end in word_places(text)] == words


def test_counts() -> None:
    assert [count_words(text) for text in TEXTS if text.strip()] == [4, 6, 5, 9, 4, 2, 2]
    draw = random.Random(0)
    for _ in range(100):  # where there are spaces, each part is a word
        parts = ["".join(draw.choices("abé-.1", k=draw.randint(1, 5))) for _ in range(draw.randint(1, 9))]
        assert count_words(" ".join(parts)) == len(parts)


def test_characters_are_masked_one_by_one() -> None:
    text = "今天天气很好我们一起去公园散步" * 3
    copies = [augment(text, "[MASK]", seed, 0, 0) for seed in range(30)]
    assert len(set(copies)) > 20
    assert all(" " not in copy for copy in copies)
    assert any(0 < copy.count("[MASK]") < 10 and len(copy) > 30 for copy in copies)
    assert any(len(copy.replace("[MASK]", "。")) <= 5 for copy in copies)  # a run of characters
    [copy] = augment_all(["a film"], 1, "[MASK]", 3)
    assert len(copy.split()) <= 2


def test_bare_words() -> None:
    assert bare_words("It's a ＦＩＮＥ “Straße”, 12%!") == ["it", "s", "a", "fine", "strasse", "12"]
    assert bare_words("كِتَابٌ، كتـــاب؟ مُمِلّ.") == ["كتاب", "كتاب", "ممل"]
    assert bare_words("שָׁלוֹם־עולם") == ["שלום", "עולם"]
    assert bare_words("质量很好，值得BERT！") == [*"质量很好值得", "bert"]
    assert bare_words("हिन्दी की") == ["हिन्दी", "की"]  # vowel signs are marks that distinguish words
    assert bare_words("ภาษาไทย")[-3:] == ["ไ", "ท", "ย"]
    assert bare_words("e\u0301te\u0301 été") == ["été", "été"]
    assert bare_words("……！؟") == []


def test_scripts() -> None:
    assert [is_unspaced(text) for text in ("abc é", "a北", "ไทย", "كتاب")] == [False, True, True, False]
    assert [is_right_to_left(text) for text in ("abc", "北京", "a كتاب", "שלום", "٢")] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_tokens_with_the_marks_that_follow_them() -> None:
    """Against a loop over characters, on random texts and tokens, of which some drop the marks at their end."""
    draw = random.Random()
    for _ in range(200):
        text = "".join(draw.choices("abق会 \u0301\u064b\u0651\u0e34", k=draw.randint(0, 12)))
        edges = sorted(draw.sample(range(len(text) + 1), min(len(text) + 1, draw.choice((2, 4, 6)))))
        places = list(pairwise(edges))[::2]
        offsets = np.array([(0, 0), *places, (0, 0)], np.int32)
        expected = [(0, 0)]
        for number, (start, end) in enumerate(places):
            following = places[number + 1][0] if number + 1 < len(places) else len(text)
            while end < following and unicodedata.category(text[end])[0] == "M":
                end += 1
            expected.append((start, end))
        assert with_marks(text, offsets).tolist() == [list(place) for place in [*expected, (0, 0)]], (text, places)


def test_marks() -> None:
    marks = [unicodedata.category(chr(code))[0] == "M" for code in range(0x1F000)]
    assert _marks().tolist() == [*marks, False]
