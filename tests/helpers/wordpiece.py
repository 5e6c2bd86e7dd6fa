"""The tokeniser of the native core, called through its C interface, and texts in many scripts to compare it on."""

from __future__ import annotations

import ctypes
import random
import unicodedata
from collections.abc import Iterable, Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_uint16, c_void_p
from functools import cache
from typing import ClassVar, NamedTuple

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from pocketbert.runtime.core import library_path, load

Found = list[tuple[int, int, int]]  # id, start and end of each token, in characters


class CVocabulary(Structure):
    """pb_vocabulary."""

    _fields_: ClassVar = [
        ("tokens", c_char_p), ("bytes", c_int32), ("unknown", c_char_p), ("prefix", c_char_p),
        ("longest_word", c_int32), ("clean_text", c_int32), ("handle_chinese_chars", c_int32),
        ("strip_accents", c_int32), ("lowercase", c_int32),
    ]  # fmt: skip


class CAddedToken(Structure):
    """pb_added_token."""

    _fields_: ClassVar = [
        ("content", c_char_p), ("id", c_int32), ("normalized", c_int32), ("takes_left", c_int32),
        ("takes_right", c_int32),
    ]  # fmt: skip


class CToken(Structure):
    """pb_token."""

    _fields_: ClassVar = [("id", c_int32), ("start", c_int32), ("end", c_int32)]


PARAMETERS = {
    "pb_create_wordpiece": [POINTER(CVocabulary), POINTER(c_void_p)],
    "pb_free_wordpiece": [c_void_p],
    "pb_add_token": [c_void_p, POINTER(CAddedToken)],
    "pb_tokenize": [c_void_p, POINTER(c_uint16), c_int32, POINTER(CToken), c_int32, POINTER(c_int32)],
}


@cache
def _core() -> ctypes.CDLL:
    path = library_path()
    assert path is not None, "the native core was not built"
    core = load(path)
    for name, parameters in PARAMETERS.items():
        getattr(core, name).argtypes = parameters
    return core


def _check(status: int) -> None:
    if status:
        core = _core()
        core.pb_message.restype = c_char_p
        raise ValueError(core.pb_message().decode())


class Steps(NamedTuple):
    """The steps of BERT's normaliser."""

    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool = True
    lowercase: bool = True


class NativeWordPiece:
    """The core's tokeniser of a vocabulary whose ids count its tokens."""

    def __init__(
        self, vocabulary: Sequence[str], steps: Steps, added: Iterable[tuple[int, AddedToken]] = (), longest: int = 100,
        unknown: str = "[UNK]", prefix: str = "##",
    ) -> None:  # fmt: skip
        tokens = b"".join(token.encode() + b"\0" for token in vocabulary)
        self._handle = c_void_p()
        given = CVocabulary(tokens, len(tokens), unknown.encode(), prefix.encode(), longest, *map(int, steps))
        _check(_core().pb_create_wordpiece(byref(given), byref(self._handle)))
        for index, token in added:
            assert not token.single_word
            flags = (token.normalized, token.lstrip, token.rstrip)
            c_token = CAddedToken(token.content.encode(), index, *map(int, flags))
            _check(_core().pb_add_token(self._handle, byref(c_token)))

    def __del__(self) -> None:
        _core().pb_free_wordpiece(self._handle)

    def units(self, text: Sequence[int]) -> Found:
        """The tokens of UTF-16, with places in its units."""
        units = (c_uint16 * len(text))(*text)
        capacity, count = max(1, len(text)), c_int32()
        while True:
            tokens = (CToken * capacity)()
            _check(_core().pb_tokenize(self._handle, units, len(text), tokens, capacity, byref(count)))
            if count.value <= capacity:
                return [(token.id, token.start, token.end) for token in tokens[: count.value]]
            capacity = count.value

    def __call__(self, text: str) -> Found:
        """The tokens of a text, with places in its characters."""
        place = [0]
        for index, character in enumerate(text):
            place += [index + 1] * (1 + (ord(character) > 0xFFFF))
        data = text.encode("utf-16-le")
        found = self.units(memoryview(data).cast("H").tolist())
        return [(token, place[start], place[end]) for token, start, end in found]


