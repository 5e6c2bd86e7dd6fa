"""Small SqueezeBERTs."""

from typing import Any

from helpers.configs import VOCABULARY
from pocketbert import SqueezeBertConfig

_small: dict[str, Any] = {
    "vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "hidden_size": 24, "embedding_size": 24, "num_attention_heads": 3,
}  # fmt: skip

CONFIGS = {
    "squeezebert": SqueezeBertConfig(
        **(_small | {"hidden_size": 32, "embedding_size": 32, "num_attention_heads": 4}), intermediate_size=64
    ),
    "squeezebert, a different group everywhere": SqueezeBertConfig(
        **_small, intermediate_size=48, q_groups=2, k_groups=3, v_groups=1, post_attention_groups=4,
        intermediate_groups=6, output_groups=8,
    ),
    "squeezebert, no groups, other eps": SqueezeBertConfig(
        **_small, intermediate_size=50, q_groups=1, k_groups=1, v_groups=1, intermediate_groups=1, output_groups=1,
        layer_norm_eps=1e-3, hidden_act="gelu_new",
    ),
    "squeezebert, a group a channel": SqueezeBertConfig(
        **_small, intermediate_size=72, q_groups=24, k_groups=12, v_groups=8, intermediate_groups=24, output_groups=24
    ),
}  # fmt: skip
