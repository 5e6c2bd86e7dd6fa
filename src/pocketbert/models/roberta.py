"""RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692): BERT's layers, positions that count from the padding.

Parameter names are those of the published checkpoints. Shapes: B batch, S sequence, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pocketbert.families.roberta import FAMILY, RobertaFields
from pocketbert.models import heads
from pocketbert.models.bert import BertLayer, BertPooler
from pocketbert.models.ops import Dropout, LayerNorm, Packing, init_parameters
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel


def positions_after_padding(
    input_ids: Tensor | None, words: Tensor, attention_mask: Tensor | Packing | None, given: Tensor | None, pad: int
) -> Tensor:
    """Rows of the table of positions, [B, S] or [1, S].

    Tokens count from `pad` + 1, those that are padding themselves have row `pad`; positions that were given are rows,
    except those of a `Packing`, which count from 0.
    """
    if isinstance(attention_mask, Packing):
        assert given is not None
        return given + (pad + 1)
    if given is not None:
        return given
    if input_ids is None:
        return torch.arange(pad + 1, pad + 1 + words.size(1), device=words.device)[None]
    real = (input_ids != pad).long()
    return real.cumsum(1) * real + pad


class RobertaEmbeddings(nn.Module):
    """Word + segment + position, normalised."""

    def __init__(self, config: RobertaFields) -> None:
        super().__init__()
        width, self.pad = config.hidden_size, config.first_position - 1
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=self.pad)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = LayerNorm(width, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, padding_idx=self.pad)

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | Packing | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """Ids [B, S], or word embeddings [B, S, H], to [B, S, H]."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        position_ids = positions_after_padding(input_ids, words, attention_mask, position_ids, self.pad)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        x = words + self.token_type_embeddings(token_type_ids) + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(x))


class RobertaPreTrainedModel(PreTrainedModel):
    """Base of all RoBERTa classes."""

    family = FAMILY


class RobertaEncoder(EncoderModel):
    """The encoder of RoBERTa and of its relatives."""

    def __init__(self, config: RobertaFields, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = RobertaEmbeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))}
        )
        self.pooler = BertPooler(config) if add_pooling_layer else None
        init_parameters(self, config.initializer_range)


class RobertaModel(RobertaPreTrainedModel, RobertaEncoder):
    """RoBERTa's encoder."""


class RobertaForMaskedLM(RobertaPreTrainedModel, heads.ForMaskedLM):
    """RoBERTa that fills masked words."""

    encoder_class = RobertaModel


class RobertaForSequenceClassification(RobertaPreTrainedModel, heads.ForSequenceClassification):
    """RoBERTa that classifies or rates a text or a pair."""

    encoder_class = RobertaModel


class RobertaForMultipleChoice(RobertaPreTrainedModel, heads.ForMultipleChoice):
    """RoBERTa that picks one of several answers."""

    encoder_class = RobertaModel


class RobertaForTokenClassification(RobertaPreTrainedModel, heads.ForTokenClassification):
    """RoBERTa that tags tokens."""

    encoder_class = RobertaModel


class RobertaForQuestionAnswering(RobertaPreTrainedModel, heads.ForQuestionAnswering):
    """RoBERTa that finds an answer in a passage."""

    encoder_class = RobertaModel
