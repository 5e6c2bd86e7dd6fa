"""Pebble → a plan."""

from __future__ import annotations

from made_up.family import PebbleConfig
from pocketbert.runtime.lowering.builder import Builder, scaled
from pocketbert.runtime.plan import Columns


def lower_encoder(build: Builder, config: PebbleConfig) -> Columns:
    """Add the encoder's steps; returns the columns of the hidden states."""
    hidden, inner = Columns("hidden", config.dim), Columns("inner", config.wide_dim)
    words, places = "embeddings.words.weight", "embeddings.places.weight"
    build.lookup(hidden, words, build.matrix(words, config.vocab_size, config.dim), "word")
    table = build.matrix(places, config.max_position_embeddings, config.dim)
    build.lookup(hidden, places, table, "position", add=True)
    build.norm(hidden, hidden, "embeddings.norm", config.layer_norm_eps)
    qkv, context = Columns("qkv", 3 * config.dim), Columns("context", config.dim)
    query, key, value = (Columns("qkv", config.dim, i * config.dim) for i in range(3))
    for i in range(config.n_blocks):
        at = f"stack.blocks.{i}."
        up, down = (build.dense(f"{at}{name}", *sizes) for name, sizes in (
            ("up", (config.wide_dim, config.dim)), ("down", (config.dim, config.wide_dim))))  # fmt: skip
        build.linear(hidden, inner, f"{at}up", *up, activation=config.activation)
        build.linear(inner, hidden, f"{at}down", *down, residual=hidden)
        build.norm(hidden, hidden, f"{at}first_norm", config.layer_norm_eps)
        parts = {f"{at}qkv.{part}": build.dense(f"{at}qkv.{part}", config.dim, config.dim) for part in "qkv"}
        weight, bias = parts[f"{at}qkv.q"]
        scale = (config.dim // config.n_heads) ** -0.5
        parts[f"{at}qkv.q"] = scaled(weight, scale), bias * scale
        build.stacked_linear(hidden, qkv, f"{at}all", parts)
        build.attention(query, key, value, context, config.n_heads)
        build.linear(context, hidden, f"{at}out", *build.dense(f"{at}out", config.dim, config.dim), residual=hidden)
        build.norm(hidden, hidden, f"{at}second_norm", config.layer_norm_eps)
    return hidden
