"""Outputs of the TensorFlow models: the same fields as in PyTorch, as pytrees for graphs and Keras."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import optree

from pocketbert import outputs


class TFModelOutput(outputs.ModelOutput):
    """Fields that `tf.function` can return and that Keras's functional models can be built on."""

    def __init_subclass__(cls) -> None:
        """Make Keras's trees know the class."""

        def flatten(output: TFModelOutput) -> tuple[list[Any], list[str], list[str]]:
            return list(output.to_tuple()), output.keys(), output.keys()

        optree.register_pytree_node(cls, flatten, cls._of, namespace="keras")

    @classmethod
    def _of(cls, names: list[str], values: Any) -> Self:
        """The output with these fields; the others are None."""
        given = dict(zip(names, values, strict=True))
        return cls(**{field.name: given.get(field.name) for field in fields(cls)})

    def __tf_flatten__(self) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """The protocol of TensorFlow's nested structures."""
        return tuple(self.keys()), self.to_tuple()

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple[str, ...], components: tuple[Any, ...]) -> Self:
        """The way back."""
        return cls._of(list(metadata), components)


@dataclass
class TFBaseModelOutputWithPooling(TFModelOutput, outputs.BaseModelOutputWithPooling):
    """Output of an encoder."""


@dataclass
class TFLogitsOutput(TFModelOutput, outputs.LogitsOutput):
    """Output of a head with one kind of logits."""


@dataclass
class TFQuestionAnsweringModelOutput(TFModelOutput, outputs.QuestionAnsweringModelOutput):
    """Output of a span head."""


@dataclass
class TFPreTrainingOutput(TFModelOutput, outputs.PreTrainingOutput):
    """Output of the pretraining heads."""
