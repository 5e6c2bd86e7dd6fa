"""WordPiece tokenizers of all families, on the `tokenizers` library.

The families share one algorithm and one set of special tokens, so there is one class under the published names.
Arguments, results and files follow transformers: each side reads the folders that the other writes, to equal ids. A
call changes nothing in its tokenizer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from tokenizers import AddedToken, Encoding, decoders, pre_tokenizers
from tokenizers.normalizers import BertNormalizer

from pocketbert.arguments import TOKENIZER_FROM_PRETRAINED, WORDPIECE_FROM_PRETRAINED, read_loading
from pocketbert.errors import TokenizerError
from pocketbert.tokenization.encoding import BatchEncoding, as_batch, as_list, as_tensors, broken_text
from pocketbert.tokenization.files import (
    NO_LIMIT,
    STORED_OPTIONS,
    TOKENIZER_FILES,
    FilePath,
    check,
    one_of,
    stored_options,
)
from pocketbert.tokenization.older import OlderMethods, refuse_arguments
from pocketbert.tokenization.vocabulary import Padding, Truncation, Vocabulary

logger = logging.getLogger(__name__)


_LONG = 1 << 14  # characters, of which other threads may wait for the tokens


def _size(item: Any) -> int:
    return len(item) if isinstance(item, str) else sum(map(_size, item))


class BertTokenizer(OlderMethods, Vocabulary):
    """WordPiece tokenizer of BERT.

    Args:
        vocab_file: `vocab.txt`, one token per line, the id being the line's number from 0.
        tokenizer_file: `tokenizer.json` of the `tokenizers` library; used instead of `vocab_file` where both are given.
        vocab: token → id, for a vocabulary in memory.
        do_lower_case: lower-case the text. Default: as stored in `tokenizer_file`, True otherwise; so with the next
            four (`strip_accents`: as `do_lower_case`, `wordpieces_prefix`: "##").
        tokenize_chinese_chars: put spaces around CJK ideographs.
        strip_accents: drop combining marks.
        clean_text: drop control characters, turn all whitespace into spaces.
        wordpieces_prefix: prefix of a token inside a word.
        do_basic_tokenize: False only splits at whitespace before WordPiece, without normalising.
        never_split: words of the vocabulary to keep as they are, if they are separate words.
        unk_token: replaces words that the vocabulary cannot express. Default: as stored, "[UNK]" otherwise.
        sep_token: ends each text.
        pad_token: fills rows.
        cls_token: begins the input.
        mask_token: is to be predicted.
        additional_special_tokens: more tokens that no text is split at; new ones are added after the vocabulary.
        added_tokens_decoder: id → token, tokens added to the vocabulary earlier.
        model_max_length: longest input of the model, in tokens: what `truncation` and `padding="max_length"` mean
            where a call gives no `max_length`.
        padding_side: "right" or "left".
        truncation_side: "right" or "left".

    Raises:
        TokenizerError: no vocabulary, a damaged one, one without a special token, or an option that cannot be.

    Source: transformers' BertTokenizer(Fast); google-research/bert tokenization.py.
    """

    model_input_names: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask")

    # Text → ids

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool = True,
        return_attention_mask: bool = True,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        pad_to_max_length: bool | None = None,
        **unknown: Any,
    ) -> BatchEncoding:
        """Encode one text or a batch, each with a second text or without.

        Args:
            text: a text, a list of texts, or a list of (text, text) pairs; with `is_split_into_words` each text is a
                list of words.
            text_pair: the second text, or as many as `text` has.
            add_special_tokens: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP].
            padding: True or "longest" (row of the batch), "max_length", or False.
            truncation: True or "longest_first", "only_first", "only_second", or False. Default: "longest_first" where
                `max_length` is given without padding, else False.
            max_length: in tokens, special ones included; default `model_max_length`.
            stride: tokens that an overflowing row shares with the row before it.
            is_split_into_words: the texts are lists of words.
            pad_to_multiple_of: round the padded length up to a multiple of this.
            return_tensors: None for lists, "np" for arrays, "pt" or "tf" for tensors: int64 [batch, tokens], also of
                one text.
            return_token_type_ids: include `token_type_ids`: 0 for the first text, 1 for the second.
            return_attention_mask: include `attention_mask`: 1 for tokens, 0 for padding.
            return_overflowing_tokens: also return the tokens that were cut off, as further rows;
                `overflow_to_sample_mapping` is the input of each row.
            return_special_tokens_mask: include `special_tokens_mask`: 1 for special tokens and padding.
            return_offsets_mapping: include `offset_mapping`: (start, end) of each token in its text (with
                `is_split_into_words` in its word), (0, 0) for special tokens.
            return_length: include `length`: tokens of each row, padding included.
            verbose: warn once of a text longer than `model_max_length` that is not truncated.
            pad_to_max_length: an older name of `padding="max_length"`.
            **unknown: other arguments, which are refused with what to write instead.

        Returns:
            `input_ids` and the requested values: one list per input, or for a single text its own lists.

        Raises:
            TokenizerError: something that is not a text (its position is named), rows of different lengths where
                tensors were requested, or lengths that cannot be met.
        """
        check("max_length", max_length, int | None, "a whole number")
        if unknown:
            refuse_arguments(unknown)
        if pad_to_max_length and padding is False:
            padding = "longest" if max_length is None else "max_length"
        inputs, batched = as_batch(text, text_pair, is_split_into_words)
        pairs = any(isinstance(item, tuple) for item in inputs)
        special = self.num_special_tokens_to_add(pairs) if add_special_tokens else 0
        cut = self._truncation(truncation, max_length, stride, special, padding)
        fill = self._padding(padding, max_length, pad_to_multiple_of)
        if cut and fill and pad_to_multiple_of and cut.max_length % pad_to_multiple_of:
            raise TokenizerError(f"max_length={cut.max_length} is not a multiple of {pad_to_multiple_of=}")
        if cut and stride:
            self._check_stride(inputs, cut, special, is_split_into_words)
        try:
            backend = self._backend_for(cut, fill, is_split_into_words)
            # A batch would start a pool of threads, which takes longer than a text; but other threads go on meanwhile.
            if len(inputs) == 1 and _size(inputs[0]) < _LONG:
                first, second = inputs[0] if isinstance(inputs[0], tuple) else (inputs[0], None)
                encoded = [backend.encode(first, second, is_split_into_words, add_special_tokens)]
            else:
                encoded = backend.encode_batch(
                    inputs, is_pretokenized=is_split_into_words, add_special_tokens=add_special_tokens
                )
        except Exception as error:
            raise TokenizerError(broken_text(inputs) or f"the text cannot be encoded: {error}") from error

        rows = [(i, row) for i, first in enumerate(encoded)
                for row in ([first, *first.overflowing] if return_overflowing_tokens else [first])]  # fmt: skip
        encodings = [row for _, row in rows]
        fields = {
            "input_ids": ("ids", True),
            "token_type_ids": ("type_ids", return_token_type_ids),
            "attention_mask": ("attention_mask", return_attention_mask),
            "special_tokens_mask": ("special_tokens_mask", return_special_tokens_mask),
            "offset_mapping": ("offsets", return_offsets_mapping),
        }
        data: dict[str, Any] = {
            key: [getattr(row, name) for row in encodings] for key, (name, wanted) in fields.items() if wanted
        }
        if verbose and max_length is None:
            self._warn_if_too_long(encodings)
        if not batched and return_tensors is None and not return_overflowing_tokens:
            data = {key: value[0] for key, value in data.items()}
        if return_length:
            data["length"] = [len(row) for row in encodings]
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = [i for i, _ in rows]
        return BatchEncoding(as_tensors(data, return_tensors), encodings)

    def _truncation(
        self, truncation: bool | str | None, max_length: int | None, stride: int, special: int, padding: bool | str
    ) -> Truncation | None:
        if truncation is None:
            truncation = max_length is not None and padding is False
        if truncation is False or truncation == "do_not_truncate":
            return None
        strategy = "longest_first" if truncation is True else truncation
        one_of("truncation", strategy, "longest_first", "only_first", "only_second")
        length = self.model_max_length if max_length is None else max_length
        if length >= NO_LIMIT:
            return None
        if length < special:
            raise TokenizerError(f"max_length={length} leaves no room for the {special} special tokens")
        bound = max(1, length - max(special, 1))
        if not 0 <= stride < bound:
            raise TokenizerError(f"stride={stride} must be at least 0 and below {bound} for max_length={length}")
        return Truncation(length, stride, strategy, self.truncation_side)

    def _padding(self, padding: bool | str, max_length: int | None, pad_to_multiple_of: int | None) -> Padding | None:
        if padding is False or padding == "do_not_pad":
            return None
        strategy = "longest" if padding is True else one_of("padding", padding, "longest", "max_length")
        length = None
        if strategy == "max_length":
            length = self.model_max_length if max_length is None else max_length
            if length >= NO_LIMIT:
                return None
        return Padding(length, self.padding_side, self.pad_token_id, self.pad_token, pad_to_multiple_of or None)

    def _check_stride(self, inputs: list[Any], cut: Truncation, special: int, split: bool) -> None:
        """Refuse pairs of which a text would be cut to `stride` tokens or fewer, where `tokenizers` aborts."""
        pairs = [(position, item) for position, item in enumerate(inputs) if isinstance(item, tuple)]
        texts = [text for _, pair in pairs for text in pair]
        pieces = self._backend.encode_batch_fast(texts, is_pretokenized=split, add_special_tokens=False)
        room = cut.max_length - special
        for (position, _), first, second in zip(pairs, map(len, pieces[::2]), map(len, pieces[1::2]), strict=True):
            if cut.strategy == "only_first":
                left = room - second
            elif cut.strategy == "only_second":
                left = room - first
            else:  # the longer one is cut first, then both to a half each
                left = max(room - min(first, second), room // 2)
            if first + second > room and left <= cut.stride:
                raise TokenizerError(
                    f"text {position}: max_length={cut.max_length} would leave {left} tokens of the text to be cut, "
                    f"which must be more than stride={cut.stride}"
                )

    def _warn_if_too_long(self, encodings: Iterable[Encoding]) -> None:
        longest = max(map(len, encodings), default=0)
        if longest > self.model_max_length and not self._warned:
            self._warned = True
            logger.warning(
                "a text has %d tokens, more than the %d of the model: pass truncation=True to cut it",
                longest,
                self.model_max_length,
            )

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """Token strings of a text, or of both texts of a pair."""
        return self(text, pair, add_special_tokens=add_special_tokens, verbose=False).tokens()

    def encode(self, text: str | Sequence[Any], text_pair: str | Sequence[Any] | None = None, **options: Any) -> Any:
        """The `input_ids` of a call with these arguments."""
        return self(text, text_pair, **options)["input_ids"]

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        *,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad what was encoded without padding: one encoding, a batch, or a list of encodings as a data loader has it.

        Names other than the ids and masks of a call (such as labels) are returned unchanged. The arguments are those of
        a call.
        """
        if isinstance(encoded_inputs, Mapping):
            data = {name: as_list(value) for name, value in encoded_inputs.items()}
        else:
            names = encoded_inputs[0] if encoded_inputs else {"input_ids": []}
            data = {name: [as_list(row[name]) for row in encoded_inputs] for name in names}
        if "input_ids" not in data:
            raise TokenizerError(f"padding needs input_ids; given are {', '.join(data) or 'no values'}")
        single = bool(data["input_ids"]) and not isinstance(data["input_ids"][0], (list, tuple))
        fillers = {"input_ids": self.pad_token_id, "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}
        columns = {name: [data[name]] if single else data[name] for name in fillers if name in data}
        lengths = [len(row) for row in columns["input_ids"]]
        if return_attention_mask and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * length for length in lengths]
        fill = self._padding(padding, max_length, pad_to_multiple_of)
        if fill:
            width = max(lengths, default=0) if fill.length is None else fill.length
            multiple = pad_to_multiple_of or 1
            width = -(-width // multiple) * multiple
            for name, rows in columns.items():
                gaps = ([fillers[name]] * (width - len(row)) for row in rows)
                right = self.padding_side == "right"
                columns[name] = [[*row, *gap] if right else [*gap, *row] for row, gap in zip(rows, gaps, strict=True)]
        padded = {name: rows[0] if single and return_tensors is None else rows for name, rows in columns.items()}
        return BatchEncoding(as_tensors({**data, **padded}, return_tensors))

    # Ids → text

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = True
    ) -> str:
        """Text of one row of ids (list, array or tensor); `clean_up_…` takes out the spaces before punctuation."""
        ids = as_list(token_ids)
        tokens = self.convert_ids_to_tokens([ids] if isinstance(ids, int) else ids, skip_special_tokens)
        decoder = decoders.WordPiece(prefix=self.wordpieces_prefix, cleanup=clean_up_tokenization_spaces)
        return str(decoder.decode(tokens))

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = True
    ) -> list[str]:
        """Text of each row of ids; see `decode`."""
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in sequences]

    # Rows of ids

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """[CLS] a [SEP], or [CLS] a [SEP] b [SEP]: also of an empty b."""
        first, between = [self.cls_token_id, *token_ids_0], [self.sep_token_id] * self.separators
        if token_ids_1 is None:
            return [*first, self.sep_token_id]
        return [*first, *between, *token_ids_1, self.sep_token_id]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for [CLS] a [SEP], 1 for b [SEP]."""
        if token_ids_1 is None:
            return [0] * (len(token_ids_0) + 2)
        return [0] * (len(token_ids_0) + 1 + self.separators) + [self.second_segment] * (len(token_ids_1) + 1)

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for special tokens, 0 for others: of the row built from a and b, or of `token_ids_0` as it stands."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise TokenizerError("a row that already has its special tokens is one list of ids, not two")
            return [int(index in self._special_ids) for index in token_ids_0]
        if token_ids_1 is None:
            return [1, *[0] * len(token_ids_0), 1]
        return [1, *[0] * len(token_ids_0), *[1] * self.separators, *[0] * len(token_ids_1), 1]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Number of special tokens per input: 2, for a pair 3, or 4 with two separators."""
        return 2 + self.separators if pair else 2

    # Files

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: FilePath | None = None,
        *,
        revision: str | None = None,
        cache_dir: FilePath | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> Self:
        """Read the tokenizer of a folder or hub name; `options` (of the class) override the stored ones."""
        from pocketbert.checkpoints import resolve
        from pocketbert.checkpoints.hub import hub_token

        name_or_path, token, options = read_loading(
            name_or_path, options, WORDPIECE_FROM_PRETRAINED if cls.knows_words else TOKENIZER_FROM_PRETRAINED
        )
        with hub_token(token):
            folder = resolve(
                name_or_path,
                files=TOKENIZER_FILES,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        try:
            return cls(**cls._stored_options(folder) | options)
        except TokenizerError as error:
            if str(folder) in str(error):
                raise
            raise TokenizerError(f"{folder}: {error}") from None

    @classmethod
    def _stored_options(cls, folder: Path) -> dict[str, Any]:
        """Arguments of the class as the files of a folder give them."""
        return stored_options(folder)

    def save_pretrained(self, save_directory: FilePath) -> tuple[str, ...]:
        """Write `tokenizer.json`, `vocab.txt` and `tokenizer_config.json`; returns their paths."""
        from pocketbert.checkpoints import write_text

        folder = Path(save_directory)
        # transformers rebuilds a BertTokenizer from the options it knows; under the other name it takes the whole file.
        published = (
            isinstance(self._normalizer, BertNormalizer)
            and isinstance(self._pre_tokenizer, pre_tokenizers.BertPreTokenizer)
            and self.clean_text
            and self.wordpieces_prefix == "##"
        )
        config = {
            "tokenizer_class": type(self).__name__ if published else "PreTrainedTokenizerFast",
            "model_input_names": self.model_input_names,
            **{name: getattr(self, name) for name in STORED_OPTIONS},
        }
        write_text(folder / "tokenizer.json", self._backend.to_str(pretty=True))
        write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        (vocab,) = self.save_vocabulary(folder)
        return str(folder / "tokenizer.json"), str(folder / "tokenizer_config.json"), vocab

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self)} tokens, do_lower_case={self.do_lower_case}, "
            f"model_max_length={self.model_max_length})"
        )


class SqueezeBertTokenizer(BertTokenizer):
    """WordPiece tokenizer of SqueezeBERT: that of BERT."""


class MobileBertTokenizer(BertTokenizer):
    """WordPiece tokenizer of MobileBERT: that of BERT."""


class MPNetTokenizer(BertTokenizer):
    """WordPiece tokenizer of MPNet: BERT's pieces, RoBERTa's special tokens, two separators between texts.

    A mask takes the space before it in.
    """

    separators, second_segment = 2, 0

    def __init__(self, *files: Any, **options: Any) -> None:
        for name, token in (
            ("cls_token", "<s>"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ):
            options[name] = options.get(name) or token
        if isinstance(options["mask_token"], str):
            options["mask_token"] = AddedToken(options["mask_token"], lstrip=True, normalized=False, special=True)
        super().__init__(*files, **options)


# The published names of a former second implementation.
BertTokenizerFast = BertTokenizer
SqueezeBertTokenizerFast = SqueezeBertTokenizer
MobileBertTokenizerFast = MobileBertTokenizer
MPNetTokenizerFast = MPNetTokenizer
