"""What the package knows about heads and about an architecture, as plain data.

A `Family` describes one architecture: everything outside its own modules reads this description, so that no other code
depends on the architecture. Modules are given by name and imported where they are used, because a description must be
readable without PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pocketbert.families.original import OriginalFormat

if TYPE_CHECKING:
    from pocketbert.families.config import PreTrainedConfig


@dataclass(frozen=True)
class HeadKind:
    """A kind of head, which is the same in every family.

    Attributes:
        name: the part of a class name after the family's.
        outputs: of a predictor, by name.
        scores: how many scores its last layer computes; None: one per label.
        words: whether it scores the words of the vocabulary.
        pooled: whether its layers read one vector per sequence, not one per token.
        task: whether it is fine-tuned for a task, so that another task's weights would be useless.
    """

    name: str
    outputs: tuple[str, ...] = ("logits",)
    scores: int | None = None
    words: bool = False
    pooled: bool = False
    task: bool = False


HEADS: Mapping[str, HeadKind] = {
    kind.name: kind
    for kind in (
        HeadKind("Model", ("last_hidden_state", "pooler_output")),
        HeadKind("ForPreTraining", ("logits", "seq_relationship_logits"), 2, words=True, pooled=True),
        HeadKind("ForMaskedLM", words=True),
        HeadKind("ForNextSentencePrediction", scores=2, pooled=True),
        HeadKind("ForSequenceClassification", pooled=True, task=True),
        HeadKind("ForMultipleChoice", scores=1, pooled=True, task=True),
        HeadKind("ForTokenClassification", task=True),
        HeadKind("ForQuestionAnswering", ("start_logits", "end_logits"), 2, task=True),
    )
}


@dataclass(frozen=True)
class Dense:
    """A linear layer of a head, or of the pooler.

    Attributes:
        name: of its parameters, without `.weight` and `.bias`.
        activation: applied to its output; a name of `families.config.ACTIVATIONS`.
        dropout: attribute of the configuration with the rate of dropout on its input; the same in all layers of a head.
    """

    name: str
    activation: str | None = None
    dropout: str | None = None


@dataclass(frozen=True)
class WordScores:
    """The layers that score the words of the vocabulary: linear, activation, norm, product with the word embeddings.

    Attributes:
        transform: name of the linear layer.
        norm: name of the norm.
        decoder: name of the product with the word embeddings, to which its matrix is tied.
        bias: name of the bias; with another name than the decoder's own, the decoder's is tied to it.
        rest: name of a further matrix, stored as [in, out], for the features that the embeddings are too narrow for.
            Without one the linear layer narrows the hidden states to the width of the embeddings.
        activation: a name of `families.config.ACTIVATIONS`; None: that of the feed-forward networks.
    """

    transform: str = "cls.predictions.transform.dense"
    norm: str = "cls.predictions.transform.LayerNorm"
    decoder: str = "cls.predictions.decoder"
    bias: str = "cls.predictions.bias"
    rest: str | None = None
    activation: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers and of the bias, to which `.weight` and `.bias` are added."""
        return (self.transform, self.norm, self.decoder, self.bias, *([] if self.rest is None else [self.rest]))

    @property
    def own_bias(self) -> bool:
        """Whether the bias is the decoder's."""
        return self.bias == f"{self.decoder}.bias"

    @property
    def tied(self) -> tuple[str, ...]:
        """The names of the tensors that repeat others in a tied model."""
        return (f"{self.decoder}.weight",) if self.own_bias else (f"{self.decoder}.weight", f"{self.decoder}.bias")


