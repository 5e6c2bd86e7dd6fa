"""The core's tokeniser against `tokenizers`, tables against the library, and what it refuses."""

from __future__ import annotations

import random
from typing import Any

import pytest

from helpers.wordpiece import NativeWordPiece, Steps, random_case, random_text, reference, tokens_of
from pocketbert.runtime.engine import native_core

pytestmark = pytest.mark.skipif(native_core() is None, reason="the native core was not built")

ALL = 0x10FFFF
LETTERS = ["[UNK]", "a", "b", "##a", "##b", "e", "##e", ".", "中", "ab"]


@pytest.mark.parametrize("seed", range(8))
def test_texts_in_many_scripts_become_the_tokens_of_the_library(seed: int) -> None:
    draw = random.Random(f"texts of {seed}")
    case = random_case(draw)
    for _ in range(400):
        case.compare(random_text(draw))


@pytest.mark.parametrize("count", [3000, pytest.param(ALL, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "steps", [Steps(), Steps(strip_accents=False, lowercase=False), Steps(False, False, True, False)]
)
def test_every_character(steps: Steps, count: int) -> None:
    codes = random.Random(0).sample(range(1, ALL + 1), count)  # shuffled: each call sees neighbours of all kinds
    characters = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    normalise = reference(["[UNK]"], steps).normalizer.normalize_str
    found = {piece for c in characters for piece in normalise(f"a{c}b")} - {"\0"}  # so that nothing is unknown
    vocabulary = ["[UNK]", *sorted(found), *(f"##{piece}" for piece in sorted(found))]
    ours, theirs = NativeWordPiece(vocabulary, steps), reference(vocabulary, steps)
    for start in range(0, len(characters), 500):
        text = "".join(f"a{c}b " for c in characters[start : start + 500])
        assert ours(text) == tokens_of(theirs, text)


def test_places_are_counted_in_units_of_utf_16() -> None:
    ours = NativeWordPiece([*LETTERS, "\U0001f600"], Steps())
    assert ours.units([0xE9, 0xD83D, 0xDE00, 0x62]) == [(0, 0, 4)]
    assert ours.units([0x61, 0x20, 0xD83D, 0xDE00, 0x20, 0x62]) == [(1, 0, 1), (10, 2, 4), (2, 5, 6)]


def test_half_a_character_is_dropped_as_a_replacement() -> None:
    ours = NativeWordPiece(LETTERS, Steps())
    for half in (0xD83D, 0xDE00):
        assert ours.units([0x61, half, 0x62]) == ours.units([0x61, 0xFFFD, 0x62]) == [(9, 0, 3)]
        assert ours.units([half]) == []


def test_a_syllable_can_be_three_tokens() -> None:
    ours = NativeWordPiece(["[UNK]", "\u1112", "##\u1161", "##\u11ab"], Steps())
    assert ours("한") == [(1, 0, 1), (2, 0, 1), (3, 0, 1)]


def test_long_words_are_unknown() -> None:
    ours = NativeWordPiece(LETTERS, Steps())
    assert ours("a" * 100_000 + " ab") == [(0, 0, 100_000), (9, 100_001, 100_003)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"vocabulary": ["a", "b"]}, r"no token for unknown words: \[UNK\]"),
        ({"vocabulary": []}, "no tokens"),
        ({"longest": 0}, "at least one character"),
        ({"vocabulary": ["[UNK]"], "unknown": "x"}, "unknown words: x"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        NativeWordPiece(**{"vocabulary": LETTERS, "steps": Steps()} | options)
