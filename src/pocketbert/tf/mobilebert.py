"""MobileBERT (Sun et al. 2020, https://arxiv.org/abs/2004.02984) and IB-BERT, its teacher, in TensorFlow.

Shapes: B batch, S sequence, H hidden (512), T true hidden (128, inside the bottleneck), E embedding (128),
I intermediate (512), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from pocketbert.errors import InputError
from pocketbert.families.mobilebert import FAMILY, MobileBertConfig
from pocketbert.tf import heads
from pocketbert.tf.encoder import Embeddings, MainLayer, Pooler
from pocketbert.tf.layers import ACTIVATIONS, Attention, Block, LayerNorm, Linear, NoNorm, Tensor, drawn
from pocketbert.tf.outputs import TFPreTrainingOutput
from pocketbert.tf.pretrained import TFPreTrainedModel

TORCH_EPS = 1e-5  # of two norms under "layer_norm" in the published code, which ignores config.layer_norm_eps there


def norm(config: MobileBertConfig, width: int, name: str, eps: float | None = None) -> keras.layers.Layer:
    """The norm of this `normalization_type`."""
    if config.normalization_type == "no_norm":
        return NoNorm(width, name=name)
    return LayerNorm(width, config.layer_norm_eps if eps is None else eps, name=name)


class MobileBertEmbeddings(Embeddings):
    """Words of width E with their neighbours, widened to H; plus position and segment, normalised."""

    def __init__(self, config: MobileBertConfig) -> None:
        width, hidden = config.embedding_size, config.hidden_size
        super().__init__(config, width, norm(config, hidden, "LayerNorm", TORCH_EPS))
        self.trigram, self.mask_aware = config.trigram_input, config.mask_aware_trigram
        self.widens = config.trigram_input or width != hidden
        self.embedding_transformation = Linear(
            3 * width if config.trigram_input else width,
            hidden,
            config.initializer_range,
            name="embedding_transformation",
            trainable=self.widens,  # published files have it even where it is not used
        )

    def widen(self, words: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Map [B, S, E] to [B, S, H].

        The published trigram reads the embedding of padding beside the last token. With `mask_aware_trigram`
        masked positions count as zero, as beyond the text's ends, and padding changes nothing.
        """
        if self.trigram:
            if self.mask_aware and attention_mask is not None:
                words = words * tf.cast(attention_mask, words.dtype)[..., None]
            following = tf.pad(words[:, 1:], ((0, 0), (0, 1), (0, 0)))
            previous = tf.pad(words[:, :-1], ((0, 0), (1, 0), (0, 0)))
            words = tf.concat([following, words, previous], axis=-1)  # [B, S, 3E], in the published order
        return self.embedding_transformation(words) if self.widens else words


class Bottleneck(Block):
    """From the stream into the layer, H to T."""

    def __init__(self, config: MobileBertConfig, name: str, trainable: bool = True) -> None:
        super().__init__(name=name, trainable=trainable)
        inner = config.intra_bottleneck_size
        self.dense = Linear(config.hidden_size, inner, config.initializer_range, name="dense")
        self.norm = norm(config, inner, "LayerNorm")

    def call(self, stream: Tensor) -> Tensor:
        """Map [B, S, H] to [B, S, T]."""
        return self.norm(self.dense(stream))


class Residual(Block):
    """Linear, dropout, add, normalise."""

    def __init__(
        self,
        config: MobileBertConfig,
        width: int,
        units: int,
        name: str,
        dropout: float = 0.0,
        eps: float | None = None,
    ) -> None:
        super().__init__(name=name)
        self.dense = Linear(width, units, config.initializer_range, name="dense")
        self.norm = norm(config, units, "LayerNorm", eps)
        self.dropout = keras.layers.Dropout(dropout)

    def call(self, x: Tensor, residual: Tensor) -> Tensor:
        """Join [B, S, width] and [B, S, units] into [B, S, units]."""
        return self.norm(self.dropout(self.dense(x)) + residual)


class SelfAttention(Block):
    """Heads of the inner width; the inputs of query, key and value have the widths of what they read."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__(name="attention.self")
        hidden, inner, std = config.hidden_size, config.true_hidden_size, config.initializer_range
        narrowed = config.use_bottleneck and (config.key_query_shared_bottleneck or config.use_bottleneck_attention)
        query_key = inner if narrowed else hidden
        self.query = Linear(query_key, inner, std, name="query")
        self.key = Linear(query_key, inner, std, name="key")
        self.value = Linear(inner if config.use_bottleneck_attention else hidden, inner, std, name="value")
        self.attend = Attention(config.num_attention_heads, config.attention_probs_dropout_prob, name="attend")

    def call(self, query_key: Tensor, value: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix tokens: [B, S, T or H] to [B, S, T]."""
        return self.attend(self.query(query_key), self.key(query_key), self.value(value), bias)


