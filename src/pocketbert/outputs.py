"""Outputs of models: named fields in the published order, which can be read as a tuple."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class ModelOutput:
    """Fields by name (`out.logits`, `out["logits"]`) or by index among those that are not None (`out[0]`)."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order: what `return_dict=False` returns."""
        return tuple(value for f in fields(self) if (value := getattr(self, f.name)) is not None)

    def keys(self) -> list[str]:
        """Names of the fields that are not None."""
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]

    def items(self) -> list[tuple[str, Any]]:
        """Names and values of the fields that are not None."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class BaseModelOutputWithPooling(ModelOutput):
    """Output of an encoder.

    Attributes:
        last_hidden_state: [B, S, H].
        pooler_output: [B, H], or None without a pooling layer.
        hidden_states: the input of every layer and the output of the last, each [B, S, H]; None unless requested.
        attentions: of every layer the probabilities [B, heads, S, S], rows summing to 1; None unless requested.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class LogitsOutput(ModelOutput):
    """Output of a head with one kind of logits: classes [B, L], tags [B, S, L], words [B, S, V], choices [B, C]."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class QuestionAnsweringModelOutput(ModelOutput):
    """Output of a span head: `start_logits` and `end_logits`, each [B, S]."""

    loss: Tensor | None
    start_logits: Tensor
    end_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PreTrainingOutput(ModelOutput):
    """Output of the pretraining heads: `prediction_logits` [B, S, V] and `seq_relationship_logits` [B, 2]."""

    loss: Tensor | None
    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
