"""MobileBERT and IB-BERT → a plan, whatever the variant.

All NoNorms fold into the linear layers and tables around them. Then the shared bottleneck, the query, key and value of
a layer and the layer's input are all affine in the stream (512 to 4 × 128 in the published model).
`layer_norm` stays a step.
"""

from __future__ import annotations

import numpy as np

from pocketbert.families.mobilebert import MobileBertConfig
from pocketbert.runtime.lowering.builder import Affine, Array, Builder, composed, scaled, stacked, widened
from pocketbert.runtime.plan import Columns, Index

TORCH_EPS = 1e-5  # of two of the norms under "layer_norm", as published


def lower_encoder(build: Builder, config: MobileBertConfig) -> Columns:
    """Add the encoder's steps, whatever the variant; returns the columns of the hidden states."""
    folds = config.normalization_type == "no_norm"
    width, true = config.hidden_size, config.true_hidden_size
    hidden = _lower_embeddings(build, config, folds)

    def scale_of(name: str, n: int) -> tuple[Array, Array]:
        """Of the NoNorm `name`: weight and bias."""
        return build.tensor(f"{name}.LayerNorm.weight", n), build.tensor(f"{name}.LayerNorm.bias", n)

    def joined(name: str, source: Columns, target: Columns, residual: Columns, at: str, eps: float) -> None:
        """Join: target = norm(dense(source) + residual), with the norm under `at`."""
        weight, bias = build.dense(name, target.width, source.width)
        if folds:
            by, offset = scale_of(at, target.width)
            build.linear(
                source, target, name, scaled(weight, by), by * bias + offset, residual=residual, residual_scale=by
            )
        else:
            build.linear(source, target, name, weight, bias, residual=residual)
            build.norm(target, target, f"{at}.LayerNorm", eps)

    def narrowed(name: str) -> Affine:
        """The bottleneck `name` as one affine map, where its norm folds."""
        weight, bias = build.dense(f"{name}.dense", true, width)
        by, offset = scale_of(name, true)
        return scaled(weight, by), by * bias + offset

    x, inner = Columns("x", true) if config.use_bottleneck else hidden, Columns("inner", config.intermediate_size)
    shared = Columns("shared", true)
    q, k, v = (Columns("qkv", true, i * true) for i in range(3))
    context = Columns("context", true)
    eps, factor = config.layer_norm_eps, (true // config.num_attention_heads) ** -0.5
    bottleneck_attention = config.use_bottleneck and config.use_bottleneck_attention
    shares = config.use_bottleneck and config.key_query_shared_bottleneck and not bottleneck_attention
    for i in range(config.num_hidden_layers):
        at = f"encoder.layer.{i}."
        into = true if bottleneck_attention or shares else width
        query, key = (build.dense(f"{at}attention.self.{part}", true, into) for part in ("query", "key"))
        query = scaled(query[0], factor), query[1] * factor
        value_width = true if config.use_bottleneck_attention else width
        value = build.dense(f"{at}attention.self.value", true, value_width)
        if config.use_bottleneck and folds:
            # All four are affine in the stream: two steps, because the engine keeps what only attention reads in bf16.
            entry = narrowed(f"{at}bottleneck.input")
            read = narrowed(f"{at}bottleneck.attention") if shares else entry if bottleneck_attention else None
            maps = [
                entry,
                query if read is None else composed(query, read),
                key if read is None else composed(key, read),
                composed(value, entry) if bottleneck_attention else value,
            ]
            weights, biases = zip(*maps, strict=True)
            build.linear(hidden, x, f"{at}x", weights[0], biases[0])
            build.linear(
                hidden, Columns("qkv", 3 * true), f"{at}qkv", stacked(list(weights[1:])), np.concatenate(biases[1:])
            )
        else:
            reads = hidden
            if config.use_bottleneck:
                name = f"{at}bottleneck.input"
                build.linear(hidden, x, f"{name}.dense", *build.dense(f"{name}.dense", true, width))
                build.norm(x, x, f"{name}.LayerNorm", eps)
                if shares:
                    name, reads = f"{at}bottleneck.attention", shared
                    build.linear(hidden, shared, f"{name}.dense", *build.dense(f"{name}.dense", true, width))
                    build.norm(shared, shared, f"{name}.LayerNorm", eps)
                elif bottleneck_attention:
                    reads = x
            build.linear(reads, q, f"{at}attention.self.query", *query)
            build.linear(reads, k, f"{at}attention.self.key", *key)
            build.linear(x if bottleneck_attention else hidden, v, f"{at}attention.self.value", *value)
        build.attention(q, k, v, context, config.num_attention_heads)
        joined(f"{at}attention.output.dense", context, x, x, f"{at}attention.output", eps)
        networks = [(f"{at}ffn.{j}.", eps) for j in range(config.num_feedforward_networks - 1)] + [(at, TORCH_EPS)]
        for network, network_eps in networks:
            name = f"{network}intermediate.dense"
            build.linear(x, inner, name, *build.dense(name, inner.width, true), activation=config.hidden_act)
            joined(f"{network}output.dense", inner, x, x, f"{network}output", network_eps)
        if config.use_bottleneck:
            name = f"{at}output.bottleneck"
            joined(f"{name}.dense", x, hidden, hidden, name, eps)
    return hidden


def _lower_embeddings(build: Builder, config: MobileBertConfig, folds: bool) -> Columns:
    hidden = Columns("hidden", config.hidden_size)
    width, narrow = config.hidden_size, config.embedding_size
    by: Array = np.ones(width)
    offset: Array = np.zeros(width)
    if folds:
        by, offset = (
            build.tensor("embeddings.LayerNorm.weight", width),
            build.tensor("embeddings.LayerNorm.bias", width),
        )
    table = "embeddings.word_embeddings.weight"
    words = build.matrix(table, config.vocab_size, narrow)
    positions = build.tensor("embeddings.position_embeddings.weight", config.max_position_embeddings, width) * by
    segments = build.tensor("embeddings.token_type_embeddings.weight", config.type_vocab_size, width) * by
    indices: tuple[Index, ...] = ("next word", "word", "previous word") if config.trigram_input else ("word",)
    widens = config.trigram_input or narrow != width
    build.lookup(hidden, "embeddings.positions", positions, "position")
    build.lookup(hidden, "embeddings.segments", segments + offset, "segment", add=True)
    if widens:
        for i, index in enumerate(indices):
            build.lookup(Columns("words", narrow, i * narrow), table, words, index)
        source = Columns("words", len(indices) * narrow)
        weight, bias = build.dense("embeddings.embedding_transformation", width, source.width)
        name = "embeddings.embedding_transformation"
        build.linear(source, hidden, name, scaled(weight, by), by * bias, residual=hidden)
    elif folds:
        build.lookup(hidden, "embeddings.words", widened(words) * by, "word", add=True)
    else:
        build.lookup(hidden, table, words, "word", add=True)
    if not folds:
        build.norm(hidden, hidden, "embeddings.LayerNorm", TORCH_EPS)
    return hidden
