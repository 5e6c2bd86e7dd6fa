"""RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692): configuration and description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pocketbert.families.bert import BertFields, LayerFields, refuse_variants
from pocketbert.families.family import Dense, Family, WordScores


@dataclass(frozen=True, kw_only=True)
class PositionsAfterPadding(LayerFields):
    """Fields of the families whose positions count from the id of padding + 1, so that the first rows stay unused."""

    pad_token_id: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_variants(self)
        self._check("pad_token_id", self.pad_token_id is not None, "must be given: positions count from it")
        self._check("max_position_embeddings", self.max_tokens >= 1, f"must be at least {self.first_position + 1}")

    @property
    def first_position(self) -> int:
        """The row of the table of positions for the first token."""
        assert self.pad_token_id is not None
        return self.pad_token_id + 1

    @property
    def max_tokens(self) -> int:
        """The longest input of the model, in tokens: the rows of the table of positions that are used."""
        return self.max_position_embeddings - self.first_position


@dataclass(frozen=True, kw_only=True)
class RobertaFields(PositionsAfterPadding, BertFields):
    """The fields of RoBERTa and of its relatives."""

    classifier_dropout: float | None = None


@dataclass(frozen=True, kw_only=True)
class RobertaConfig(RobertaFields):
    """RoBERTa (Liu et al. 2019): BERT with byte-level pieces and positions that count from 2."""

    model_type: ClassVar[str] = "roberta"

    vocab_size: int = 50265


#: The heads of RoBERTa and of the families that took them over.
ROBERTA_HEADS = {
    "Model": (),
    "ForMaskedLM": (),
    "ForSequenceClassification": (
        Dense("classifier.dense", "tanh", dropout="head_dropout_prob"),
        Dense("classifier.out_proj", dropout="head_dropout_prob"),
    ),
    "ForMultipleChoice": (Dense("classifier", dropout="hidden_dropout_prob"),),
    "ForTokenClassification": (Dense("classifier", dropout="head_dropout_prob"),),
    "ForQuestionAnswering": (Dense("qa_outputs"),),
}
ROBERTA_WORDS = WordScores(
    transform="lm_head.dense",
    norm="lm_head.layer_norm",
    decoder="lm_head.decoder",
    bias="lm_head.bias",
    activation="gelu",
)

FAMILY = Family(
    model_type="roberta",
    name="Roberta",
    config_class=RobertaConfig,
    presets={
        "roberta-base": RobertaConfig(max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5),
    },
    prefix="roberta",
    models="pocketbert.models.roberta",
    lowering="pocketbert.runtime.lowering.roberta",
    tokenizer="pocketbert.tokenization.RobertaTokenizer",
    heads=ROBERTA_HEADS,
    first_token=("ForSequenceClassification",),
    words=ROBERTA_WORDS,
)
