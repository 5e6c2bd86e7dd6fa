"""BERT → a plan: query, key and value of a layer become one linear step, the scale of attention among its weights."""

from __future__ import annotations

from dataclasses import dataclass

from pocketbert.families.bert import BertConfig
from pocketbert.families.config import PreTrainedConfig
from pocketbert.runtime.lowering.builder import Builder, scaled, widened
from pocketbert.runtime.plan import Columns, Index


@dataclass(frozen=True)
class LayerNames:
    """The names of the parts of a layer as BERT's, inside the layer; the defaults are BERT's own."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    intermediate: str = "intermediate.dense"
    output: str = "output.dense"
    output_norm: str = "output.LayerNorm"


def lower_encoder(build: Builder, config: BertConfig) -> Columns:
    """Add the encoder's steps; returns the columns of the hidden states."""
    hidden = lower_embeddings(build, config)
    lower_layers(build, config, hidden)
    return hidden


def lower_layers(
    build: Builder,
    config: PreTrainedConfig,
    hidden: Columns,
    names: LayerNames = LayerNames(),
    *,
    bias: str | None = None,
) -> None:
    """All layers of an encoder with BERT's layers, on the hidden states in place; `bias` as `plan.Attention` has it."""
    width, inner = config.hidden_size, Columns("inner", config.intermediate_size)
    qkv, context = Columns("qkv", 3 * width), Columns("context", width)
    query, key, value = (Columns("qkv", width, i * width) for i in range(3))
    scale = (width // config.num_attention_heads) ** -0.5
    for i in range(config.num_hidden_layers):
        at = f"{build.family.layers}.{i}."
        parts = {
            f"{at}{part}": build.dense(f"{at}{part}", width, width) for part in (names.query, names.key, names.value)
        }
        weight, offset = parts[f"{at}{names.query}"]
        parts[f"{at}{names.query}"] = scaled(weight, scale), offset * scale
        build.stacked_linear(hidden, qkv, f"{at}qkv", parts)
        build.attention(query, key, value, context, config.num_attention_heads, bias=bias)
        name = f"{at}{names.attention_output}"
        build.linear(context, hidden, name, *build.dense(name, width, width), residual=hidden)
        build.norm(hidden, hidden, f"{at}{names.attention_norm}", config.layer_norm_eps)
        name = f"{at}{names.intermediate}"
        build.linear(hidden, inner, name, *build.dense(name, inner.width, width), activation=config.hidden_act)
        name = f"{at}{names.output}"
        build.linear(inner, hidden, name, *build.dense(name, width, inner.width), residual=hidden)
        build.norm(hidden, hidden, f"{at}{names.output_norm}", config.layer_norm_eps)


def lower_embeddings(
    build: Builder, config: PreTrainedConfig, into: str = "hidden", *, uncounted: int | None = None
) -> Columns:
    """Word + position + segment, if there are segments, normalised; in the buffer `into`.

    With `uncounted`, the id of padding, the table of positions starts at its row: see `plan.Lookup`.
    """
    hidden = Columns(into, config.embedding_size)
    sizes: tuple[tuple[str, Index, int], ...] = (
        ("word", "word", config.vocab_size),
        ("position", "position", config.max_position_embeddings),
        ("token_type", "segment", config.type_vocab_size),
    )
    for name, index, rows in sizes:
        table = f"embeddings.{name}_embeddings.weight"
        if rows:
            values, skipped = build.matrix(table, rows, hidden.width), None
            if index == "position" and uncounted is not None:
                values, skipped = widened(values)[uncounted:], uncounted
            build.lookup(hidden, table, values, index, add=index != "word", uncounted=skipped)
    build.norm(hidden, hidden, "embeddings.LayerNorm", config.layer_norm_eps)
    return hidden
