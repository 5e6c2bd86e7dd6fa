"""XLM-RoBERTa (Conneau et al. 2019, https://arxiv.org/abs/1911.02116): configuration and description."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pocketbert.families.roberta import FAMILY as ROBERTA
from pocketbert.families.roberta import RobertaFields


@dataclass(frozen=True, kw_only=True)
class XLMRobertaConfig(RobertaFields):
    """XLM-RoBERTa (Conneau et al. 2019): RoBERTa for a hundred languages, with pieces of a Unigram model."""

    model_type: ClassVar[str] = "xlm-roberta"


FAMILY = replace(
    ROBERTA,
    model_type="xlm-roberta",
    name="XLMRoberta",
    config_class=XLMRobertaConfig,
    presets={
        "xlm-roberta-base": XLMRobertaConfig(
            vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
        ),
    },
    models="pocketbert.models.xlm_roberta",
    tokenizer="pocketbert.tokenization.XLMRobertaTokenizer",
)
