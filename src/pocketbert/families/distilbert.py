"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108): configuration and description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Dense, Family, WordScores


@dataclass(frozen=True, kw_only=True)
class DistilBertConfig(PreTrainedConfig):
    """DistilBERT (Sanh et al. 2019): BERT's layers, half as many, without segments and without a pooler.

    `sinusoidal_pos_embds` says how positions were initialised; their table is in the file either way.
    """

    model_type: ClassVar[str] = "distilbert"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }

    sinusoidal_pos_embds: bool = False
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("qa_dropout", "seq_classif_dropout"):
            self._check(name, 0.0 <= getattr(self, name) < 1.0, "must lie in [0, 1)")


_CLASSIFIER = (Dense("pre_classifier", "relu"), Dense("classifier", dropout="seq_classif_dropout"))

FAMILY = Family(
    model_type="distilbert",
    name="DistilBert",
    config_class=DistilBertConfig,
    presets={"distilbert-base-uncased": DistilBertConfig()},
    prefix="distilbert",
    models="pocketbert.models.distilbert",
    lowering="pocketbert.runtime.lowering.distilbert",
    layers="transformer.layer",
    embeddings=("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"),
    pooler=None,
    heads={
        "Model": (),
        "ForMaskedLM": (),
        "ForSequenceClassification": _CLASSIFIER,
        "ForMultipleChoice": _CLASSIFIER,
        "ForTokenClassification": (Dense("classifier", dropout="dropout"),),
        "ForQuestionAnswering": (Dense("qa_outputs", dropout="qa_dropout"),),
    },
    words=WordScores(
        transform="vocab_transform", norm="vocab_layer_norm", decoder="vocab_projector", bias="vocab_projector.bias"
    ),
    common_names=(
        (r"^transformer\.layer\.", "encoder.layer."),
        (r"\.attention\.q_lin\.", ".attention.self.query."),
        (r"\.attention\.k_lin\.", ".attention.self.key."),
        (r"\.attention\.v_lin\.", ".attention.self.value."),
        (r"\.attention\.out_lin\.", ".attention.output.dense."),
        (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
        (r"\.ffn\.lin1\.", ".intermediate.dense."),
        (r"\.ffn\.lin2\.", ".output.dense."),
        (r"\.output_layer_norm\.", ".output.LayerNorm."),
    ),
)
