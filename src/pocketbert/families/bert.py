"""BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805): configuration and description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pocketbert.errors import ConfigError
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Dense, Family
from pocketbert.families.original import NameTable, OriginalFormat, bert_rules


@dataclass(frozen=True, kw_only=True)
class LayerFields(PreTrainedConfig):
    """The fields of all families that call them as BERT does."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12


@dataclass(frozen=True, kw_only=True)
class BertFields(LayerFields):
    """The fields of families with segments."""

    type_vocab_size: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("type_vocab_size", self.type_vocab_size >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class BertConfig(BertFields):
    """Plain BERT (Devlin et al. 2018), encoder only; the defaults are BERT-base uncased."""

    model_type: ClassVar[str] = "bert"

    classifier_dropout: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_variants(self, embedding_size=self.hidden_size)


def refuse_variants(config: PreTrainedConfig, **only_supported: Any) -> None:
    """Raise `ConfigError` for keys of `config.json` that ask for another computation: decoders, relative positions."""
    only_supported |= {
        "is_decoder": False, "is_encoder_decoder": False, "add_cross_attention": False,
        "position_embedding_type": "absolute", "pruned_heads": {},
    }  # fmt: skip
    for key, only in only_supported.items():
        if config.extra.get(key, only) != only:
            name = type(config).__name__
            raise ConfigError(f"{name}: {key}={config.extra[key]!r} is not supported, only {only!r}")


_PAIR = (Dense("cls.seq_relationship"),)
_CLASSIFIER = (Dense("classifier", dropout="head_dropout_prob"),)
#: The heads of BERT and of the families that took them over, with the layers of each.
BERT_HEADS = {
    "Model": (),
    "ForPreTraining": _PAIR,
    "ForMaskedLM": (),
    "ForNextSentencePrediction": _PAIR,
    "ForSequenceClassification": _CLASSIFIER,
    "ForMultipleChoice": _CLASSIFIER,
    "ForTokenClassification": _CLASSIFIER,
    "ForQuestionAnswering": (Dense("qa_outputs"),),
}
#: Defaults of Google's configuration class that differ from the published class's.
GOOGLE_DEFAULTS = {"type_vocab_size": 16}

FAMILY = Family(
    model_type="bert",
    name="Bert",
    config_class=BertConfig,
    presets={"bert-base-uncased": BertConfig()},
    prefix="bert",
    models="pocketbert.models.bert",
    lowering="pocketbert.runtime.lowering.bert",
    heads=BERT_HEADS,
    original=OriginalFormat(
        config_file="bert_config.json",
        config_defaults=GOOGLE_DEFAULTS,
        tables=(NameTable("bert", bert_rules("bert", "LayerNorm")),),
    ),
    benchmark=("BERT-base", "bert-base-uncased"),
    graph_forms=("fused",),
)
