"""MobileBERT (Sun et al. 2020, https://arxiv.org/abs/2004.02984) and IB-BERT: configuration and description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pocketbert.families.bert import BERT_HEADS, GOOGLE_DEFAULTS, BertFields
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Family, WordScores
from pocketbert.families.original import NameTable, OriginalFormat, Rule, bert_rules, dense_rules, norm_rules


@dataclass(frozen=True, kw_only=True)
class MobileBertConfig(BertFields):
    """MobileBERT (Sun et al. 2020), and IB-BERT, its teacher.

    Query and key have the width of their input, so that IB-BERT (512 between the blocks, 1024 inside, no shared
    bottleneck) runs; transformers builds them for the inner width and fails on such a model.
    """

    model_type: ClassVar[str] = "mobilebert"
    derived_keys: ClassVar[frozenset[str]] = PreTrainedConfig.derived_keys | {"true_hidden_size"}

    hidden_size: int = 512
    num_hidden_layers: int = 24
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "relu"
    hidden_dropout_prob: float = 0.0
    embedding_size: int = 128
    trigram_input: bool = True
    use_bottleneck: bool = True
    intra_bottleneck_size: int = 128
    use_bottleneck_attention: bool = False
    key_query_shared_bottleneck: bool = True
    num_feedforward_networks: int = 4
    normalization_type: str = "no_norm"
    classifier_activation: bool = True
    classifier_dropout: float | None = None
    #: A field of PocketBERT: with True, padding cannot leak into the last token through the trigram. The published
    #: weights were trained with the leak, hence False.
    mask_aware_trigram: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("embedding_size", "intra_bottleneck_size", "num_feedforward_networks"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        self._check(
            "normalization_type",
            self.normalization_type in ("no_norm", "layer_norm"),
            "must be no_norm or layer_norm",
        )
        # The MLM head stacks the word embeddings on a matrix of the remaining hidden_size - embedding_size rows.
        self._check(
            "embedding_size",
            self.embedding_size <= self.hidden_size,
            f"must not exceed hidden_size={self.hidden_size}",
        )

    @property
    def has_pooler_layer(self) -> bool:
        """Whether the pooler is a layer: `classifier_activation`."""
        return self.classifier_activation

    @property
    def reads_padding(self) -> bool:
        """The trigram of the last token reads the padding beside it, unless it is mask-aware."""
        return self.trigram_input and not self.mask_aware_trigram

    @property
    def details(self) -> list[str]:
        """The bottleneck, if there is one."""
        if not self.use_bottleneck:
            return []
        return [
            f"bottleneck {self.intra_bottleneck_size}",
            f"{self.num_feedforward_networks} feed-forward networks each",
        ]

    @property
    def true_hidden_size(self) -> int:
        """Width inside a layer: that of the bottleneck, if there is one."""
        return self.intra_bottleneck_size if self.use_bottleneck else self.hidden_size

    @property
    def attention_width_field(self) -> str:
        """Name of the field that the attention heads share out."""
        return "intra_bottleneck_size" if self.use_bottleneck else "hidden_size"

    def to_dict(self) -> dict[str, Any]:
        """The object that `config.json` holds, `true_hidden_size` included."""
        return {**super().to_dict(), "true_hidden_size": self.true_hidden_size}


_PUBLISHED = MobileBertConfig(classifier_activation=False)  # as in the published file; the class default is True


def _rules(norm: str) -> tuple[Rule, ...]:
    """The names in TensorFlow, where `norm` is the name of a norm."""
    layer, official = "bert/encoder/layer_{n}", "mobilebert.encoder.layer.{n}"
    rules = [
        *dense_rules("bert/embeddings/embedding_transformation", "mobilebert.embeddings.embedding_transformation"),
        Rule("cls/predictions/extra_output_weights", "cls.predictions.dense.weight", True),
    ]
    for tensorflow, name in (
        ("bottleneck/input", "bottleneck.input"),
        ("bottleneck/attention", "bottleneck.attention"),
        ("output/bottleneck", "output.bottleneck"),
        ("ffn_layer_{i}/output", "ffn.{i}.output"),
    ):
        rules += dense_rules(f"{layer}/{tensorflow}/dense", f"{official}.{name}.dense")
        rules += norm_rules(f"{layer}/{tensorflow}/{norm}", f"{official}.{name}.LayerNorm")
    rules += dense_rules(f"{layer}/ffn_layer_{{i}}/intermediate/dense", f"{official}.ffn.{{i}}.intermediate.dense")
    return (*bert_rules("mobilebert", norm), *rules)


FAMILY = Family(
    model_type="mobilebert",
    name="MobileBert",
    config_class=MobileBertConfig,
    presets={
        "mobilebert-uncased": _PUBLISHED,
        "mobilebert-qat": _PUBLISHED.replace(hidden_act="relu6"),
        "mobilebert-tiny": _PUBLISHED.replace(
            use_bottleneck_attention=True, key_query_shared_bottleneck=False, num_feedforward_networks=2
        ),
        "ib-bert": MobileBertConfig(
            hidden_act="gelu",
            hidden_dropout_prob=0.1,
            intermediate_size=4096,
            intra_bottleneck_size=1024,
            key_query_shared_bottleneck=False,
            num_feedforward_networks=1,
            normalization_type="layer_norm",
        ),
    },
    prefix="mobilebert",
    models="pocketbert.models.mobilebert",
    lowering="pocketbert.runtime.lowering.mobilebert",
    tensorflow="pocketbert.tf.mobilebert",
    tokenizer="pocketbert.tokenization.MobileBertTokenizer",
    public=("MobileBertForPreTrainingOutput",),
    heads=BERT_HEADS,
    words=WordScores(rest="cls.predictions.dense"),
    refit="pocketbert.training.refit.bottlenecks.refit_bottlenecks",
    idle=(r"embeddings\.embedding_transformation\.", r"encoder\.layer\.\d+\.bottleneck\.attention\."),
    original=OriginalFormat(
        config_file="mobilebert_config.json",
        config_keys=frozenset({"use_bottleneck", "trigram_input", "normalization_type", "num_feedforward_networks"}),
        config_defaults={
            **GOOGLE_DEFAULTS,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "trigram_input": False,
            "use_bottleneck": False,
            "use_bottleneck_attention": False,
            "key_query_shared_bottleneck": False,
            "num_feedforward_networks": 1,
            "normalization_type": "layer_norm",
            "classifier_activation": True,
        },
        config_copies={"embedding_size": "hidden_size", "intra_bottleneck_size": "hidden_size"},
        tables=(  # Google's norm without statistics is a FakeLayerNorm
            NameTable("mobilebert", _rules("FakeLayerNorm"), "/FakeLayerNorm/"),
            NameTable(
                "mobilebert with layer_norm",
                _rules("LayerNorm"),
                "/bottleneck/|/ffn_layer_|/embedding_transformation/|extra_output_weights",
            ),
        ),
    ),
    benchmark=("MobileBERT", "mobilebert-uncased"),
)
