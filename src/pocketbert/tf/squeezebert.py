"""SqueezeBERT (Iandola et al. 2020, https://arxiv.org/abs/2006.11316) in TensorFlow, where it was never published.

Token-major like everything else: a grouped convolution of kernel 1 is a product with a block-diagonal matrix. Heads,
embeddings and pooler are BERT's.

Shapes: B batch, S sequence, H hidden, I intermediate.
"""

from __future__ import annotations

import keras

from pocketbert.families.squeezebert import FAMILY, SqueezeBertConfig
from pocketbert.tf import heads
from pocketbert.tf.encoder import Embeddings, MainLayer, Pooler
from pocketbert.tf.layers import ACTIVATIONS, Attention, Block, GroupedLinear, LayerNorm, Tensor
from pocketbert.tf.pretrained import TFPreTrainedModel


class SelfAttention(Block):
    """Queries, keys and values of all heads at once."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(name="attention")
        hidden, std = config.hidden_size, config.initializer_range
        self.query = GroupedLinear(hidden, hidden, config.q_groups, std, name="query")
        self.key = GroupedLinear(hidden, hidden, config.k_groups, std, name="key")
        self.value = GroupedLinear(hidden, hidden, config.v_groups, std, name="value")
        self.attend = Attention(config.num_attention_heads, config.attention_probs_dropout_prob, name="attend")

    def call(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix tokens: [B, S, H] to [B, S, H]."""
        return self.attend(self.query(x), self.key(x), self.value(x), bias)


class Residual(Block):
    """Back into the residual stream: product, dropout, add, normalise."""

    def __init__(self, config: SqueezeBertConfig, width: int, groups: int, name: str) -> None:
        super().__init__(name=name)
        self.conv1d = GroupedLinear(width, config.hidden_size, groups, config.initializer_range, name="conv1d")
        self.norm = LayerNorm(config.hidden_size, 1e-12, name="layernorm")  # as published, not config.layer_norm_eps
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob)

    def call(self, x: Tensor, residual: Tensor) -> Tensor:
        """Join [B, S, width] and the residual [B, S, H] into [B, S, H]."""
        return self.norm(self.dropout(self.conv1d(x)) + residual)


class SqueezeBertLayer(Block):
    """Attention and feed-forward network, each followed by add and normalise."""

    def __init__(self, config: SqueezeBertConfig, name: str) -> None:
        super().__init__(name=name)
        hidden, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.attention = SelfAttention(config)
        self.post_attention = Residual(config, hidden, config.post_attention_groups, name="post_attention")
        self.intermediate = GroupedLinear(hidden, inner, config.intermediate_groups, std, name="intermediate.conv1d")
        self.activation = ACTIVATIONS[config.hidden_act]
        self.narrow = Residual(config, inner, config.output_groups, name="output")

    def call(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map [B, S, H] to [B, S, H], and the attention probabilities."""
        context, weights = self.attention(x, bias)
        x = self.post_attention(context, x)
        return self.narrow(self.activation(self.intermediate(x)), x), weights


class TFSqueezeBertMainLayer(MainLayer):
    """SqueezeBERT's encoder; its files hold a pooler whether or not a head reads it."""

    def __init__(self, config: SqueezeBertConfig, pools: bool, name: str) -> None:
        super().__init__(config, pools, name)
        norm = LayerNorm(config.hidden_size, config.layer_norm_eps, name="LayerNorm")
        self.embeddings = Embeddings(config, config.hidden_size, norm)
        self.layer = [SqueezeBertLayer(config, f"encoder.layers.{i}") for i in range(config.num_hidden_layers)]
        self.pooler = Pooler(config, trainable=pools)


# ── the public classes ──


class TFSqueezeBertPreTrainedModel(TFPreTrainedModel):
    """Base of all SqueezeBERT classes."""

    family = FAMILY
    main_layer_class = TFSqueezeBertMainLayer


class TFSqueezeBertModel(TFSqueezeBertPreTrainedModel, heads.Encoder):
    """SqueezeBERT's encoder."""


class TFSqueezeBertForPreTraining(TFSqueezeBertPreTrainedModel, heads.ForPreTraining):
    """SqueezeBERT with masked words and sentence order; `next_sentence_label` 1 means swapped."""


class TFSqueezeBertForMaskedLM(TFSqueezeBertPreTrainedModel, heads.ForMaskedLM):
    """SqueezeBERT that fills masked words."""


class TFSqueezeBertForSequenceClassification(TFSqueezeBertPreTrainedModel, heads.ForSequenceClassification):
    """SqueezeBERT that classifies or rates a text or a pair."""


class TFSqueezeBertForMultipleChoice(TFSqueezeBertPreTrainedModel, heads.ForMultipleChoice):
    """SqueezeBERT that picks one of several answers."""


class TFSqueezeBertForTokenClassification(TFSqueezeBertPreTrainedModel, heads.ForTokenClassification):
    """SqueezeBERT that tags tokens."""


class TFSqueezeBertForQuestionAnswering(TFSqueezeBertPreTrainedModel, heads.ForQuestionAnswering):
    """SqueezeBERT that finds an answer in a passage."""
