"""MPNet (Song et al. 2020, https://arxiv.org/abs/2004.09297): configuration and description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pocketbert.families.family import Family
from pocketbert.families.roberta import ROBERTA_HEADS, ROBERTA_WORDS, PositionsAfterPadding

BUCKETS = 32  # of distances between tokens: the published code computes with no other number
_PAD = 1  # fixed there as well


@dataclass(frozen=True, kw_only=True)
class MPNetConfig(PositionsAfterPadding):
    """MPNet (Song et al. 2020): BERT's pieces and layers, a bias of attention by distance, no segments."""

    model_type: ClassVar[str] = "mpnet"

    vocab_size: int = 30527
    relative_attention_num_buckets: int = BUCKETS

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("pad_token_id", self.pad_token_id == _PAD, f"must be {_PAD}, as published")
        buckets = self.relative_attention_num_buckets
        self._check("relative_attention_num_buckets", buckets == BUCKETS, f"must be {BUCKETS}, as published")


FAMILY = Family(
    model_type="mpnet",
    name="MPNet",
    config_class=MPNetConfig,
    presets={"mpnet-base": MPNetConfig(max_position_embeddings=514, layer_norm_eps=1e-5)},
    prefix="mpnet",
    models="pocketbert.models.mpnet",
    lowering="pocketbert.runtime.lowering.mpnet",
    tokenizer="pocketbert.tokenization.MPNetTokenizer",
    embeddings=("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"),
    heads=ROBERTA_HEADS,
    first_token=("ForSequenceClassification",),
    words=ROBERTA_WORDS,
    common_names=(
        (r"\.attention\.attn\.q\.", ".attention.self.query."),
        (r"\.attention\.attn\.k\.", ".attention.self.key."),
        (r"\.attention\.attn\.v\.", ".attention.self.value."),
        (r"\.attention\.attn\.o\.", ".attention.output.dense."),
        (r"\.attention\.LayerNorm\.", ".attention.output.LayerNorm."),
    ),
)
