"""Arguments that code written for transformers gives to the calls of pipelines beside those of their tasks.

Some choose nothing here (`IDLE`): they are taken with the values that choose nothing, and refused with others. Some say
how texts are cut (`READING`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pocketbert.arguments import Idle, check_idle, one_of, plain, whole
from pocketbert.errors import InputError
from pocketbert.features import Features, encode_choices, encode_texts, fit

if TYPE_CHECKING:
    from pocketbert.tokenization import BertTokenizer


F = TypeVar("F", bound=Features)


_PADDING = (None, True, False, "longest", "max_length", "do_not_pad")
_CUTS = {
    True: "longest_first",
    "longest_first": "longest_first",
    "only_first": "only_first",
    "only_second": "only_second",
}

#: Of a call, or of `pipeline` as the default of calls.
IDLE: dict[str, Idle] = {
    "batch_size": Idle(whole(1), "must be a whole number of at least 1"),
    "num_workers": Idle(whole(0), "must be a whole number of at least 0"),
    "padding": Idle(one_of(*_PADDING), "must be one of True, False, 'longest', 'max_length', 'do_not_pad'"),
    "pad_to_multiple_of": Idle(whole(1), "must be a whole number of at least 1"),
    "stride": Idle(
        one_of(None, 0), "a text is read once, up to max_length tokens; windows=True reads long texts whole"
    ),
    "padding_side": Idle(one_of(None, "right"), "would shift the positions of the text; leave it out"),
    "add_special_tokens": Idle(one_of(None, True), "would omit tokens that the model needs; leave it out"),
    "return_token_type_ids": Idle(one_of(None, True), "would omit an input of the model; leave it out"),
    "return_attention_mask": Idle(one_of(None, True), "would omit an input of the model; leave it out"),
    "verbose": Idle(one_of(None, True, False), "must be True or False"),
    **dict.fromkeys(
        ("return_overflowing_tokens", "return_special_tokens_mask", "return_offsets_mapping", "return_length"),
        Idle(one_of(None, False), "returns nothing from a pipeline; call pipe.tokenizer(…) itself"),
    ),
}

#: How texts are cut.
READING = ("truncation", "max_length", "padding")


@dataclass(frozen=True)
class Reading:
    """How texts become features: with which tokenizer, up to how many tokens, and what becomes of longer ones.

    Args:
        tokenizer: of the texts.
        max_length: number of tokens.
        truncation: the text of a pair that is cut, as for `encode_texts`; None: as the pipeline has it.
        refuses: whether a longer text is an error instead of being cut.
    """

    tokenizer: BertTokenizer
    max_length: int
    truncation: str | None = None
    refuses: bool = False

    def texts(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, truncation: str = "longest_first"
    ) -> list[Features]:
        """As `encode_texts`."""
        cut = self.truncation or truncation
        return self._whole(encode_texts(self.tokenizer, texts, pairs, max_length=self.max_length, truncation=cut))

    def choices(self, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[list[Features]]:
        """As `encode_choices`."""
        groups = encode_choices(self.tokenizer, prompts, choices, max_length=self.max_length)
        for position, group in enumerate(groups):
            self._whole(group, position)
        return groups

    def _whole(self, features: list[F], position: int | None = None) -> list[F]:
        """`features`, each of an input or all of the input at `position`, if none was cut where that is refused."""
        for number, one in enumerate(features):
            if self.refuses and one.cut:
                message = f"the text has more tokens than the limit of {self.max_length}: leave truncation out"
                raise InputError(f"{message}, or pass True, to cut it", number if position is None else position)
        return features


def make_reading(
    tokenizer: BertTokenizer,
    max_length: int,
    most: int,
    given: Mapping[str, Any],
) -> Reading:
    """What the arguments `READING` of a call choose.

    Args:
        tokenizer: the pipeline's.
        max_length: the pipeline's.
        most: number of tokens that the model can read.
        given: the arguments.

    Raises:
        InputError: a value that cannot be meant.
    """
    truncation, padding, wanted = (plain(given.get(name)) for name in ("truncation", "padding", "max_length"))
    check_idle(IDLE, {"padding": padding})
    if truncation not in (None, False, "do_not_truncate", *_CUTS):
        names = "True, False, 'longest_first', 'only_first', 'only_second', 'do_not_truncate'"
        raise InputError(f"truncation={truncation!r:.60} must be one of {names}")
    if not whole(1)(wanted):
        raise InputError(f"max_length={wanted!r:.60} must be a whole number of at least 1")
    cuts = truncation in _CUTS
    # A tokenizer takes a length alone as one to cut to, and beside padding as one to pad to.
    if wanted is not None and (cuts or (truncation is None and padding in (None, False, "do_not_pad"))):
        if wanted > tokenizer.model_max_length:
            tokenizer = copy.copy(tokenizer)
            tokenizer.model_max_length = wanted
        max_length = fit(tokenizer, min(wanted, most))
    strategy = None if truncation is True else _CUTS.get(truncation)
    return Reading(tokenizer, max_length, strategy, refuses=truncation in (False, "do_not_truncate"))
