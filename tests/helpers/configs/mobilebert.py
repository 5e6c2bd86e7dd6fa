"""Small MobileBERTs, and one in the form of IB-BERT."""

from typing import Any

from helpers.configs import VOCABULARY
from pocketbert import MobileBertConfig

_small: dict[str, Any] = {
    "vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "hidden_size": 64, "embedding_size": 32, "intermediate_size": 37,
}  # fmt: skip

CONFIGS = {
    "mobilebert": MobileBertConfig(**_small, intra_bottleneck_size=16),
    "mobilebert, layer_norm, raw pooler": MobileBertConfig(
        **_small, intra_bottleneck_size=16, normalization_type="layer_norm", classifier_activation=False,
        layer_norm_eps=1e-3, classifier_dropout=0.0,
    ),
    "mobilebert, no bottleneck, no trigram": MobileBertConfig(
        **_small, use_bottleneck=False, trigram_input=False, num_feedforward_networks=1,
        normalization_type="layer_norm",
    ),
    "mobilebert, no bottleneck, as wide as its embeddings": MobileBertConfig(
        **(_small | {"embedding_size": 64}), use_bottleneck=False, trigram_input=False, hidden_act="silu"
    ),
    "mobilebert, tiny F-2": MobileBertConfig(
        **_small, intra_bottleneck_size=16, use_bottleneck_attention=True, key_query_shared_bottleneck=False,
        num_feedforward_networks=2,
    ),
    "mobilebert, bottleneck attention with an unused shared one": MobileBertConfig(
        **_small, intra_bottleneck_size=24, use_bottleneck_attention=True
    ),
    "mobilebert, wide queries": MobileBertConfig(  # the one width at which transformers runs IB-BERT's structure
        **_small, intra_bottleneck_size=64, key_query_shared_bottleneck=False
    ),
}  # fmt: skip
