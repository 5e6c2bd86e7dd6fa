"""Methods of tokenizers that older code calls: under names that were left out of transformers 5, or seldom used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pocketbert.errors import TokenizerError

if TYPE_CHECKING:
    from pocketbert.tokenization.encoding import BatchEncoding

#: Methods that are not there, and what to call instead.
_INSTEAD = {
    "prepare_for_model": "tokenizer(text, …), which takes texts, or tokenizer.build_inputs_with_special_tokens(ids)",
    "truncate_sequences": "tokenizer(text, truncation=True, max_length=…)",
    "prepare_seq2seq_batch": "tokenizer(texts, …)",
    "as_target_tokenizer": "tokenizer(texts, …)",
    "apply_chat_template": "tokenizer(text): encoders have no chats",
    "train_new_from_iterator": "`pocketbert prepare`, which makes a vocabulary",
    "push_to_hub": "tokenizer.save_pretrained(folder), then `hf upload`",
}


class OlderMethods:
    """Older methods and properties, each in the terms of those that the tokenizer has."""

    is_fast = True
    model_max_length: int

    def encode_plus(
        self, text: str | Sequence[Any], text_pair: str | Sequence[Any] | None = None, **options: Any
    ) -> BatchEncoding:
        """A call with one text, or one pair of texts."""
        return self(text, text_pair, **_with_padding(options))

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """A call with several texts, or several pairs of texts."""
        if isinstance(batch_text_or_text_pairs, str) or not isinstance(batch_text_or_text_pairs, Sequence):
            raise TokenizerError("batch_encode_plus takes a list of texts; for one text call the tokenizer itself")
        return self(list(batch_text_or_text_pairs), **_with_padding(options))

    @property
    def vocab(self) -> dict[str, int]:
        """Token → id."""
        return self.get_vocab()

    @property
    def max_len_single_sentence(self) -> int:
        """Number of tokens of one text beside the special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """Number of tokens of a pair of texts beside the special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    if TYPE_CHECKING:
        __call__: Callable[..., BatchEncoding]
        get_vocab: Callable[[], dict[str, int]]
        num_special_tokens_to_add: Callable[..., int]

    else:  # a type checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            advice = f"; use {_INSTEAD[name]}" if name in _INSTEAD else ""
            raise AttributeError(f"a {type(self).__name__} has no {name!r}{advice}")


def _with_padding(options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call in place of `pad_to_max_length`, the oldest name for padding."""
    older = options.pop("pad_to_max_length", None)
    if older and "padding" not in options:
        options["padding"] = True if options.get("max_length") is None else "max_length"
    if "truncation_strategy" in options:
        raise TokenizerError("truncation_strategy is an older argument; pass truncation with its value")
    return options
