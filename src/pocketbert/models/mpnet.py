"""MPNet (Song et al. 2020, https://arxiv.org/abs/2004.09297): BERT's layers, and a bias of attention by distance.

Parameter names are those of the published checkpoints. Shapes: B batch, S sequence, H hidden, I intermediate, h heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pocketbert.families.mpnet import BUCKETS, FAMILY, MPNetConfig
from pocketbert.models import heads
from pocketbert.models.bert import BertOutput, BertPooler
from pocketbert.models.ops import ACTIVATIONS, Dropout, LayerNorm, Linear, Packing, attend, init_parameters
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel
from pocketbert.models.roberta import positions_after_padding

REACH = 128  # from this distance on, all have the bucket of the farthest


class MPNetEmbeddings(nn.Module):
    """Word + position, normalised; there are no segments."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        width, self.pad = config.hidden_size, config.first_position - 1
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=self.pad)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, padding_idx=self.pad)
        self.LayerNorm = LayerNorm(width, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | Packing | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """Ids [B, S], or word embeddings [B, S, H], to [B, S, H]; segments are ignored here."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        position_ids = positions_after_padding(input_ids, words, attention_mask, position_ids, self.pad)
        return self.dropout(self.LayerNorm(words + self.position_embeddings(position_ids)))


class MPNetSelfAttention(nn.Module):
    """Queries, keys and values of all heads at once, and the linear layer behind them."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.q, self.k, self.v, self.o = (Linear(config.hidden_size, config.hidden_size) for _ in range(4))

    def forward(
        self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool, bias: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Mix tokens: [B, S, H] to [B, S, H], with a bias [h, S, S]."""
        rate = self.dropout if self.training else 0.0
        context, weights = attend(self.q(x), self.k(x), self.v(x), self.heads, keep, rate, with_weights, bias)
        return self.o(context), weights


class MPNetLayer(nn.Module):
    """Attention and feed-forward network, each followed by add and normalise."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "attn": MPNetSelfAttention(config),
                "LayerNorm": LayerNorm(config.hidden_size, config.layer_norm_eps),
                "dropout": Dropout(config.hidden_dropout_prob),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": Linear(config.hidden_size, config.intermediate_size)})
        self.activation = ACTIVATIONS[config.hidden_act]
        self.output = BertOutput(config, config.intermediate_size)

    def forward(
        self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool, bias: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Map [B, S, H] to [B, S, H], with a bias of attention [h, S, S]."""
        context, weights = self.attention["attn"](x, keep, with_weights, bias)
        x = self.attention["LayerNorm"](self.attention["dropout"](context) + x)
        inner = self.activation(self.intermediate["dense"](x))  # [B, S, I]
        return self.output(inner, x), weights


class MPNetPreTrainedModel(PreTrainedModel):
    """Base of all MPNet classes."""

    family = FAMILY


class MPNetModel(MPNetPreTrainedModel, EncoderModel):
    """MPNet's encoder."""

    def __init__(self, config: MPNetConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = MPNetEmbeddings(config)
        self.encoder = nn.ModuleDict(
            {
                "layer": nn.ModuleList(MPNetLayer(config) for _ in range(config.num_hidden_layers)),
                "relative_attention_bias": nn.Embedding(BUCKETS, config.num_attention_heads),
            }
        )
        self.pooler = BertPooler(config) if add_pooling_layer else None
        init_parameters(self, config.initializer_range)

    def shared_by_layers(self, length: int) -> tuple[Tensor, ...]:
        """The bias of attention, [h, S, S]."""
        places = torch.arange(length, device=self.device)
        table = self.encoder["relative_attention_bias"]
        return (table(_buckets(places - places[:, None])).permute(2, 0, 1),)


def _buckets(distances: Tensor) -> Tensor:
    """The row of the table for each distance from a query to a key; see `runtime.lowering.mpnet.buckets`."""
    half, exact = BUCKETS // 2, BUCKETS // 4
    far = distances.abs()
    ratio = (far.clamp(min=1).float() / exact).log() / math.log(REACH / exact)
    wide = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(far < exact, far, wide) + (distances > 0) * half


class MPNetForMaskedLM(MPNetPreTrainedModel, heads.ForMaskedLM):
    """MPNet that fills masked words."""

    encoder_class = MPNetModel


class MPNetForSequenceClassification(MPNetPreTrainedModel, heads.ForSequenceClassification):
    """MPNet that classifies or rates a text or a pair."""

    encoder_class = MPNetModel


class MPNetForMultipleChoice(MPNetPreTrainedModel, heads.ForMultipleChoice):
    """MPNet that picks one of several answers."""

    encoder_class = MPNetModel


class MPNetForTokenClassification(MPNetPreTrainedModel, heads.ForTokenClassification):
    """MPNet that tags tokens."""

    encoder_class = MPNetModel


class MPNetForQuestionAnswering(MPNetPreTrainedModel, heads.ForQuestionAnswering):
    """MPNet that finds an answer in a passage."""

    encoder_class = MPNetModel
