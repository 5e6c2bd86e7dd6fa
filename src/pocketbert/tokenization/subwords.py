"""Tokenizers of any model of `tokenizers`: BPE on bytes (RoBERTa), Unigram (XLM-RoBERTa, CamemBERT), others.

All of them are what their file says. What surrounds a text is read off an encoding of two texts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

from pocketbert.errors import TokenizerError
from pocketbert.tokenization.encoding import as_list
from pocketbert.tokenization.files import (
    SUBWORD_FILES,
    TOKEN_NAMES,
    FilePath,
    Token,
    as_token,
    as_tokens,
    check,
    read_text,
    stored_options,
)
from pocketbert.tokenization.tokenizers import BertTokenizer

_OPTIONS = (
    *TOKEN_NAMES, "model_max_length", "padding_side", "truncation_side", "add_prefix_space",
    "clean_up_tokenization_spaces",
)  # fmt: skip
#: Where neither an option nor the file names a special token: the first of these that the vocabulary has.
_USUAL = {"unk_token": ("<unk>", "[UNK]"), "pad_token": ("<pad>", "[PAD]"), "mask_token": ("<mask>", "[MASK]")}


class PreTrainedTokenizerFast(BertTokenizer):
    """The tokenizer of any `tokenizer.json`, or of `vocab.json` with `merges.txt` as RoBERTa has them.

    Args:
        tokenizer_file: `tokenizer.json` of the `tokenizers` library.
        vocab_file: `vocab.json`, token → id; with `merges_file`, where there is no `tokenizer_file`.
        merges_file: `merges.txt`, one pair of pieces per line.
        unk_token: stands for what the vocabulary cannot express. Default: as the vocabulary has it; so with the next
            ones (`cls_token`, `sep_token`: as the file puts them around a text).
        sep_token: ends each text.
        pad_token: fills rows.
        cls_token: begins the input.
        mask_token: is to be predicted.
        additional_special_tokens: more tokens that no text is split at; new ones are added after the vocabulary.
        added_tokens_decoder: id → token, tokens added to the vocabulary earlier.
        add_prefix_space: put a space before texts, so that their first word is like any other. Default: as stored.
            Lists of words always get them.
        clean_up_tokenization_spaces: default of `decode`.
        model_max_length: longest input of the model, in tokens.
        padding_side: "right" or "left".
        truncation_side: "right" or "left".

    Raises:
        TokenizerError: no vocabulary, a damaged one, one without a special token, or one that puts other tokens around
            texts than a first one, separators and a last one.
    """

    model_input_names: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    knows_words = False
    wordpieces_prefix = ""
    do_lower_case = False

    def __init__(
        self,
        tokenizer_file: FilePath | None = None,
        *,
        vocab_file: FilePath | None = None,
        merges_file: FilePath | None = None,
        unk_token: Token | None = None,
        sep_token: Token | None = None,
        pad_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        additional_special_tokens: Iterable[Token] = (),
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        add_prefix_space: bool | None = None,
        clean_up_tokenization_spaces: bool = False,
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
    ) -> None:
        check("add_prefix_space", add_prefix_space, bool | None, "true, false or None")
        self._set_limits(model_max_length, padding_side, truncation_side)
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        stored = _read(tokenizer_file, vocab_file, merges_file)
        self._model = stored.model
        self._normalizer, self._decoder = stored.normalizer, stored.decoder
        self._pre_tokenizer = _with_spaces(stored.pre_tokenizer, add_prefix_space)
        self._word_pre_tokenizer = _with_spaces(stored.pre_tokenizer, True)

        decoder = added_tokens_decoder or {}
        added = {token.content: token for _, token in sorted(stored.get_added_tokens_decoder().items())}
        added |= {token.content: token for _, token in sorted(decoder.items())}
        given = dict(zip(TOKEN_NAMES, (unk_token, sep_token, pad_token, cls_token, mask_token), strict=True))
        named = {name: as_token(value, True, added) for name, value in given.items() if value is not None}
        for name, usual in _USUAL.items():
            found = [token for token in usual if stored.token_to_id(token) is not None]
            if name not in named and found:
                named[name] = as_token(found[0], True, added)
        self._post_processor, around = stored.post_processor, None
        if stored.post_processor is None:  # as in a `vocab.json` with `merges.txt`
            named.setdefault("cls_token", as_token("<s>", True, added))
            named.setdefault("sep_token", as_token("</s>", True, added))
        else:
            around = _around_texts(stored)
            for name, token in (("cls_token", around[0]), ("sep_token", around[1])):
                named.setdefault(name, as_token(token, True, added))
        for name in TOKEN_NAMES:
            known = named.get(name)
            if known is None or (stored.token_to_id(known.content) is None and known.content not in added):
                wanted = f"no {name}" if known is None else f"no {known.content!r}"
                raise TokenizerError(
                    f"the vocabulary has {wanted}: it is damaged, or it calls this token by another name, to be given "
                    f"as {name}=…"
                )
        self.special_tokens_map = {name: named[name].content for name in TOKEN_NAMES}
        if around is None:
            ids = {token: stored.token_to_id(token) for token in (self.sep_token, self.cls_token)}
            sep, cls = ((token, index) for token, index in ids.items() if index is not None)
            self._post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=bool(add_prefix_space))
            self.separators, self.second_segment = 2, 0
        else:
            if around[:2] != (self.cls_token, self.sep_token):
                raise TokenizerError(
                    f"the file puts {around[0]} and {around[1]} around a text, and not {self.cls_token} and "
                    f"{self.sep_token}, as the options say"
                )
            self.separators, self.second_segment = around[2:]
        others = [as_token(token, True, added) for token in as_tokens(additional_special_tokens)]
        special = {token.content: token for token in (*named.values(), *others)}
        self._assemble([*added.values(), *special.values()])
        self._check_ids(decoder)

    def _new_backend(self, split: bool = False) -> Tokenizer:
        backend = Tokenizer(self._model)
        backend.normalizer, backend.decoder = self._normalizer, self._decoder
        backend.pre_tokenizer = self._word_pre_tokenizer if split else self._pre_tokenizer
        backend.post_processor = self._post_processor
        backend.add_tokens(self._added)
        return backend

    # Ids → text

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of these tokens, as the file says."""
        return "".join(tokens) if self._decoder is None else str(self._decoder.decode(list(tokens)))

    def join_tokens(self, tokens: Sequence[str]) -> str:
        """Tokens as the text of an entity."""
        return self.convert_tokens_to_string(tokens)

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """Text of one row of ids (list, array or tensor); `clean_up_…` takes out the spaces before punctuation."""
        ids = as_list(token_ids)
        ids = [ids] if isinstance(ids, int) else [int(index) for index in ids]
        self.convert_ids_to_tokens(ids)  # refuses what is not in the vocabulary
        text = str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        if clean:
            for before, after in _CLEANED:
                text = text.replace(before, after)
        return text

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """Text of each row of ids; see `decode`."""
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in sequences]

    @property
    def splitting(self) -> dict[str, Any]:
        """What decides how a text is split into pieces, besides the vocabulary: two steps, as files store them."""
        return {"normalizer": _steps(self._normalizer), "pre_tokenizer": _steps(self._pre_tokenizer)}

    # Files

    @classmethod
    def _stored_options(cls, folder: Path) -> dict[str, Any]:
        options = stored_options(folder, SUBWORD_FILES, _OPTIONS)
        if "tokenizer_file" in options:
            options.pop("vocab_file", None)
            options.pop("merges_file", None)
        return options

    def save_vocabulary(self, save_directory: FilePath, filename_prefix: str | None = None) -> tuple[str]:
        """Write `[prefix-]tokenizer.json`, which has all of it; return its path."""
        from pocketbert.checkpoints import write_text

        path = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}tokenizer.json"
        write_text(path, self._backend.to_str(pretty=True))
        return (str(path),)

    def save_pretrained(self, save_directory: FilePath) -> tuple[str, ...]:
        """Write `tokenizer.json` and `tokenizer_config.json`; returns their paths."""
        from pocketbert.checkpoints import write_text

        path = Path(save_directory) / "tokenizer_config.json"
        config = {
            "tokenizer_class": type(self).__name__,
            "model_input_names": self.model_input_names,
            **self.special_tokens_map,
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
        }
        if (prefix := _prefix_space(self._pre_tokenizer)) is not None:
            config["add_prefix_space"] = prefix
        write_text(path, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        return (*self.save_vocabulary(save_directory), str(path))


class RobertaTokenizer(PreTrainedTokenizerFast):
    """RoBERTa's: BPE on bytes."""


class XLMRobertaTokenizer(PreTrainedTokenizerFast):
    """XLM-RoBERTa's: Unigram; multilingual MiniLM and e5 have it too."""


class CamembertTokenizer(PreTrainedTokenizerFast):
    """CamemBERT's: Unigram."""


# The published names of a former second implementation.
RobertaTokenizerFast = RobertaTokenizer
XLMRobertaTokenizerFast = XLMRobertaTokenizer
CamembertTokenizerFast = CamembertTokenizer

_CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def _read(tokenizer_file: FilePath | None, vocab_file: FilePath | None, merges_file: FilePath | None) -> Tokenizer:
    """The backend of a file, without truncation and padding; of two files, with RoBERTa's steps."""
    if tokenizer_file is None and (vocab_file is None or merges_file is None):
        raise TokenizerError("a tokenizer needs a vocabulary: give tokenizer_file, or vocab_file and merges_file")
    source = vocab_file if tokenizer_file is None else tokenizer_file
    try:
        if tokenizer_file is not None:
            backend = Tokenizer.from_str(read_text(Path(tokenizer_file)))
            backend.no_truncation()
            backend.no_padding()
        else:
            assert vocab_file is not None
            assert merges_file is not None
            lines = read_text(Path(merges_file)).split("\n")
            pairs = (line.split(" ") for line in lines if line.strip() and not line.startswith("#version"))
            merges = [(left, right) for left, right in pairs]
            backend = Tokenizer(BPE(json.loads(read_text(Path(vocab_file))), merges))
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            backend.decoder = decoders.ByteLevel()
            mask = AddedToken("<mask>", lstrip=True, normalized=False, special=True)
            if backend.token_to_id(mask.content) is not None:
                backend.add_special_tokens([mask])
    except TokenizerError:
        raise
    except Exception as error:
        raise TokenizerError(f"{source}: not a vocabulary that can be read ({error})") from None
    if backend.get_vocab_size() == 0:
        raise TokenizerError(f"{source}: the vocabulary is empty")
    return backend


def _around_texts(backend: Tokenizer) -> tuple[str, str, int, int]:
    """The first and the last token around texts, how many separators part two of them, the second one's segment."""
    one, two = backend.encode("a"), backend.encode("a", "a")
    tokens = two.tokens
    first, second = ([i for i, owner in enumerate(two.sequence_ids) if owner == number] for number in (0, 1))
    if first and second:
        between = tokens[first[-1] + 1 : second[0]]
        cls, sep = tokens[: first[0]], tokens[second[-1] + 1 :]
        alone = [token for token, owner in zip(one.tokens, one.sequence_ids, strict=True) if owner is None]
        if len(cls) == 1 and len(sep) == 1 and set(between) == set(sep) and alone == [*cls, *sep]:
            return cls[0], sep[0], len(between), int(two.type_ids[second[0]])
    raise TokenizerError(
        f"the tokenizer makes {' '.join(tokens)} of two texts, which is not supported: models here read a first token, "
        "and a separator after each text"
    )


def _steps(step: Any) -> Any:
    """A normaliser or pre-tokenizer as files store it."""
    return None if step is None else json.loads(step.__getstate__())


def _byte_levels(steps: Any) -> list[dict[str, Any]]:
    """The steps that map bytes, which may put a space before a text."""
    if not isinstance(steps, dict):
        return []
    inner = [one for each in steps.get("pretokenizers", ()) for one in _byte_levels(each)]
    return [steps, *inner] if steps.get("type") == "ByteLevel" else inner


def _prefix_space(pre_tokenizer: Any) -> bool | None:
    """Whether a space is put before texts, where the tokenizer can."""
    return next((bool(step["add_prefix_space"]) for step in _byte_levels(_steps(pre_tokenizer))), None)


def _with_spaces(pre_tokenizer: Any, add: bool | None) -> Any:
    """The step with or without a space before texts; as it is if that is not said, or not its business."""
    steps = _steps(pre_tokenizer)
    levels = _byte_levels(steps)
    if add is None or all(level["add_prefix_space"] == add for level in levels):
        return pre_tokenizer
    for level in levels:
        level["add_prefix_space"] = add
    changed = copy.deepcopy(pre_tokenizer)
    changed.__setstate__(json.dumps(steps).encode())
    return changed
