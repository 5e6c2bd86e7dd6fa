"""CamemBERT (Martin et al. 2019, https://arxiv.org/abs/1911.03894): configuration and description."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pocketbert.families.roberta import FAMILY as ROBERTA
from pocketbert.families.roberta import RobertaFields


@dataclass(frozen=True, kw_only=True)
class CamembertConfig(RobertaFields):
    """CamemBERT (Martin et al. 2019): RoBERTa for French, with pieces of a Unigram model."""

    model_type: ClassVar[str] = "camembert"


FAMILY = replace(
    ROBERTA,
    model_type="camembert",
    name="Camembert",
    config_class=CamembertConfig,
    presets={
        "camembert-base": CamembertConfig(
            vocab_size=32005, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
        ),
    },
    models="pocketbert.models.camembert",
    tokenizer="pocketbert.tokenization.CamembertTokenizer",
)
