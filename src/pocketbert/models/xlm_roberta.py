"""XLM-RoBERTa (Conneau et al. 2019, https://arxiv.org/abs/1911.02116): RoBERTa for a hundred languages.

The layers and the names of the parameters are RoBERTa's.
"""

from __future__ import annotations

from pocketbert.families.xlm_roberta import FAMILY
from pocketbert.models import heads
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.models.roberta import RobertaEncoder


class XLMRobertaPreTrainedModel(PreTrainedModel):
    """Base of all XLM-RoBERTa classes."""

    family = FAMILY


class XLMRobertaModel(XLMRobertaPreTrainedModel, RobertaEncoder):
    """XLM-RoBERTa's encoder."""


class XLMRobertaForMaskedLM(XLMRobertaPreTrainedModel, heads.ForMaskedLM):
    """XLM-RoBERTa that fills masked words."""

    encoder_class = XLMRobertaModel


class XLMRobertaForSequenceClassification(XLMRobertaPreTrainedModel, heads.ForSequenceClassification):
    """XLM-RoBERTa that classifies or rates a text or a pair."""

    encoder_class = XLMRobertaModel


class XLMRobertaForMultipleChoice(XLMRobertaPreTrainedModel, heads.ForMultipleChoice):
    """XLM-RoBERTa that picks one of several answers."""

    encoder_class = XLMRobertaModel


class XLMRobertaForTokenClassification(XLMRobertaPreTrainedModel, heads.ForTokenClassification):
    """XLM-RoBERTa that tags tokens."""

    encoder_class = XLMRobertaModel


class XLMRobertaForQuestionAnswering(XLMRobertaPreTrainedModel, heads.ForQuestionAnswering):
    """XLM-RoBERTa that finds an answer in a passage."""

    encoder_class = XLMRobertaModel
