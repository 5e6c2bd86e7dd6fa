"""Small models."""

from typing import Any

from pocketbert.configs import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig

# Wide enough for int8 to be worth it; heads of 18, the root of which is no power of two.
_wide: dict[str, Any] = {"vocab_size": 99, "hidden_size": 72, "num_attention_heads": 4, "num_hidden_layers": 2,
         "intermediate_size": 288, "max_position_embeddings": 40}  # fmt: skip
WIDE: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**_wide),
    "squeezebert": SqueezeBertConfig(
        **_wide, embedding_size=72, q_groups=1, k_groups=1, v_groups=1, intermediate_groups=2, output_groups=4
    ),
    "mobilebert": MobileBertConfig(**_wide, embedding_size=64, intra_bottleneck_size=64),
    "mobilebert, layer_norm": MobileBertConfig(
        **_wide, embedding_size=64, intra_bottleneck_size=64, normalization_type="layer_norm"
    ),
    "mobilebert, no bottleneck": MobileBertConfig(**_wide, embedding_size=64, use_bottleneck=False),
}