class MobileBertLayer(Block):
    """Bottleneck, attention, the stack of networks that balances a thin layer's attention (section 3.2), bottleneck."""

    def __init__(self, config: MobileBertConfig, name: str) -> None:
        super().__init__(name=name)
        hidden, inner, between = config.hidden_size, config.true_hidden_size, config.intermediate_size
        dropout = config.hidden_dropout_prob
        inside = 0.0 if config.use_bottleneck else dropout  # with a bottleneck, the dropout is in that
        self.use_bottleneck = config.use_bottleneck
        self.bottleneck_attention = config.use_bottleneck_attention
        self.shared = config.use_bottleneck and config.key_query_shared_bottleneck
        if self.use_bottleneck:
            self.entrance = Bottleneck(config, name="bottleneck.input")
            self.exit = Residual(config, inner, hidden, name="output.bottleneck", dropout=dropout)
        if self.shared:  # published files have it even where attention does not use it
            used = not config.use_bottleneck_attention
            self.attention_entrance = Bottleneck(config, name="bottleneck.attention", trainable=used)
        self.attention = SelfAttention(config)
        self.attention_output = Residual(config, inner, inner, name="attention.output", dropout=inside)
        self.activation = ACTIVATIONS[config.hidden_act]
        stack = [f"ffn.{i}." for i in range(config.num_feedforward_networks - 1)]
        self.widen = [
            Linear(inner, between, config.initializer_range, name=f"{at}intermediate.dense") for at in (*stack, "")
        ]
        self.narrow = [Residual(config, between, inner, name=f"{at}output") for at in stack]
        self.narrow.append(Residual(config, between, inner, name="output", dropout=inside, eps=TORCH_EPS))

    def call(self, stream: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map [B, S, H] to [B, S, H], and the attention probabilities."""
        x = query_key = value = stream
        if self.use_bottleneck:
            x = self.entrance(stream)  # [B, S, T]
            if self.bottleneck_attention:
                query_key = value = x
            elif self.shared:
                query_key = self.attention_entrance(stream)  # [B, S, T]
        context, weights = self.attention(query_key, value, bias)
        x = self.attention_output(context, x)
        for widen, narrow in zip(self.widen, self.narrow, strict=True):
            x = narrow(self.activation(widen(x)), x)  # [B, S, I], [B, S, T]
        return (self.exit(x, stream) if self.use_bottleneck else x), weights


class TFMobileBertMainLayer(MainLayer):
    """MobileBERT's encoder, or IB-BERT's."""

    def __init__(self, config: MobileBertConfig, pools: bool, name: str) -> None:
        super().__init__(config, pools, name)
        self.embeddings: MobileBertEmbeddings = MobileBertEmbeddings(config)
        self.layer = [MobileBertLayer(config, f"encoder.layer.{i}") for i in range(config.num_hidden_layers)]
        self.pooler = Pooler(config, activated=config.classifier_activation) if pools else None

    def check(self, inputs: Mapping[str, Tensor], axes: int) -> None:
        """Refuse inputs that no encoder takes, and masks that a mask-aware trigram cannot use."""
        super().check(inputs, axes)
        mask = inputs.get("attention_mask")
        if self.embeddings.mask_aware and mask is not None and len(mask.shape) != axes:
            raise InputError("mask_aware_trigram needs an attention_mask of [batch, sequence]")


class Predictions(heads.Predictions):
    """Word scores whose matrix [H, V] is the word embeddings' transpose [E, V] on top of a `dense` [H-E, V]."""

    config: MobileBertConfig

    def build(self, input_shape: object = None) -> None:
        """Make the variables."""
        super().build()
        config = self.config
        rest = config.hidden_size - config.embedding_size
        self.rest = self.add_weight(
            name="dense.weight", shape=(rest, config.vocab_size), initializer=drawn(config.initializer_range)
        )

    def score(self, x: Tensor, table: Tensor) -> Tensor:
        """Map [..., H] to [..., V] with the word embeddings [V, E]."""
        width = self.config.embedding_size
        return tf.matmul(x[..., :width], table, transpose_b=True) + tf.matmul(x[..., width:], self.rest)


# ── the public classes ──

TFMobileBertForPreTrainingOutput = TFPreTrainingOutput


class TFMobileBertPreTrainedModel(TFPreTrainedModel):
    """Base of all MobileBERT classes."""

    family = FAMILY
    main_layer_class = TFMobileBertMainLayer
    predictions_class = Predictions


class TFMobileBertModel(TFMobileBertPreTrainedModel, heads.Encoder):
    """MobileBERT's encoder, or IB-BERT's."""


class TFMobileBertForPreTraining(TFMobileBertPreTrainedModel, heads.ForPreTraining):
    """MobileBERT with masked words and next-sentence prediction."""


class TFMobileBertForMaskedLM(TFMobileBertPreTrainedModel, heads.ForMaskedLM):
    """MobileBERT that fills masked words."""


class TFMobileBertForNextSentencePrediction(TFMobileBertPreTrainedModel, heads.ForNextSentencePrediction):
    """MobileBERT that predicts whether one sentence follows another."""


class TFMobileBertForSequenceClassification(TFMobileBertPreTrainedModel, heads.ForSequenceClassification):
    """MobileBERT that classifies or rates a text or a pair."""


class TFMobileBertForMultipleChoice(TFMobileBertPreTrainedModel, heads.ForMultipleChoice):
    """MobileBERT that picks one of several answers."""


class TFMobileBertForTokenClassification(TFMobileBertPreTrainedModel, heads.ForTokenClassification):
    """MobileBERT that tags tokens."""


class TFMobileBertForQuestionAnswering(TFMobileBertPreTrainedModel, heads.ForQuestionAnswering):
    """MobileBERT that finds an answer in a passage."""
