"""ELECTRA → a plan: BERT's steps, after a linear step that widens the embeddings."""

from __future__ import annotations

from pocketbert.families.electra import ElectraConfig
from pocketbert.runtime.lowering.bert import lower_embeddings, lower_layers
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.plan import Columns


def lower_encoder(build: Builder, config: ElectraConfig) -> Columns:
    """Add the encoder's steps; returns the columns of the hidden states."""
    hidden, narrow, name = Columns("hidden", config.hidden_size), config.embedding_size, "embeddings_project"
    if narrow == hidden.width:
        lower_embeddings(build, config)
    else:
        embedded = lower_embeddings(build, config, "embedded")
        build.linear(embedded, hidden, name, *build.dense(name, hidden.width, narrow))
    lower_layers(build, config, hidden)
    return hidden
