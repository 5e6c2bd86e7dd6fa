"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555): BERT's layers behind narrow embeddings.

Parameter names are those of the published checkpoints. Shapes: B batch, S sequence, E embedding, H hidden.
"""

from __future__ import annotations

from torch import Tensor, nn

from pocketbert.families.electra import FAMILY, ElectraConfig
from pocketbert.models import heads
from pocketbert.models.bert import BertEmbeddings, BertLayer
from pocketbert.models.ops import FirstToken, Linear, Packing, init_parameters
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel


class ElectraPreTrainedModel(PreTrainedModel):
    """Base of all ELECTRA classes."""

    family = FAMILY


class ElectraModel(ElectraPreTrainedModel, EncoderModel):
    """ELECTRA's encoder, of a discriminator or of a generator."""

    def __init__(self, config: ElectraConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        if config.embedding_size != config.hidden_size:
            self.embeddings_project = Linear(config.embedding_size, config.hidden_size)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))}
        )
        self.pooler = FirstToken() if add_pooling_layer else None
        init_parameters(self, config.initializer_range)

    def embed(self, input_ids: Tensor | None, attention_mask: Tensor | Packing | None, *rest: Tensor | None) -> Tensor:
        """[B, S, E] to [B, S, H]."""
        embedded = super().embed(input_ids, attention_mask, *rest)
        return self.embeddings_project(embedded) if hasattr(self, "embeddings_project") else embedded


class ElectraForMaskedLM(ElectraPreTrainedModel, heads.ForMaskedLM):
    """ELECTRA's generator, which fills masked words."""

    encoder_class = ElectraModel


class ElectraForSequenceClassification(ElectraPreTrainedModel, heads.ForSequenceClassification):
    """ELECTRA that classifies or rates a text or a pair."""

    encoder_class = ElectraModel


class ElectraForMultipleChoice(ElectraPreTrainedModel, heads.ForMultipleChoice):
    """ELECTRA that picks one of several answers."""

    encoder_class = ElectraModel


class ElectraForTokenClassification(ElectraPreTrainedModel, heads.ForTokenClassification):
    """ELECTRA that tags tokens."""

    encoder_class = ElectraModel


class ElectraForQuestionAnswering(ElectraPreTrainedModel, heads.ForQuestionAnswering):
    """ELECTRA that finds an answer in a passage."""

    encoder_class = ElectraModel
