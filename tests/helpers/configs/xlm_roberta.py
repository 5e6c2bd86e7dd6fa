"""A small XLM-RoBERTa."""

from helpers.configs import VOCABULARY
from pocketbert import XLMRobertaConfig

CONFIGS = {
    "xlm-roberta": XLMRobertaConfig(
        vocab_size=VOCABULARY, num_hidden_layers=2, max_position_embeddings=42, hidden_size=32, num_attention_heads=4,
        intermediate_size=48, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ),
}  # fmt: skip
