"""Embeddings, then layers, then the pooler: the pass that all encoders share.

Shapes: B batch, S sequence, H hidden, E width of the word embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import InputError
from pocketbert.tf.layers import Block, Linear, Table, Tensor, attention_bias
from pocketbert.tf.outputs import TFBaseModelOutputWithPooling


class Embeddings(Block):
    """Word + position + segment, normalised."""

    def __init__(self, config: PreTrainedConfig, width: int, norm: keras.layers.Layer) -> None:
        super().__init__(name="embeddings")
        hidden, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Table(config.vocab_size, width, std, "word_embeddings", config.pad_token_id)
        self.position_embeddings = Table(config.max_position_embeddings, hidden, std, "position_embeddings")
        self.token_type_embeddings = Table(config.type_vocab_size, hidden, std, "token_type_embeddings")
        self.norm = norm
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob)

    def widen(self, words: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The family's map from word embeddings [B, S, E] to [B, S, H]."""
        return words

    def call(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """Ids [B, S], or word embeddings [B, S, E], to [B, S, H]."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        words = self.widen(words, attention_mask)
        if position_ids is None:
            length = tf.shape(words)[1] if words.shape[1] is None else words.shape[1]
            positions = self.position_embeddings.weight[:length]
        else:
            positions = self.position_embeddings(position_ids)
        types = self.token_type_embeddings
        segments = types.weight[0] if token_type_ids is None else types(token_type_ids)
        return self.dropout(self.norm(words + positions + segments))


class Pooler(Block):
    """The first token, through a linear layer and tanh unless it is taken as it is: [B, S, H] to [B, H]."""

    def __init__(self, config: PreTrainedConfig, activated: bool = True, trainable: bool = True) -> None:
        super().__init__(name="pooler", trainable=trainable)
        hidden = config.hidden_size
        self.dense = Linear(hidden, hidden, config.initializer_range, name="dense") if activated else None

    def call(self, hidden: Tensor) -> Tensor:
        """Map [B, S, H] to [B, H]."""
        first = hidden[:, 0]
        return first if self.dense is None else tf.math.tanh(self.dense(first))


class MainLayer(Block):
    """The encoder; a family sets `embeddings`, `layer` and `pooler`, which a head that `pools` reads."""

    embeddings: Embeddings
    layer: list[Any]
    pooler: Pooler | None

    def __init__(self, config: PreTrainedConfig, pools: bool, name: str) -> None:
        super().__init__(name=name)
        self.config = config

    def check(self, inputs: Mapping[str, Tensor], axes: int) -> None:
        """Refuse inputs, ids of `axes` axes, that cannot be encoded; see `call`."""
        ids, embeddings = inputs.get("input_ids"), inputs.get("inputs_embeds")
        given = ids if ids is not None else embeddings
        if given is None or (ids is not None and embeddings is not None):
            raise InputError("pass exactly one of input_ids and inputs_embeds")
        shape = list(given.shape)
        if len(shape) != axes + (ids is None):
            batch = "[B, S]" if axes == 2 else "[B, C, S]"
            raise InputError(f"a batch is input_ids {batch} or inputs_embeds {batch[:-1]}, E], not {shape}")
        length, limit = shape[axes - 1], self.config.max_position_embeddings
        if length is not None and length > limit:
            raise InputError(f"{length} tokens are more than max_position_embeddings={limit}: truncate the text")
        if inputs.get("head_mask") is not None:
            raise InputError("head_mask is among the published arguments, but heads cannot be masked: leave it out")

    def ids_outside(self, inputs: Mapping[str, Tensor]) -> str:
        """Which ids have no row in their table."""
        config = self.config
        sizes = {"input_ids": config.vocab_size, "token_type_ids": config.type_vocab_size,
                 "position_ids": config.max_position_embeddings}  # fmt: skip
        given = {name: np.asarray(inputs[name]) for name in sizes if inputs.get(name) is not None}
        return "; ".join(
            f"{name} from {ids.min()} to {ids.max()} do not fit a table of {sizes[name]} rows"
            for name, ids in given.items()
            if ids.size and (ids.min() < 0 or ids.max() >= sizes[name])
        )

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> TFBaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: [B, S], ids of the vocabulary; or pass `inputs_embeds`.
            attention_mask: [B, S] (or [B, S, S], or four axes), nonzero where attention may look; all by default.
            token_type_ids: [B, S], 0 by default.
            position_ids: [B, S] or [1, S], 0 to S-1 by default.
            inputs_embeds: [B, S, E], in place of the word embeddings only.
            output_attentions: return the probabilities of every layer.
            output_hidden_states: return the input of every layer and the last output.
        """
        with_weights = self.config.output_attentions if output_attentions is None else output_attentions
        with_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states

        hidden = self.embeddings(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        bias = None if attention_mask is None else attention_bias(attention_mask)
        states, weights = [hidden], []
        for layer in self.layer:
            hidden, probabilities = layer(hidden, bias)
            states.append(hidden)
            weights.append(probabilities)
        return TFBaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=None if self.pooler is None else self.pooler(hidden),
            hidden_states=tuple(states) if with_states else None,
            attentions=tuple(weights) if with_weights else None,
        )
