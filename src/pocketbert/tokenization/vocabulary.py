"""The vocabulary of a WordPiece tokenizer: words, special and added tokens, and the `tokenizers` backends with them.

`tokenizers` keeps truncation and padding as state, so each combination of settings gets a backend of its own
(microseconds: all share one vocabulary), and threads cannot disturb each other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.normalizers import Sequence as Steps

from pocketbert.errors import TokenizerError
from pocketbert.shortening import is_split
from pocketbert.tokenization.files import (
    TOKEN_NAMES,
    FilePath,
    Token,
    as_token,
    as_tokens,
    check,
    one_of,
    read_backend,
)

_MAX_BACKENDS = 32

logger = logging.getLogger(__name__)


USUAL_LENGTH = 512  # tokens that published models read


class Truncation(NamedTuple):
    """Settings of `tokenizers`: truncation."""

    max_length: int
    stride: int
    strategy: str
    direction: str


class Padding(NamedTuple):
    """Settings of `tokenizers`: padding."""

    length: int | None
    direction: str
    pad_id: int
    pad_token: str
    pad_to_multiple_of: int | None


def _special(name: str) -> tuple[property, property]:
    """Read-only properties of a special token's text and of its id; `add_special_tokens` changes them."""
    return (
        property(lambda self: self.special_tokens_map[name]),
        property(lambda self: self._backend.token_to_id(self.special_tokens_map[name])),
    )


