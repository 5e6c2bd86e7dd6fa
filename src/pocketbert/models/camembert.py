"""CamemBERT (Martin et al. 2019, https://arxiv.org/abs/1911.03894): RoBERTa for French, with pieces of a Unigram model.

The layers and the names of the parameters are RoBERTa's.
"""

from __future__ import annotations

from pocketbert.families.camembert import FAMILY
from pocketbert.models import heads
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.models.roberta import RobertaEncoder


class CamembertPreTrainedModel(PreTrainedModel):
    """Base of all CamemBERT classes."""

    family = FAMILY


class CamembertModel(CamembertPreTrainedModel, RobertaEncoder):
    """CamemBERT's encoder."""


class CamembertForMaskedLM(CamembertPreTrainedModel, heads.ForMaskedLM):
    """CamemBERT that fills masked words."""

    encoder_class = CamembertModel


class CamembertForSequenceClassification(CamembertPreTrainedModel, heads.ForSequenceClassification):
    """CamemBERT that classifies or rates a text or a pair."""

    encoder_class = CamembertModel


class CamembertForMultipleChoice(CamembertPreTrainedModel, heads.ForMultipleChoice):
    """CamemBERT that picks one of several answers."""

    encoder_class = CamembertModel


class CamembertForTokenClassification(CamembertPreTrainedModel, heads.ForTokenClassification):
    """CamemBERT that tags tokens."""

    encoder_class = CamembertModel


class CamembertForQuestionAnswering(CamembertPreTrainedModel, heads.ForQuestionAnswering):
    """CamemBERT that finds an answer in a passage."""

    encoder_class = CamembertModel