def reference(
    vocabulary: Sequence[str], steps: Steps, added: Iterable[AddedToken] = (), longest: int = 100
) -> Tokenizer:
    """The same of the `tokenizers` library."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=longest))
    tokenizer.normalizer = BertNormalizer(**steps._asdict())
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_tokens(list(added))
    return tokenizer


def tokens_of(tokenizer: Tokenizer, text: str) -> Found:
    """What it makes of a text."""
    found = tokenizer.encode(text, add_special_tokens=False)
    return [(token, *place) for token, place in zip(found.ids, found.offsets, strict=True)]


# ── texts ──

_BLOCKS = (
    (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x530, 0x6FF), (0x700, 0xDFF),
    (0xE00, 0x11FF), (0x1200, 0x1CFF), (0x1D00, 0x1FFF), (0x2000, 0x2BFF), (0x2C00, 0x33FF), (0x3400, 0x9FFF),
    (0xA000, 0xABFF), (0xAC00, 0xD7FB), (0xE000, 0xFFFD), (0x10000, 0x11FFF), (0x16000, 0x1BFFF), (0x1D000, 0x1FFFF),
    (0x20000, 0x3134F), (0xE0000, 0xE01FF), (0, 0x1F), (0x300, 0x36F), (0, 0x10FFFF),
)  # fmt: skip
_ODD = (
    "\t\n\r\x00\x0b\x0c\x85\xa0\u1680\u180e\u2028\u200b\u200d"
    "\u202f\u3000\ufeff\ufffd\u0130\u0131\u03a3\u1e9e\u0344\u212b"
)
_SPECIAL = ("[MASK]", "[SEP]", "[UNK]", "[mask]", "[MASK", "[", "]", "##", "new york", "New York", "NEW  YORK", "éa")


def random_text(draw: random.Random, longest: int = 40) -> str:
    """Words in one script or some, with marks, spaces, controls and added tokens in between."""
    parts = []
    block = draw.choice(_BLOCKS)
    for _ in range(draw.randint(0, longest)):
        chance = draw.random()
        if chance < 0.12:
            parts.append(" ")
        elif chance < 0.17:
            parts.append(draw.choice(_ODD))
        elif chance < 0.21:
            parts.append(draw.choice(_SPECIAL))
        elif chance < 0.3:
            parts.append(chr(draw.randint(0x300, 0x345)))
        elif chance < 0.34:
            block = draw.choice(_BLOCKS)
        elif chance < 0.35:
            parts.append(draw.choice("ab\u00e9") * draw.choice((3, 99, 100, 101)))
        else:
            code = draw.randint(*block)
            parts.append(" " if 0xD800 <= code < 0xE000 else chr(code))
    text = "".join(parts)
    return unicodedata.normalize(draw.choice(("NFC", "NFD")), text) if draw.random() < 0.2 else text


def random_vocabulary(draw: random.Random, size: int = 3000) -> list[str]:
    """Special tokens, and short runs of characters as the normaliser leaves them, at the start and within words."""
    tokens = dict.fromkeys(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    normalisers = [BertNormalizer(**Steps(*(draw.random() < 0.5 for _ in range(4)))._asdict()) for _ in range(4)]
    while len(tokens) < size:
        words = draw.choice(normalisers).normalize_str(random_text(draw)).split()
        for word in words:
            start = draw.randrange(len(word))
            tokens[("##" if draw.random() < 0.6 else "") + word[start : start + draw.choice((1, 1, 1, 2, 3))]] = None
    return [token for token in tokens if "\0" not in token]


def added_tokens() -> list[AddedToken]:
    """Tokens that are found as they are, some with their whitespace, and others after normalisation."""
    return [
        AddedToken("[SEP]", special=True, normalized=False),
        AddedToken("[MASK]", special=True, normalized=False, lstrip=True),
        AddedToken("New York", normalized=True),
        AddedToken("[MASK", normalized=False, rstrip=True),
        AddedToken("Éa", normalized=True, lstrip=True, rstrip=True),
    ]


class Case(NamedTuple):
    """A tokeniser of both kinds."""

    native: NativeWordPiece
    reference: Tokenizer

    def compare(self, text: str) -> None:
        """Raises `AssertionError` where they differ."""
        ours, theirs = self.native(text), tokens_of(self.reference, text)
        assert ours == theirs, f"{text!a}: {ours} instead of {theirs}"


def random_case(draw: random.Random) -> Case:
    """With random steps, vocabulary and longest word."""
    vocabulary = random_vocabulary(draw)
    steps = Steps(*(draw.random() < 0.7 for _ in range(4)))
    added = added_tokens() if draw.random() < 0.7 else []
    longest = draw.choice((100, 100, 5))
    theirs = reference(vocabulary, steps, added, longest)
    known = theirs.get_vocab()
    ids = [(known[token.content], token) for token in added]
    return Case(NativeWordPiece(vocabulary, steps, ids, longest), theirs)
