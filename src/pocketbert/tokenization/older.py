"""Methods of tokenizers that older code calls: under names that were left out of transformers 5, or seldom used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pocketbert.errors import TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pocketbert.tokenization.encoding import BatchEncoding

#: Methods that are not there, and what to call instead.
_INSTEAD = {
    "prepare_for_model": "tokenizer(text, …), which takes texts, or tokenizer.build_inputs_with_special_tokens(ids)",
    "truncate_sequences": "tokenizer(text, truncation=True, max_length=…)",
    "prepare_seq2seq_batch": "tokenizer(texts, …)",
    "as_target_tokenizer": "tokenizer(texts, …)",
    "apply_chat_template": "tokenizer(text): encoders have no chats",
    "train_new_from_iterator": "`pocketbert prepare`, which makes a vocabulary",
    "max_len": "tokenizer.model_max_length",
    "clean_up_tokenization": "tokenizer.decode(ids), which takes out the spaces before punctuation",
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
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """A call with several texts, or several pairs of texts."""
        if isinstance(batch_text_or_text_pairs, str) or not isinstance(batch_text_or_text_pairs, Sequence):
            raise TokenizerError("batch_encode_plus takes a list of texts; for one text call the tokenizer itself")
        return self(list(batch_text_or_text_pairs), **options)

    def get_added_vocab(self) -> dict[str, int]:
        """Token → id of the special tokens, and of tokens that were added to the vocabulary."""
        return {token.content: index for index, token in self._backend.get_added_tokens_decoder().items()}

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
        _backend: Tokenizer
        __call__: Callable[..., BatchEncoding]
        get_vocab: Callable[[], dict[str, int]]
        num_special_tokens_to_add: Callable[..., int]

    else:  # a type checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            advice = f"; use {_INSTEAD[name]}" if name in _INSTEAD else ""
            raise AttributeError(f"a {type(self).__name__} has no {name!r}{advice}")


#: Arguments of calls that are not there, and what to pass instead.
_ARGUMENTS = {
    "truncation_strategy": "truncation with its value",
    "is_pretokenized": "is_split_into_words",
    "text_target": "the text alone: encoders have no targets",
    "text_pair_target": "the text alone: encoders have no targets",
    "return_offsets": "return_offsets_mapping",
    "return_tensor": "return_tensors",
}


def refuse_arguments(names: Iterable[str]) -> None:
    """Raise `TokenizerError` for arguments that a call does not have."""
    name = sorted(names)[0]
    advice = f"; pass {_ARGUMENTS[name]}" if name in _ARGUMENTS else ""
    raise TokenizerError(f"a call of a tokenizer has no argument {name}{advice}")