class Vocabulary:
    """The part of a tokenizer that maps between tokens and ids; the arguments are those of `BertTokenizer`."""

    unk_token, unk_token_id = _special("unk_token")
    sep_token, sep_token_id = _special("sep_token")
    pad_token, pad_token_id = _special("pad_token")
    cls_token, cls_token_id = _special("cls_token")
    mask_token, mask_token_id = _special("mask_token")
    pad_token_type_id = 0
    #: Separators between the texts of a pair, and the segment of the second one.
    separators = 1
    second_segment = 1
    #: Whether the pieces of a word can be told by themselves, and not by the spaces of the text.
    knows_words = True

    def __init__(
        self,
        vocab_file: FilePath | None = None,
        tokenizer_file: FilePath | None = None,
        *,
        vocab: Mapping[str, int] | None = None,
        do_lower_case: bool | None = None,
        do_basic_tokenize: bool | None = None,
        never_split: Iterable[str] | None = None,
        unk_token: Token | None = None,
        sep_token: Token = "[SEP]",
        pad_token: Token = "[PAD]",
        cls_token: Token = "[CLS]",
        mask_token: Token = "[MASK]",
        additional_special_tokens: Iterable[Token] = (),
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        tokenize_chinese_chars: bool | None = None,
        strip_accents: bool | None = None,
        clean_text: bool | None = None,
        wordpieces_prefix: str | None = None,
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
    ) -> None:
        switches = {
            "lowercase": do_lower_case,
            "strip_accents": strip_accents,
            "handle_chinese_chars": tokenize_chinese_chars,
            "clean_text": clean_text,
        }
        for name, value in (switches | {"do_basic_tokenize": do_basic_tokenize}).items():
            check(name, value, bool | None, "true, false or None")
        check("wordpieces_prefix", wordpieces_prefix, str | None, "a text")
        self._set_limits(model_max_length, padding_side, truncation_side)

        stored = read_backend(vocab_file, tokenizer_file, vocab)
        self._model: WordPiece = stored.model
        if wordpieces_prefix is not None:
            self._model.continuing_subword_prefix = wordpieces_prefix
        self.wordpieces_prefix: str = self._model.continuing_subword_prefix
        self._normalizer, self._pre_tokenizer = stored.normalizer, stored.pre_tokenizer
        self._set_basic_step(switches, do_basic_tokenize)

        # In the order of their ids: `tokenizers` numbers what the vocabulary lacks in the order of addition.
        decoder = added_tokens_decoder or {}
        added = {token.content: token for _, token in sorted(stored.get_added_tokens_decoder().items())}
        added |= {token.content: token for _, token in sorted(decoder.items())}
        given = (unk_token or self._model.unk_token, sep_token, pad_token, cls_token, mask_token)
        named = dict(zip(TOKEN_NAMES, (as_token(token, True, added) for token in given), strict=True))
        for name, token in named.items():
            known = self._model.token_to_id(token.content) is not None
            if not known and (name == "unk_token" or token.content not in added):
                raise TokenizerError(
                    f"the vocabulary has no {token.content!r}: it is damaged, or it calls this token by another name, "
                    f"to be given as {name}=…"
                )
        self.special_tokens_map = {name: token.content for name, token in named.items()}
        self._model.unk_token = self.unk_token
        others = [as_token(token, True, added) for token in as_tokens(additional_special_tokens)]
        special = {token.content: token for token in (*named.values(), *others)}
        self.never_split = sorted({str(word) for word in as_tokens(never_split or ())} - set(special))
        for word in self.never_split:
            if self._model.token_to_id(word) is None and word not in added:
                raise TokenizerError(f"never_split word {word!r} is not in the vocabulary; `add_tokens` can add it")
        kept = [AddedToken(word, single_word=True, normalized=False) for word in self.never_split]
        self._assemble([*added.values(), *special.values(), *kept])
        self._check_ids(decoder)

    def _set_limits(self, model_max_length: int | None, padding_side: str, truncation_side: str) -> None:
        check("model_max_length", model_max_length, int | None, "a whole number")
        if model_max_length is not None and model_max_length < 1:
            raise TokenizerError(f"{model_max_length=} must be at least 1")
        self.stated_max_length: int | None = model_max_length  # None: neither the caller nor a file says it
        self._warned = False
        self.padding_side = one_of("padding_side", padding_side, "left", "right")
        self.truncation_side = one_of("truncation_side", truncation_side, "left", "right")

    def _check_ids(self, added: Mapping[int, AddedToken]) -> None:
        """Refuse added tokens that have other ids here than where they were added."""
        for index, token in added.items():
            if (found := self._backend.token_to_id(token.content)) != index:
                raise TokenizerError(
                    f"added token {token.content!r} should have id {index} but gets {found}: the added tokens belong "
                    "to another vocabulary"
                )

    @property
    def model_max_length(self) -> int:
        """Longest input of the model, in tokens: 512 where nothing states it."""
        return USUAL_LENGTH if self.stated_max_length is None else self.stated_max_length

    @model_max_length.setter
    def model_max_length(self, tokens: int) -> None:
        self.stated_max_length = tokens

    def _set_basic_step(self, switches: Mapping[str, bool | None], do_basic_tokenize: bool | None) -> None:
        """Normaliser and pre-tokenizer: as stored, changed where an option was given."""
        self.do_basic_tokenize = do_basic_tokenize is not False
        if not self.do_basic_tokenize:
            self._normalizer, self._pre_tokenizer = None, pre_tokenizers.WhitespaceSplit()
        basic = self._normalizer if isinstance(self._normalizer, BertNormalizer) else BertNormalizer()
        options = {name: getattr(basic, name) if switch is None else switch for name, switch in switches.items()}
        if isinstance(self._normalizer, BertNormalizer):  # any other stored normaliser is its file's own affair
            self._normalizer = BertNormalizer(**options)
        self.do_lower_case, self.strip_accents = options["lowercase"], options["strip_accents"]
        self.tokenize_chinese_chars, self.clean_text = options["handle_chinese_chars"], options["clean_text"]

    def _assemble(self, added: Iterable[AddedToken]) -> None:
        """Assemble the backend again; of two added tokens with the same text the later one counts."""
        self._added = list({token.content: token for token in added}.values())
        self._backend = self._new_backend()
        self._special_ids = {self.convert_tokens_to_ids(token.content) for token in self._added if token.special}
        self._configured: dict[tuple[Truncation | None, Padding | None, bool], Tokenizer] = {}

    def lower_case_first(self) -> None:
        """Lower-case every text before the steps that are stored; unlike `do_lower_case`, accents are not dropped."""
        stored = [] if self._normalizer is None else [self._normalizer]
        self._normalizer = Steps([Lowercase(), *stored])
        self._assemble(self._added)

    def _new_backend(self, split: bool = False) -> Tokenizer:
        """A backend for texts, or for texts that are `split` into words."""
        backend = Tokenizer(self._model)
        backend.normalizer = self._normalizer
        backend.pre_tokenizer = self._pre_tokenizer
        backend.decoder = decoders.WordPiece(prefix=self.wordpieces_prefix)
        backend.add_tokens(self._added)
        cls, sep, second = self.cls_token, self.sep_token, self.second_segment
        backend.post_processor = processors.TemplateProcessing(
            single=[f"{cls}:0", "$A:0", f"{sep}:0"],
            pair=[f"{cls}:0", "$A:0", *[f"{sep}:0"] * self.separators, f"$B:{second}", f"{sep}:{second}"],
            special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
        )
        return backend

    def _backend_for(self, truncation: Truncation | None, padding: Padding | None, split: bool = False) -> Tokenizer:
        """The backend with these settings, which are never changed afterwards."""
        backend = self._configured.get((truncation, padding, split))
        if backend is None:
            backend = self._new_backend(split)
            if truncation is not None:
                backend.enable_truncation(**truncation._asdict())
            if padding is not None:
                backend.enable_padding(**padding._asdict())
            if len(self._configured) >= _MAX_BACKENDS:
                self._configured.clear()
            self._configured[truncation, padding, split] = backend
        return backend

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_configured": {}}  # a pickle of each would hold the whole vocabulary

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Id of a token, or of each of a list; the unknown token's if the vocabulary lacks it."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        index = self._backend.token_to_id(tokens)
        return self.unk_token_id if index is None else index

    def convert_ids_to_tokens(self, ids: int | Iterable[int], skip_special_tokens: bool = False) -> Any:
        """Token of an id, or of each of a list. Raises `TokenizerError` for an id that no token has."""
        if isinstance(ids, int):
            token = self._backend.id_to_token(ids) if 0 <= ids < 2**32 else None
            if token is None:
                raise TokenizerError(f"id {ids} is not in the vocabulary of {len(self)} tokens")
            return token
        skipped = self._special_ids if skip_special_tokens else ()
        return [self.convert_ids_to_tokens(int(index)) for index in ids if index not in skipped]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Tokens joined by spaces, those inside a word without."""
        return " ".join(tokens).replace(f" {self.wordpieces_prefix}", "").strip()

    def join_tokens(self, tokens: Sequence[str]) -> str:
        """Tokens as the text of an entity, without the spaces before punctuation."""
        return str(decoders.WordPiece(prefix=self.wordpieces_prefix).decode(list(tokens)))

    @property
    def splits_as_bert(self) -> bool:
        """Whether texts become words by BERT's own steps, with any of their options, and words become WordPieces."""
        return (
            self.knows_words
            and isinstance(self._normalizer, BertNormalizer)
            and isinstance(self._pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        )

    @property
    def added_tokens(self) -> list[AddedToken]:
        """The added tokens, special ones included, in the order in which they were added."""
        return list(self._added)

    @property
    def most_characters(self) -> int:
        """Characters of the longest word that has pieces: longer ones are unknown as a whole."""
        return int(self._model.max_input_chars_per_word)

    @property
    def longest_word(self) -> int | None:
        """Characters of the longest word that has pieces: longer ones are unknown as a whole. None: no such limit.

        That is so where texts are split as by BERT, and no added token could be found inside of a word.
        """
        if not self.splits_as_bert:
            return None
        longest = self.most_characters
        apart = all(len(one.content) <= longest and any(map(is_split, one.content)) for one in self._added)
        return longest if apart else None

    @property
    def splitting(self) -> dict[str, Any]:
        """What decides how a text is split into pieces, besides the vocabulary."""
        names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "clean_text", "wordpieces_prefix")
        return {name: getattr(self, name) for name in names}

    # Tokens

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, without added ones; `len(tokenizer)` counts those too."""
        return int(self._backend.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def get_vocab(self) -> dict[str, int]:
        """Token → id, added tokens included."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the five named special tokens, then of all other special ones."""
        named = map(self.convert_tokens_to_ids, self.special_tokens_map.values())
        return list(dict.fromkeys([*named, *sorted(self._special_ids)]))

    @property
    def all_special_tokens(self) -> list[str]:
        """The tokens of `all_special_ids`."""
        return list(self.convert_ids_to_tokens(self.all_special_ids))

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Add tokens that no text is split at; the model's embeddings must be resized to `len(tokenizer)`.

        Returns:
            How many were not in the vocabulary. Not to be called while other threads encode.
        """
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else as_tokens(new_tokens)
        before = len(self)
        self._assemble([*self._added, *(as_token(token, special_tokens) for token in tokens)])
        return len(self) - before

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Rename named special tokens (`cls_token` …) and add `additional_special_tokens`; see `add_tokens`."""
        given = dict(special_tokens_dict)
        others = [as_token(token, True) for token in as_tokens(given.pop("additional_special_tokens", ()))]
        named = {one_of("special token", name, *TOKEN_NAMES): as_token(token, True) for name, token in given.items()}
        renamed = self.special_tokens_map | {name: token.content for name, token in named.items()}
        if self._model.token_to_id(renamed["unk_token"]) is None:
            raise TokenizerError(f"unk_token={renamed['unk_token']!r} is not in the vocabulary")
        self._model.unk_token = renamed["unk_token"]
        self.special_tokens_map = renamed
        return self.add_tokens([*named.values(), *others], special_tokens=True)

    def save_vocabulary(self, save_directory: FilePath, filename_prefix: str | None = None) -> tuple[str]:
        """Write `[prefix-]vocab.txt`, one token per line by id, without added tokens; return its path."""
        from pocketbert.checkpoints import write_text

        path = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}vocab.txt"
        vocab = self._backend.get_vocab(with_added_tokens=False)
        tokens = sorted(vocab, key=lambda token: vocab[token])
        if vocab[tokens[-1]] != len(tokens) - 1:
            logger.warning("%s: the ids have gaps, so tokens read back from this file get other ids", path)
        write_text(path, "".join(f"{token}\n" for token in tokens))
        return (str(path),)
