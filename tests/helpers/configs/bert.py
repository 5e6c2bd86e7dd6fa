"""Small BERTs."""

from typing import Any

from helpers.configs import VOCABULARY
from pocketbert import BertConfig

_small: dict[str, Any] = {
    "vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip

CONFIGS = {
    "bert": BertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48, **_small),
    "bert, relu6, 3 segments": BertConfig(
        hidden_size=20, num_attention_heads=5, intermediate_size=33, hidden_act="relu6", type_vocab_size=3, **_small
    ),
}  # fmt: skip
