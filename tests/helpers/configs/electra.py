"""Small ELECTRAs: one with narrow embeddings as the small ones, one without as the large."""

from typing import Any

from helpers.configs import VOCABULARY
from pocketbert import ElectraConfig

_small: dict[str, Any] = {
    "vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "summary_last_dropout": 0.0,
    "hidden_size": 36, "num_attention_heads": 4, "intermediate_size": 50,
}  # fmt: skip

CONFIGS = {
    "electra": ElectraConfig(embedding_size=20, **_small),
    "electra, wide embeddings, relu": ElectraConfig(embedding_size=36, hidden_act="relu", **_small),
}
