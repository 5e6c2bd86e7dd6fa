"""Words, also where a script puts no spaces between them."""

import random

from pocketbert.data.augment import augment, augment_all
from pocketbert.data.words import count_words, words_of

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
