"""SqueezeBERT → a plan: its grouped convolutions are block-diagonal linear steps."""

from __future__ import annotations

from pocketbert.families.squeezebert import SqueezeBertConfig
from pocketbert.runtime.lowering.bert import lower_embeddings
from pocketbert.runtime.lowering.builder import Builder, scaled
from pocketbert.runtime.plan import Columns


def lower_encoder(build: Builder, config: SqueezeBertConfig) -> Columns:
    """Add the encoder's steps; returns the columns of the hidden states."""
    hidden = lower_embeddings(build, config)
    width, inner = config.hidden_size, Columns("inner", config.intermediate_size)
    context = Columns("context", width)
    parts = {name: Columns("qkv", width, i * width) for i, name in enumerate(("query", "key", "value"))}
    groups = {"query": config.q_groups, "key": config.k_groups, "value": config.v_groups}
    scale = (width // config.num_attention_heads) ** -0.5
    for i in range(config.num_hidden_layers):
        at = f"encoder.layers.{i}."
        for part, target in parts.items():
            factor = scale if part == "query" else 1.0
            weight, bias = build.dense(f"{at}attention.{part}", width, width // groups[part], 1)
            weight, bias = scaled(weight, factor), bias * factor
            build.linear(hidden, target, f"{at}attention.{part}", weight, bias, groups=groups[part])
        build.attention(parts["query"], parts["key"], parts["value"], context, config.num_attention_heads)

        def product(
            name: str, source: Columns, target: Columns, groups: int, activation: str | None = None,
            residual: Columns | None = None,
        ) -> None:  # fmt: skip
            dense = build.dense(f"{name}.conv1d", target.width, source.width // groups, 1)
            build.linear(
                source, target, f"{name}.conv1d", *dense, groups=groups, activation=activation, residual=residual
            )

        product(f"{at}post_attention", context, hidden, config.post_attention_groups, residual=hidden)
        build.norm(hidden, hidden, f"{at}post_attention.layernorm", 1e-12)
        product(f"{at}intermediate", hidden, inner, config.intermediate_groups, activation=config.hidden_act)
        product(f"{at}output", inner, hidden, config.output_groups, residual=hidden)
        build.norm(hidden, hidden, f"{at}output.layernorm", 1e-12)
    return hidden
