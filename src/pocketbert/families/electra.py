"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555): configuration and description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pocketbert.families.bert import BertFields, refuse_variants
from pocketbert.families.family import Dense, Family, WordScores


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(BertFields):
    """ELECTRA (Clark et al. 2020): BERT whose embeddings may be narrower than its layers, without a pooler.

    Both published encoders of a pretraining run are read, discriminator and generator. The head that tells replaced
    tokens is not computed.
    """

    model_type: ClassVar[str] = "electra"

    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    classifier_dropout: float | None = None
    summary_type: str = "first"
    summary_use_proj: bool = True
    summary_activation: str = "gelu"
    summary_last_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_variants(self)
        self._check("embedding_size", self.embedding_size >= 1, "must be at least 1")
        for name, only in (("summary_type", "first"), ("summary_use_proj", True), ("summary_activation", "gelu")):
            self._check(name, getattr(self, name) == only, f"must be {only!r}, as published")
        self._check("summary_last_dropout", 0.0 <= self.summary_last_dropout < 1.0, "must lie in [0, 1)")


FAMILY = Family(
    model_type="electra",
    name="Electra",
    config_class=ElectraConfig,
    presets={"electra-small": ElectraConfig()},
    prefix="electra",
    models="pocketbert.models.electra",
    lowering="pocketbert.runtime.lowering.electra",
    pooler=None,
    heads={
        "Model": (),
        "ForMaskedLM": (),
        "ForSequenceClassification": (
            Dense("classifier.dense", "gelu", dropout="head_dropout_prob"),
            Dense("classifier.out_proj", dropout="head_dropout_prob"),
        ),
        "ForMultipleChoice": (
            Dense("sequence_summary.summary", "gelu"),
            Dense("classifier", dropout="summary_last_dropout"),
        ),
        "ForTokenClassification": (Dense("classifier", dropout="head_dropout_prob"),),
        "ForQuestionAnswering": (Dense("qa_outputs"),),
    },
    words=WordScores(
        transform="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
        decoder="generator_lm_head",
        bias="generator_lm_head.bias",
        activation="gelu",
    ),
    idle=(r"discriminator_predictions\.",),
)
