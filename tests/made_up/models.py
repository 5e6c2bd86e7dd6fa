"""Pebble in PyTorch: a feed-forward network, then attention, each followed by add and normalise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from made_up.family import FAMILY, PebbleConfig
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


class PebbleEmbeddings(nn.Module):
    """Word + position, normalised."""

    def __init__(self, config: PebbleConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.dim, padding_idx=config.pad_token_id)
        self.places = nn.Embedding(config.max_position_embeddings, config.dim)
        self.norm = LayerNorm(config.dim, config.layer_norm_eps)

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | Packing | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        words = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(words.size(1), device=words.device)
        return self.norm(words + self.places(position_ids))


class PebbleBlock(nn.Module):
    def __init__(self, config: PebbleConfig) -> None:
        super().__init__()
        self.heads, self.rate = config.n_heads, config.dropout
        self.activation, self.dropout = ACTIVATIONS[config.activation], Dropout(config.dropout)
        self.up, self.down = Linear(config.dim, config.wide_dim), Linear(config.wide_dim, config.dim)
        self.first_norm = LayerNorm(config.dim, config.layer_norm_eps)
        self.qkv = nn.ModuleDict({part: Linear(config.dim, config.dim) for part in "qkv"})
        self.out = Linear(config.dim, config.dim)
        self.second_norm = LayerNorm(config.dim, config.layer_norm_eps)

    def forward(self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        x = self.first_norm(self.dropout(self.down(self.activation(self.up(x)))) + x)
        query, key, value = (self.qkv[part](x) for part in "qkv")
        rate = self.rate if self.training else 0.0
        context, weights = attend(query, key, value, self.heads, keep, rate, with_weights)
        return self.second_norm(self.dropout(self.out(context)) + x), weights


class PebblePreTrainedModel(PreTrainedModel):
    """Base of all Pebble classes."""

    family = FAMILY


class PebbleModel(PebblePreTrainedModel, EncoderModel):
    """Pebble's encoder."""

    def __init__(self, config: PebbleConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        self.embeddings = PebbleEmbeddings(config)
        self.stack = nn.ModuleDict({"blocks": nn.ModuleList(PebbleBlock(config) for _ in range(config.n_blocks))})
        self.pooler = FirstToken() if add_pooling_layer else None
        init_parameters(self, config.initializer_range)


class PebbleForMaskedLM(PebblePreTrainedModel, heads.ForMaskedLM):
    """Pebble that fills masked words."""

    encoder_class = PebbleModel


class PebbleForSequenceClassification(PebblePreTrainedModel, heads.ForSequenceClassification):
    """Pebble that classifies texts."""

    encoder_class = PebbleModel


class PebbleForTokenClassification(PebblePreTrainedModel, heads.ForTokenClassification):
    """Pebble that tags tokens."""

    encoder_class = PebbleModel
