"""DistilBERT → a plan: BERT's steps under other names, without segments."""

from __future__ import annotations

from pocketbert.families.distilbert import DistilBertConfig
from pocketbert.runtime.lowering.bert import LayerNames, lower_embeddings, lower_layers
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.plan import Columns

_NAMES = LayerNames(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
)


def lower_encoder(build: Builder, config: DistilBertConfig) -> Columns:
    """Add the encoder's steps; returns the columns of the hidden states."""
    hidden = lower_embeddings(build, config)
    lower_layers(build, config, hidden, _NAMES)
    return hidden
