"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108): BERT's layers under other names.

Parameter names are those of the published checkpoints. Shapes: B batch, S sequence, H hidden, I intermediate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pocketbert.families.distilbert import FAMILY, DistilBertConfig
from pocketbert.models import heads
from pocketbert.models.ops import (
    ACTIVATIONS,
    Dropout,
    FirstToken,
    LayerNorm,
    Linear,
    Packing,
    attend,
    init_parameters,
)
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel


class DistilBertEmbeddings(nn.Module):
    """Word + position, normalised; there are no segments."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.dim, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.dim)
        self.LayerNorm = LayerNorm(config.dim, config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | Packing | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """Ids [B, S], or word embeddings [B, S, H], to [B, S, H]; mask and segments are ignored here."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(words.size(1), device=words.device)
        return self.dropout(self.LayerNorm(words + self.position_embeddings(position_ids)))


class DistilBertSelfAttention(nn.Module):
    """Queries, keys and values of all heads at once, and the linear layer behind them."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.n_heads, config.attention_dropout
        self.q_lin, self.k_lin = Linear(config.dim, config.dim), Linear(config.dim, config.dim)
        self.v_lin, self.out_lin = Linear(config.dim, config.dim), Linear(config.dim, config.dim)

    def forward(self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Mix tokens: [B, S, H] to [B, S, H]."""
        rate = self.dropout if self.training else 0.0
        rows = self.q_lin(x), self.k_lin(x), self.v_lin(x)
        context, weights = attend(*rows, self.heads, keep, rate, with_weights)
        return self.out_lin(context), weights


class DistilBertLayer(nn.Module):
    """Attention and feed-forward network, each followed by add and normalise."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.attention = DistilBertSelfAttention(config)
        self.sa_layer_norm = LayerNorm(config.dim, config.layer_norm_eps)
        self.ffn = nn.ModuleDict(
            {"lin1": Linear(config.dim, config.hidden_dim), "lin2": Linear(config.hidden_dim, config.dim)}
        )
        self.activation, self.dropout = ACTIVATIONS[config.activation], Dropout(config.dropout)
        self.output_layer_norm = LayerNorm(config.dim, config.layer_norm_eps)

    def forward(self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Map [B, S, H] to [B, S, H]."""
        context, weights = self.attention(x, keep, with_weights)
        x = self.sa_layer_norm(context + x)
        inner = self.activation(self.ffn["lin1"](x))  # [B, S, I]
        return self.output_layer_norm(self.dropout(self.ffn["lin2"](inner)) + x), weights


class DistilBertPreTrainedModel(PreTrainedModel):
    """Base of all DistilBERT classes."""

    family = FAMILY


class DistilBertModel(DistilBertPreTrainedModel, EncoderModel):
    """DistilBERT's encoder."""

    def __init__(self, config: DistilBertConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        self.embeddings = DistilBertEmbeddings(config)
        self.transformer = nn.ModuleDict(
            {"layer": nn.ModuleList(DistilBertLayer(config) for _ in range(config.n_layers))}
        )
        self.pooler = FirstToken() if add_pooling_layer else None
        init_parameters(self, config.initializer_range)


class DistilBertForMaskedLM(DistilBertPreTrainedModel, heads.ForMaskedLM):
    """DistilBERT that fills masked words."""

    encoder_class = DistilBertModel


class DistilBertForSequenceClassification(DistilBertPreTrainedModel, heads.ForSequenceClassification):
    """DistilBERT that classifies or rates a text or a pair."""

    encoder_class = DistilBertModel


class DistilBertForMultipleChoice(DistilBertPreTrainedModel, heads.ForMultipleChoice):
    """DistilBERT that picks one of several answers."""

    encoder_class = DistilBertModel


class DistilBertForTokenClassification(DistilBertPreTrainedModel, heads.ForTokenClassification):
    """DistilBERT that tags tokens."""

    encoder_class = DistilBertModel


class DistilBertForQuestionAnswering(DistilBertPreTrainedModel, heads.ForQuestionAnswering):
    """DistilBERT that finds an answer in a passage."""

    encoder_class = DistilBertModel
