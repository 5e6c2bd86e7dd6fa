"""The heads → the last steps of a plan: a `Family` has the names of their layers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pocketbert.errors import CheckpointError
from pocketbert.families.config import NORMAL_EPS, PreTrainedConfig
from pocketbert.families.family import HEADS
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.plan import Columns, LayerNorm, Linear

Output = tuple[str, Columns | tuple[Columns, int]]


def lower_head(build: Builder, config: PreTrainedConfig, hidden: Columns) -> Iterator[Output]:
    """Add the steps of the builder's head; returns the outputs of the plan by name."""
    family, head = build.family, build.head
    if head not in family.heads:
        raise CheckpointError(f"cannot be run as a {family.class_name(head)}: this family has no such head")
    kind = HEADS[head]
    if head == "Model":
        yield kind.outputs[0], hidden
        if _has_pooled_output(build, config):
            yield kind.outputs[1], _pool(build, config, hidden)
        return
    names = kind.outputs[1:] if kind.words else kind.outputs  # the first output of a word head is its word scores
    if names:
        source = _classifier_input(build, config, hidden) if kind.pooled else hidden
        scores = Columns("scores", config.num_labels if kind.scores is None else kind.scores)
        _apply_layers(build, config, source, scores)
    if kind.words:
        yield kind.outputs[0], _score_words(build, config, hidden)
    if len(names) == 1:
        yield names[0], scores
    else:
        yield from ((name, (scores, i)) for i, name in enumerate(names))


def _apply_layers(build: Builder, config: PreTrainedConfig, source: Columns, scores: Columns) -> None:
    layers = config.head_layers(build.head)
    for layer in layers:
        target = scores if layer is layers[-1] else Columns(layer.name, config.hidden_size)
        weights = build.dense(layer.name, target.width, source.width)
        build.linear(source, target, layer.name, *weights, activation=layer.activation)
        source = target


def _has_pooled_output(build: Builder, config: PreTrainedConfig) -> bool:
    """Whether the encoder alone has a pooled output: not if it needs a layer that the checkpoint lacks."""
    pooler = build.family.pooler
    return pooler is not None and (not config.has_pooler_layer or build.has(f"{pooler.name}.weight"))


def _classifier_input(build: Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    """What a head of texts reads: the pooler's output, or what the configuration declares in its place."""
    reads = config.classifier_input if build.head == "ForSequenceClassification" else None
    if reads is None:
        return _pool(build, config, hidden)
    first = Columns("first", hidden.width)
    build.gather(_average(build, config, hidden) if reads.endswith("mean") else hidden, first)
    if not reads.startswith("normalized"):
        return first
    normal = Columns("normal", hidden.width)
    one, zero = build.keep("normal.one", np.ones(hidden.width)), build.keep("normal.zero", np.zeros(hidden.width))
    build.steps.append(LayerNorm(first, normal, one, zero, NORMAL_EPS))
    return normal


def _average(build: Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    """The mean over the tokens, at each of them: attention with scores of 0, which all engines and formats can do."""
    nothing, average = Columns("nothing", hidden.width), Columns("average", hidden.width)
    zeros = build.keep("average.zeros", np.zeros(hidden.width))
    build.steps.append(LayerNorm(hidden, nothing, zeros, zeros, 1.0))
    build.attention(nothing, nothing, hidden, average, math.gcd(hidden.width, config.num_attention_heads))
    return average


def _pool(build: Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    pooler, first, pooled = build.family.pooler, Columns("first", hidden.width), Columns("pooled", hidden.width)
    build.gather(hidden, first)
    if pooler is None or not config.has_pooler_layer or build.head in build.family.first_token:
        return first
    dense = build.dense(pooler.name, hidden.width, hidden.width)
    build.linear(first, pooled, pooler.name, *dense, activation=pooler.activation)
    return pooled


def _score_words(build: Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    family, words, narrow = build.family, build.family.words, config.embedding_size
    assert words is not None
    width = narrow if words.rest is None else hidden.width
    selected, transformed = Columns("selected", hidden.width), Columns("transformed", width)
    logits = Columns("logits", config.vocab_size)
    build.gather(hidden, selected, selected=True)
    dense = build.dense(words.transform, width, hidden.width)
    build.linear(selected, transformed, words.transform, *dense, activation=words.activation or config.hidden_act)
    build.norm(transformed, transformed, words.norm, config.layer_norm_eps)
    tied = config.tie_word_embeddings
    table = family.word_table if tied else f"{words.decoder}.weight"
    if table in build.tensors:  # as the embeddings look it up
        scales = f"{table}.scales" if f"{table}.scales" in build.tensors else None
    else:
        _, scales = build.keep_matrix(table, build.matrix(table, config.vocab_size, narrow))
    untied = f"{words.decoder}.bias"
    bias = build.tensor(untied if not tied and build.has(untied) else words.bias, config.vocab_size)
    source = Columns("transformed", narrow)
    build.steps.append(Linear(source, logits, table, build.keep(words.bias, bias), scales))
    if words.rest is not None and narrow < width:
        source = Columns("transformed", width - narrow, narrow)
        rest = build.matrix(f"{words.rest}.weight", config.vocab_size, width - narrow, transposed=True)
        build.linear(source, logits, words.rest, rest, np.zeros(config.vocab_size), residual=logits)
    return logits
