"""A small DistilBERT."""

from helpers.configs import VOCABULARY
from pocketbert import DistilBertConfig

CONFIGS = {
    "distilbert": DistilBertConfig(
        vocab_size=VOCABULARY, n_layers=2, max_position_embeddings=40, dim=36, n_heads=4, hidden_dim=50,
        dropout=0.0, attention_dropout=0.0, qa_dropout=0.0, seq_classif_dropout=0.0,
    ),
}  # fmt: skip
