"""The heads → the last steps of a plan."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import CheckpointError
from pocketbert.runtime.lowering.builder import Builder
from pocketbert.runtime.plan import Columns, Linear

Output = tuple[str, Columns | tuple[Columns, int]]


def lower_head(build: Builder, config: PreTrainedConfig, head: str, hidden: Columns) -> Iterator[Output]:
    """Add the steps of a head; returns the outputs of the plan by name."""
    width = config.hidden_size
    if head == "Model":
        yield "last_hidden_state", hidden
        if _has_pooler(build, config):
            yield "pooler_output", _pool(build, config, hidden)
    elif head in ("ForSequenceClassification", "ForMultipleChoice"):
        count = config.num_labels if head == "ForSequenceClassification" else 1
        logits = Columns("logits", count)
        build.linear(_pool(build, config, hidden), logits, "classifier", *build.dense("classifier", count, width))
        yield "logits", logits
    elif head == "ForNextSentencePrediction":
        yield "logits", _pair(build, config, hidden)
    elif head == "ForTokenClassification":
        logits = Columns("logits", config.num_labels)
        build.linear(hidden, logits, "classifier", *build.dense("classifier", config.num_labels, width))
        yield "logits", logits
    elif head == "ForQuestionAnswering":
        logits = Columns("logits", 2)
        build.linear(hidden, logits, "qa_outputs", *build.dense("qa_outputs", 2, width))
        yield "start_logits", (logits, 0)
        yield "end_logits", (logits, 1)
    elif head == "ForMaskedLM":
        yield "logits", _words(build, config, hidden)
    elif head == "ForPreTraining":
        pair = _pair(build, config, hidden)
        yield "logits", _words(build, config, hidden)  # not prediction_logits, which no loader of word heads looks for
        yield "seq_relationship_logits", pair
    else:
        raise CheckpointError(f"there is no plan for a head {head!r}")


def _has_pooler(build: Builder, config: PreTrainedConfig) -> bool:
    return not getattr(config, "classifier_activation", True) or "pooler.dense.weight" in build.names


def _pool(build: Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    first, pooled = Columns("first", hidden.width), Columns("pooled", hidden.width)
    build.gather(hidden, first)
    if not getattr(config, "classifier_activation", True):
        return first
    dense = build.dense("pooler.dense", hidden.width, hidden.width)
    build.linear(first, pooled, "pooler.dense", *dense, activation="tanh")
    return pooled


def _pair(build: Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    name, pair = "cls.seq_relationship", Columns("pair", 2)
    build.linear(_pool(build, config, hidden), pair, name, *build.dense(name, 2, hidden.width))
    return pair


def _words(build: Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    name, width = "cls.predictions.transform", config.hidden_size
    selected, transformed, logits = (
        Columns("selected", width),
        Columns("transformed", width),
        Columns("logits", config.vocab_size),
    )
    build.gather(hidden, selected, selected=True)
    dense = build.dense(f"{name}.dense", width, width)
    build.linear(selected, transformed, f"{name}.dense", *dense, activation=config.hidden_act)
    build.norm(transformed, transformed, f"{name}.LayerNorm", config.layer_norm_eps)
    narrow = getattr(config, "embedding_size", width)
    tied = config.tie_word_embeddings
    table = "embeddings.word_embeddings.weight" if tied else "cls.predictions.decoder.weight"
    if table in build.tensors:  # as it was looked up
        scales = f"{table}.scales" if f"{table}.scales" in build.tensors else None
    else:
        _, scales = build.keep_matrix(table, build.matrix(table, config.vocab_size, narrow))
    untied = "cls.predictions.decoder.bias"
    bias = build.tensor(untied if not tied and untied in build.names else "cls.predictions.bias", config.vocab_size)
    source = Columns("transformed", narrow)
    build.steps.append(Linear(source, logits, table, build.keep("cls.predictions.bias", bias), scales))
    if narrow < width:  # MobileBERT: a further matrix for what the embeddings are too narrow for
        source, name = Columns("transformed", width - narrow, narrow), "cls.predictions.dense"
        rest = build.matrix(f"{name}.weight", config.vocab_size, width - narrow, transposed=True)
        build.linear(source, logits, name, rest, np.zeros(config.vocab_size), residual=logits)
    return logits
