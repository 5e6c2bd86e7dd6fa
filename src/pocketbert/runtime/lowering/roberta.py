"""RoBERTa, XLM-RoBERTa and CamemBERT → a plan: BERT's steps, positions that count from the padding."""

from __future__ import annotations

from pocketbert.families.roberta import PositionsAfterPadding
from pocketbert.runtime.lowering.bert import lower_embeddings, lower_layers
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.plan import Columns


def lower_encoder(build: Builder, config: PositionsAfterPadding) -> Columns:
    """Add the encoder's steps; returns the columns of the hidden states."""
    hidden = lower_embeddings(build, config, uncounted=config.pad_token_id)
    lower_layers(build, config, hidden)
    return hidden
