"""SqueezeBERT (Iandola et al. 2020, https://arxiv.org/abs/2006.11316): configuration and description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pocketbert.families.bert import BERT_HEADS, BertFields
from pocketbert.families.family import Family


@dataclass(frozen=True, kw_only=True)
class SqueezeBertConfig(BertFields):
    """SqueezeBERT (Iandola et al. 2020): BERT with grouped convolutions of kernel 1 for its linear layers.

    `layer_norm_eps` is that of the embeddings and the MLM head; inside the layers it is fixed at 1e-12, as published.
    """

    model_type: ClassVar[str] = "squeezebert"

    bos_token_id: int | None = None
    eos_token_id: int | None = None
    embedding_size: int = 768
    q_groups: int = 4
    k_groups: int = 4
    v_groups: int = 4
    post_attention_groups: int = 1
    intermediate_groups: int = 4
    output_groups: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            "embedding_size",
            self.embedding_size == self.hidden_size,
            f"must equal hidden_size={self.hidden_size}",
        )
        for groups in (
            "q_groups",
            "k_groups",
            "v_groups",
            "post_attention_groups",
            "intermediate_groups",
            "output_groups",
        ):
            self._check_divides(groups, "hidden_size")
        for groups in ("intermediate_groups", "output_groups"):
            self._check_divides(groups, "intermediate_size")

    @property
    def details(self) -> list[str]:
        """The groups of each convolution."""
        names = ("q", "k", "v", "post_attention", "intermediate", "output")
        groups = " ".join(f"{name.replace('_', '-')} {getattr(self, f'{name}_groups')}" for name in names)
        return [f"groups {groups}"]


_PADDED = 30528  # words: 30522, padded to a multiple of 8

FAMILY = Family(
    model_type="squeezebert",
    name="SqueezeBert",
    config_class=SqueezeBertConfig,
    presets={
        "squeezebert-uncased": SqueezeBertConfig(vocab_size=_PADDED),
        "squeezebert-mnli": SqueezeBertConfig(vocab_size=_PADDED, num_labels=3),
        "squeezebert-mnli-headless": SqueezeBertConfig(vocab_size=_PADDED),
    },
    prefix="transformer",
    models="pocketbert.models.squeezebert",
    lowering="pocketbert.runtime.lowering.squeezebert",
    tensorflow="pocketbert.tf.squeezebert",
    tokenizer="pocketbert.tokenization.SqueezeBertTokenizer",
    layers="encoder.layers",
    always_pools=True,
    heads={head: layers for head, layers in BERT_HEADS.items() if head != "ForNextSentencePrediction"},
    # A grouped convolution computes the blocks on the diagonal of a linear layer: each has its name in BERT.
    common_names=(
        (r"^encoder\.layers\.", "encoder.layer."),
        (r"\.attention\.(query|key|value)\.", r".attention.self.\1."),
        (r"\.post_attention\.conv1d\.", ".attention.output.dense."),
        (r"\.post_attention\.layernorm\.", ".attention.output.LayerNorm."),
        (r"\.conv1d\.", ".dense."),
        (r"\.layernorm\.", ".LayerNorm."),
    ),
    benchmark=("SqueezeBERT", "squeezebert-uncased"),
    graph_forms=("split", "batched"),
)
