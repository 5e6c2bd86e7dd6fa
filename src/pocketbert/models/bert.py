"""BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805): the baseline and the teacher.

Parameter names are those of the published checkpoints. Shapes: B batch, S sequence, H hidden, I intermediate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pocketbert.families.bert import FAMILY, BertConfig
from pocketbert.families.config import PreTrainedConfig
from pocketbert.models import heads
from pocketbert.models.bf16 import narrow
from pocketbert.models.ops import (
    ACTIVATIONS,
    Dropout,
    LayerNorm,
    Linear,
    Packing,
    activate,
    add_norm,
    attend_to_itself,
    init_parameters,
)
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel


class BertEmbeddings(nn.Module):
    """Word + position + segment, normalised. SqueezeBERT's and ELECTRA's are the same. E: width of the embeddings."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
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
        """Ids [B, S], or word embeddings [B, S, E], to [B, S, E]; the mask is ignored here."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(words.size(1), device=words.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        x = words + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(x))


class BertSelfAttention(nn.Module):
    """Queries, keys and values of all heads at once."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Mix tokens: [B, S, H] to [B, S, H]."""
        rate = self.dropout if self.training else 0.0
        return attend_to_itself(self.query, self.key, self.value, x, self.heads, keep, rate, with_weights)


class BertOutput(nn.Module):
    """Back into the residual stream: linear, dropout, add, normalise."""

    def __init__(self, config: PreTrainedConfig, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Join [B, S, width] and the residual [B, S, H] into [B, S, H]."""
        return add_norm(self.dense, self.LayerNorm, x, residual, self.dropout)


class BertLayer(nn.Module):
    """Attention and feed-forward network, each followed by add and normalise."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": BertSelfAttention(config), "output": BertOutput(config, config.hidden_size)}
        )
        self.intermediate = nn.ModuleDict({"dense": Linear(config.hidden_size, config.intermediate_size)})
        self.activation = ACTIVATIONS[config.hidden_act]
        self.output = BertOutput(config, config.intermediate_size)

    def forward(self, x: Tensor, keep: Tensor | Packing | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Map [B, S, H] to [B, S, H]."""
        x = narrow(x)
        context, weights = self.attention["self"](x, keep, with_weights)
        x = self.attention["output"](context, x)
        inner = activate(self.intermediate["dense"], self.activation, x)  # [B, S, I]
        return self.output(inner, x), weights


class BertPooler(nn.Module):
    """The first token through a linear layer and tanh: [B, S, H] to [B, H]. SqueezeBERT's is the same."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [B, S, H] to [B, H]."""
        return torch.tanh(self.dense(hidden[:, 0]))


class BertPreTrainedModel(PreTrainedModel):
    """Base of all BERT classes."""

    family = FAMILY


class BertModel(BertPreTrainedModel, EncoderModel):
    """BERT's encoder."""

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))}
        )
        self.pooler = BertPooler(config) if add_pooling_layer else None
        init_parameters(self, config.initializer_range)


class BertForPreTraining(BertPreTrainedModel, heads.ForPreTraining):
    """BERT with masked words and next-sentence prediction."""

    encoder_class = BertModel


class BertForMaskedLM(BertPreTrainedModel, heads.ForMaskedLM):
    """BERT that fills masked words."""

    encoder_class = BertModel


class BertForNextSentencePrediction(BertPreTrainedModel, heads.ForNextSentencePrediction):
    """BERT that predicts whether one sentence follows another."""

    encoder_class = BertModel


class BertForSequenceClassification(BertPreTrainedModel, heads.ForSequenceClassification):
    """BERT that classifies or rates a text or a pair."""

    encoder_class = BertModel


class BertForMultipleChoice(BertPreTrainedModel, heads.ForMultipleChoice):
    """BERT that picks one of several answers."""

    encoder_class = BertModel


class BertForTokenClassification(BertPreTrainedModel, heads.ForTokenClassification):
    """BERT that tags tokens."""

    encoder_class = BertModel


class BertForQuestionAnswering(BertPreTrainedModel, heads.ForQuestionAnswering):
    """BERT that finds an answer in a passage."""

    encoder_class = BertModel
