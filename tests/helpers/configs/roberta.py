"""Small RoBERTas: positions count from the id of padding, whatever it is."""

from typing import Any

from helpers.configs import VOCABULARY
from pocketbert import RobertaConfig

_small: dict[str, Any] = {
    "vocab_size": VOCABULARY, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
    "intermediate_size": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip

CONFIGS = {
    "roberta": RobertaConfig(max_position_embeddings=42, **_small),
    "roberta, other padding": RobertaConfig(
        max_position_embeddings=47, pad_token_id=6, layer_norm_eps=1e-5, hidden_act="silu", **_small
    ),
}  # fmt: skip
