"""BERT → a plan: query, key and value of a layer become one linear step, the scale of attention among its weights."""

from __future__ import annotations

from pocketbert.families.bert import BertConfig, BertFields
from pocketbert.runtime.lowering.builder import Builder, scaled
from pocketbert.runtime.plan import Columns, Index


def lower_encoder(build: Builder, config: BertConfig) -> Columns:
    """Add the encoder's steps; returns the columns of the hidden states."""
    width, inner = config.hidden_size, Columns("inner", config.intermediate_size)
    hidden = lower_embeddings(build, config)
    qkv, context = Columns("qkv", 3 * width), Columns("context", width)
    query, key, value = (Columns("qkv", width, i * width) for i in range(3))
    scale = (width // config.num_attention_heads) ** -0.5
    for i in range(config.num_hidden_layers):
        at = f"encoder.layer.{i}."
        names = [f"{at}attention.self.{part}" for part in ("query", "key", "value")]
        parts = {name: build.dense(name, width, width) for name in names}
        weight, bias = parts[names[0]]
        parts[names[0]] = scaled(weight, scale), bias * scale
        build.stacked_linear(hidden, qkv, f"{at}qkv", parts)
        build.attention(query, key, value, context, config.num_attention_heads)
        name = f"{at}attention.output"
        build.linear(context, hidden, f"{name}.dense", *build.dense(f"{name}.dense", width, width), residual=hidden)
        build.norm(hidden, hidden, f"{name}.LayerNorm", config.layer_norm_eps)
        name = f"{at}intermediate.dense"
        build.linear(hidden, inner, name, *build.dense(name, inner.width, width), activation=config.hidden_act)
        name = f"{at}output"
        build.linear(inner, hidden, f"{name}.dense", *build.dense(f"{name}.dense", width, inner.width), residual=hidden)
        build.norm(hidden, hidden, f"{name}.LayerNorm", config.layer_norm_eps)
    return hidden


def lower_embeddings(build: Builder, config: BertFields) -> Columns:
    """Word + position + segment, normalised: SqueezeBERT's are the same."""
    hidden = Columns("hidden", config.hidden_size)
    sizes: tuple[tuple[str, Index, int], ...] = (
        ("word", "word", config.vocab_size),
        ("position", "position", config.max_position_embeddings),
        ("token_type", "segment", config.type_vocab_size),
    )
    for name, index, rows in sizes:
        table = f"embeddings.{name}_embeddings.weight"
        build.lookup(hidden, table, build.matrix(table, rows, hidden.width), index, add=index != "word")
    build.norm(hidden, hidden, "embeddings.LayerNorm", config.layer_norm_eps)
    return hidden