#: Regular expressions of tensors that training leaves in a checkpoint beside the model: the maps between layers of
#: TinyBERT's distillation, class weights of a loss, the projection of ColBERT's late interaction.
LEFT_BY_TRAINING = (
    r"fit_denses?\.",
    r"((\w+_)?loss(_fct|_fn|_func|_function)?|criterion)\.",
    r"(class|label|loss|pos)_weights?$",
    r"linear\.weight$",
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """An architecture.

    Attributes:
        model_type: its name in `config.json`.
        name: its name in class names: `{name}Model`.
        config_class: the configuration.
        presets: published models by name.
        prefix: name of the encoder inside a model with a head.
        models: module of the PyTorch classes.
        lowering: module whose `lower_encoder` adds an encoder to a plan.
        tensorflow: module of the TensorFlow classes, or None.
        tokenizer: the tokenizer class, with its module.
        public: further public names of `models`.
        layers: path of the list of layers inside the encoder.
        embeddings: names of the embedding tables inside the encoder; the first is that of words.
        pooler: the layer from the first token's hidden state to the vector that pooled heads read; None: they read the
            hidden state itself. A configuration may do without it: `PreTrainedConfig.has_pooler_layer`.
        first_token: pooled heads that read the first token's hidden state, though there is a pooler.
        always_pools: whether every published file has a pooler, read or not.
        heads: the heads of the family, each with its layers beyond word scores.
        words: the layers of word scores.
        idle: regular expressions of tensors that published files have and a model may not use.
        common_names: pairs (regular expression, replacement) that make its parameters' names BERT's, so that a student
            can be initialised from a teacher of another family.
        refit: function that fits its layers to those of a BERT by least squares; None: its layers have BERT's parts.
        original: the format of the authors' own TensorFlow checkpoints.
        benchmark: title and preset with which the family takes part in benchmarks.
        graph_forms: rewritten forms of its stock export that the benchmarks know; see `bench.peers.REWRITINGS`.
    """

    model_type: str
    name: str
    config_class: type[PreTrainedConfig]
    presets: Mapping[str, PreTrainedConfig] = field(default_factory=dict)
    prefix: str
    models: str
    lowering: str
    tensorflow: str | None = None
    tokenizer: str = "pocketbert.tokenization.BertTokenizer"
    public: tuple[str, ...] = ()
    layers: str = "encoder.layer"
    embeddings: tuple[str, ...] = tuple(
        f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")
    )
    pooler: Dense | None = Dense("pooler.dense", "tanh")
    first_token: tuple[str, ...] = ()
    always_pools: bool = False
    heads: Mapping[str, tuple[Dense, ...]]
    words: WordScores | None = WordScores()
    idle: tuple[str, ...] = ()
    common_names: tuple[tuple[str, str], ...] = ()
    refit: str | None = None
    original: OriginalFormat | None = None
    benchmark: tuple[str, str] | None = None
    graph_forms: tuple[str, ...] = ()

    @cached_property
    def head_prefixes(self) -> tuple[str, ...]:
        """What the names of all parameters of heads begin with."""
        layers = [dense.name for denses in self.heads.values() for dense in denses]
        if self.words is not None:
            layers += self.words.names
        return tuple(dict.fromkeys(f"{name.partition('.')[0]}." for name in layers))

    @cached_property
    def optional_prefixes(self) -> tuple[str, ...]:
        """What the names of the parameters begin with that a checkpoint of another task may lack: heads and pooler."""
        return (*self.head_prefixes, *([] if self.pooler is None else [f"{self.pooler.name.partition('.')[0]}."]))

    @property
    def tied(self) -> tuple[str, ...]:
        """The names of the tensors that repeat others in a model whose word scores are tied."""
        return () if self.words is None else self.words.tied

    @property
    def word_table(self) -> str:
        """The name of the word embeddings inside the encoder."""
        return self.embeddings[0]

    def short(self, name: str) -> str:
        """The name of a tensor without the encoder's prefix."""
        return name.removeprefix(f"{self.prefix}.")

    def is_optional(self, name: str) -> bool:
        """Whether a checkpoint may lack the tensor, or have it without use: one of a head or of the pooler."""
        return self.short(name).startswith(self.optional_prefixes)

    def is_idle(self, name: str) -> bool:
        """Whether a tensor of a checkpoint, named without the prefix, changes no output of this family's models."""
        return self.is_left_by_training(name) or any(re.match(pattern, name) for pattern in self.idle)

    def is_left_by_training(self, name: str) -> bool:
        """Whether a tensor of a checkpoint, named without the prefix, served its training alone."""
        return any(re.match(pattern, name) for pattern in LEFT_BY_TRAINING)

    def class_name(self, head: str) -> str:
        """The name of the public class for a head, a key of `HEADS`."""
        return f"{self.name}{head}"

    def load(self, module_and_name: str) -> Any:
        """The object with this dotted name, whose module is imported."""
        module, _, name = module_and_name.rpartition(".")
        return getattr(import_module(module), name)
