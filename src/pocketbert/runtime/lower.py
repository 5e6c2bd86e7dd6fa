"""From a configuration and tensors to a plan: one function an architecture, one table of heads.

What can be folded exactly is folded here, in float64: the scale of attention into the query's weights, and all of
MobileBERT's NoNorms into the linear layers and tables around them. Its shared bottleneck, the query, key and value of a
layer and the layer's input then collapse into one linear step (512 to 4 × 128 in the published model).

Matrices that the file holds in int8 stay in int8 where a fold only scales or stacks their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.configs import BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.errors import CheckpointError
from pocketbert.runtime.plan import Attention, Columns, Index, LayerNorm, Linear, Lookup, Pick, Plan, Rows, Stage, Step

Array = npt.NDArray[np.floating]
PREFIXES = {"bert": "bert.", "squeezebert": "transformer.", "mobilebert": "mobilebert."}
HEADS = ("cls.", "classifier.", "qa_outputs.", "pooler.")  # what a file of another task may lack
LOWERED = (
    "Model", "ForSequenceClassification", "ForMultipleChoice", "ForTokenClassification", "ForQuestionAnswering",
    "ForMaskedLM", "ForNextSentencePrediction", "ForPreTraining",
)  # fmt: skip
BALANCE = ".balance"  # behind the name of a norm: the factors that its features were divided by
TORCH_EPS = 1e-5  # of two of MobileBERT's norms under "layer_norm"


@dataclass(frozen=True)
class Int8:
    """A matrix whose row c is whole[c] · scales[c]."""

    whole: npt.NDArray[np.int8]
    scales: Array


Matrix = Array | Int8


def _scaled(matrix: Matrix, by: Array | float) -> Matrix:
    """The rows of `matrix`, each by its own factor or all by one."""
    if isinstance(matrix, Int8):
        return Int8(matrix.whole, matrix.scales * by)
    return np.multiply(matrix, np.asarray(by)[..., None], dtype=np.float64)


def _stacked(matrices: list[Matrix]) -> Matrix:
    if all(isinstance(matrix, Int8) for matrix in matrices):
        int8 = [matrix for matrix in matrices if isinstance(matrix, Int8)]
        return Int8(np.concatenate([m.whole for m in int8]), np.concatenate([m.scales for m in int8]))
    return np.concatenate([_floats(matrix) if isinstance(matrix, Int8) else matrix for matrix in matrices])


def _floats(matrix: Matrix) -> Array:
    """In float64, for products."""
    if isinstance(matrix, Int8):
        return np.multiply(matrix.whole, matrix.scales[:, None], dtype=np.float64)
    return matrix.astype(np.float64)


@dataclass
class _Builder:
    """Collects the stages and tensors of a plan; hands out the tensors of a checkpoint, checked.

    What it hands out it does not keep: a checkpoint may be read tensor by tensor.
    """

    found: Mapping[str, str]  # the names without the encoder's prefix → those of the checkpoint
    checkpoint: Mapping[str, np.ndarray]
    head: str
    stages: list[Stage] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def __call__(self, name: str, *shape: int) -> Array:
        """The tensor `name` in float64, which must have this shape, or one that squeezes to it."""
        tensor = self.take(name, shape)
        if tensor.dtype == np.int8:
            raise CheckpointError(f"is not a file of this model: it has {name} in int8")
        return tensor.astype(np.float64)

    def take(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
        """The same as it is."""
        self.need(name)
        tensor = self.checkpoint[self.found[name]]
        self.used.add(name)
        if tensor.size != np.prod(shape) or tensor.shape[: len(shape)] != shape:
            has = f"it has {name} of shape {list(tensor.shape)} for {list(shape)}"
            raise CheckpointError(f"is not a file of this model: {has}")
        return tensor.reshape(shape)

    def matrix(self, name: str, out: int, into: int, *, transposed: bool = False) -> Matrix:
        """The matrix `name` as the file has it, in int8 or not; `transposed` if it is [into, out] there."""
        tensor: npt.NDArray[Any] = self.take(name, (into, out) if transposed else (out, into))
        tensor = tensor.T if transposed else tensor
        if tensor.dtype != np.int8:
            return tensor if tensor.dtype.kind == "f" else tensor.astype(np.float64)
        scales = self(f"{name}_scale", out)
        if not (np.isfinite(scales).all() and scales.min() > 0):
            raise CheckpointError(f"is damaged: {name}_scale holds what is no scale")
        return Int8(tensor, scales)

    def need(self, *names: str) -> None:
        missing = sorted(set(names) - self.found.keys())
        if not missing:
            return
        lacks = f"lacks {', '.join(missing)}"
        if not all(name.startswith(HEADS) for name in missing):
            raise CheckpointError(f"is not a file of this model: it {lacks}")
        advice = f"needed is a checkpoint fine-tuned for it (a …{self.head})"
        raise CheckpointError(f"{lacks}, so that answers would be random: {advice}")

    def refuse_the_rest(self) -> None:
        """A file may bring the heads of other tasks, and what MobileBERT always builds and does not always use."""
        idle = (*HEADS, "embeddings.embedding_transformation.")
        rest = sorted(name for name in self.found.keys() - self.used if not name.startswith(idle))
        if foreign := [name for name in rest if ".bottleneck.attention." not in name]:
            raise CheckpointError(f"is not a file of this model: it has {', '.join(foreign)}")

    def keep(self, name: str, tensor: Array) -> str:
        self.tensors[name] = np.ascontiguousarray(tensor, np.float32)
        return name

    def keep_matrix(self, name: str, matrix: Matrix) -> tuple[str, str | None]:
        """The names of the matrix and of its scales, if it is in int8."""
        if not isinstance(matrix, Int8):
            return self.keep(name, matrix), None
        self.tensors[name] = np.ascontiguousarray(matrix.whole)
        return name, self.keep(f"{name}.scales", matrix.scales)

    def lookup(self, target: Columns, table: str, values: Matrix, index: Index, *, add: bool = False) -> None:
        name, scales = self.keep_matrix(table, values)
        self.steps.append(Lookup(target, name, index, add, scales))

    def linear(
        self,
        source: Columns,
        target: Columns,
        name: str,
        weight: Matrix,
        bias: Array,
        *,
        groups: int = 1,
        activation: str | None = None,
        residual: Columns | None = None,
        residual_scale: Array | None = None,
    ) -> None:
        scale = None if residual_scale is None else self.keep(f"{name}.residual_scale", residual_scale)
        weight_name, scales = self.keep_matrix(f"{name}.weight", weight)
        bias_name = self.keep(f"{name}.bias", bias)
        step = Linear(source, target, weight_name, bias_name, scales, None, groups, activation, residual, scale)
        self.steps.append(step)

    def norm(self, source: Columns, target: Columns, name: str, eps: float) -> None:
        weight = self.keep(f"{name}.weight", self(f"{name}.weight", source.width))
        bias = self.keep(f"{name}.bias", self(f"{name}.bias", source.width))
        self.steps.append(LayerNorm(source, target, weight, bias, eps))

    def dense(self, name: str, out: int, into: int) -> tuple[Matrix, Array]:
        self.need(f"{name}.weight", f"{name}.bias")
        return self.matrix(f"{name}.weight", out, into), self(f"{name}.bias", out)

    def end_rows(self) -> None:
        if self.steps:
            self.stages.append(Rows(tuple(self.steps)))
            self.steps.clear()

    def attention(self, query: Columns, key: Columns, value: Columns, target: Columns, heads: int) -> None:
        self.end_rows()
        self.stages.append(Attention(query, key, value, target, heads))

    def pick(self, source: Columns, target: Columns, *, asked: bool = False) -> None:
        self.end_rows()
        self.stages.append(Pick(source, target, asked))


def head_of(config: PreTrainedConfig) -> str:
    """The head that a model was made for by its own word, for `lower`; the bare encoder if it does not say."""
    for name in config.architectures:
        for head in LOWERED:
            if name.endswith(head):
                return head
    return "Model"


def lower(config: PreTrainedConfig, tensors: Mapping[str, np.ndarray], head: str) -> Plan:
    """The plan of a model.

    Args:
        config: of the model.
        tensors: by their official names, with or without the encoder's prefix. Factors of `balance` are left alone.
        head: the part of a class name after the family: "Model", "ForSequenceClassification", …

    Raises:
        CheckpointError: a tensor is missing, or of another shape than the configuration says. The message goes on after
            the name of the file.
    """
    prefix = PREFIXES[config.model_type]
    found = {name.removeprefix(prefix): name for name in tensors if not name.endswith(BALANCE)}
    build = _Builder(found, tensors, head)
    hidden = Columns("hidden", config.hidden_size)
    if isinstance(config, MobileBertConfig):
        _mobilebert(build, config, hidden)
    elif isinstance(config, SqueezeBertConfig):
        _squeezebert(build, config, hidden)
    else:
        assert isinstance(config, BertConfig)
        _bert(build, config, hidden)
    outputs = dict(_head(build, config, head, hidden))
    build.end_rows()
    build.refuse_the_rest()
    return Plan(tuple(build.stages), build.tensors, outputs, config.max_position_embeddings)


# ── the architectures ──


def _bert_embeddings(build: _Builder, config: PreTrainedConfig, hidden: Columns) -> None:
    width = config.hidden_size
    sizes: tuple[tuple[str, Index, int], ...] = (
        ("word", "word", config.vocab_size),
        ("position", "position", config.max_position_embeddings),
        ("token_type", "segment", config.type_vocab_size),
    )
    for name, index, rows in sizes:
        table = f"embeddings.{name}_embeddings.weight"
        build.lookup(hidden, table, build.matrix(table, rows, width), index, add=index != "word")
    build.norm(hidden, hidden, "embeddings.LayerNorm", config.layer_norm_eps)


def _bert(build: _Builder, config: BertConfig, hidden: Columns) -> None:
    _bert_embeddings(build, config, hidden)
    width, inner = config.hidden_size, Columns("inner", config.intermediate_size)
    qkv, context = Columns("qkv", 3 * width), Columns("context", width)
    query, key, value = (Columns("qkv", width, i * width) for i in range(3))
    scale = (width // config.num_attention_heads) ** -0.5
    for i in range(config.num_hidden_layers):
        at = f"encoder.layer.{i}."
        parts = [build.dense(f"{at}attention.self.{name}", width, width) for name in ("query", "key", "value")]
        parts[0] = _scaled(parts[0][0], scale), parts[0][1] * scale
        weights, biases = zip(*parts, strict=True)
        build.linear(hidden, qkv, f"{at}qkv", _stacked(list(weights)), np.concatenate(biases))
        build.attention(query, key, value, context, config.num_attention_heads)
        name = f"{at}attention.output"
        build.linear(context, hidden, f"{name}.dense", *build.dense(f"{name}.dense", width, width), residual=hidden)
        build.norm(hidden, hidden, f"{name}.LayerNorm", config.layer_norm_eps)
        name = f"{at}intermediate.dense"
        build.linear(hidden, inner, name, *build.dense(name, inner.width, width), activation=config.hidden_act)
        name = f"{at}output"
        build.linear(inner, hidden, f"{name}.dense", *build.dense(f"{name}.dense", width, inner.width), residual=hidden)
        build.norm(hidden, hidden, f"{name}.LayerNorm", config.layer_norm_eps)


def _squeezebert(build: _Builder, config: SqueezeBertConfig, hidden: Columns) -> None:
    _bert_embeddings(build, config, hidden)
    width, inner = config.hidden_size, Columns("inner", config.intermediate_size)
    context = Columns("context", width)
    parts = {name: Columns("qkv", width, i * width) for i, name in enumerate(("query", "key", "value"))}
    groups = {"query": config.q_groups, "key": config.k_groups, "value": config.v_groups}
    scale = (width // config.num_attention_heads) ** -0.5
    for i in range(config.num_hidden_layers):
        at = f"encoder.layers.{i}."
        for part, target in parts.items():
            factor = scale if part == "query" else 1.0
            weight, bias = build.dense(f"{at}attention.{part}", width, width // groups[part])
            weight, bias = _scaled(weight, factor), bias * factor
            build.linear(hidden, target, f"{at}attention.{part}", weight, bias, groups=groups[part])
        build.attention(parts["query"], parts["key"], parts["value"], context, config.num_attention_heads)

        def product(
            name: str, source: Columns, target: Columns, groups: int, activation: str | None = None,
            residual: Columns | None = None,
        ) -> None:  # fmt: skip
            dense = build.dense(f"{name}.conv1d", target.width, source.width // groups)
            build.linear(
                source, target, f"{name}.conv1d", *dense, groups=groups, activation=activation, residual=residual
            )

        product(f"{at}post_attention", context, hidden, config.post_attention_groups, residual=hidden)
        build.norm(hidden, hidden, f"{at}post_attention.layernorm", 1e-12)
        product(f"{at}intermediate", hidden, inner, config.intermediate_groups, activation=config.hidden_act)
        product(f"{at}output", inner, hidden, config.output_groups, residual=hidden)
        build.norm(hidden, hidden, f"{at}output.layernorm", 1e-12)


Affine = tuple[Matrix, Array]  # weight and bias of a map of rows


def _mobilebert(build: _Builder, config: MobileBertConfig, hidden: Columns) -> None:
    """Steps for every variant; `no_norm` folds away, `layer_norm` stays a step."""
    folds = config.normalization_type == "no_norm"
    width, true = config.hidden_size, config.true_hidden_size

    def scale_of(name: str, n: int) -> tuple[Array, Array]:
        """Of the NoNorm `name`: weight and bias."""
        return build(f"{name}.LayerNorm.weight", n), build(f"{name}.LayerNorm.bias", n)

    def joined(name: str, source: Columns, target: Columns, residual: Columns, at: str, eps: float) -> None:
        """Join: target = norm(dense(source) + residual), with the norm under `at`."""
        weight, bias = build.dense(name, target.width, source.width)
        if folds:
            by, offset = scale_of(at, target.width)
            build.linear(
                source, target, name, _scaled(weight, by), by * bias + offset, residual=residual, residual_scale=by
            )
        else:
            build.linear(source, target, name, weight, bias, residual=residual)
            build.norm(target, target, f"{at}.LayerNorm", eps)

    def narrowed(name: str) -> Affine:
        """The bottleneck `name` as one affine map, where its norm folds."""
        weight, bias = build.dense(f"{name}.dense", true, width)
        by, offset = scale_of(name, true)
        return _scaled(weight, by), by * bias + offset

    _mobilebert_embeddings(build, config, hidden, folds)
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
        query = _scaled(query[0], factor), query[1] * factor
        value_width = true if config.use_bottleneck_attention else width
        value = build.dense(f"{at}attention.self.value", true, value_width)
        if config.use_bottleneck and folds:
            # All four are affine in the stream: one step of four blocks.
            entry = narrowed(f"{at}bottleneck.input")
            read = narrowed(f"{at}bottleneck.attention") if shares else entry if bottleneck_attention else None
            maps = [
                entry,
                query if read is None else _after(query, read),
                key if read is None else _after(key, read),
                _after(value, entry) if bottleneck_attention else value,
            ]
            weights, biases = zip(*maps, strict=True)
            x = Columns("xqkv", true)
            q, k, v = (Columns("xqkv", true, part * true) for part in (1, 2, 3))
            build.linear(
                hidden, Columns("xqkv", 4 * true), f"{at}xqkv", _stacked(list(weights)), np.concatenate(biases)
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


def _mobilebert_embeddings(build: _Builder, config: MobileBertConfig, hidden: Columns, folds: bool) -> None:
    width, narrow = config.hidden_size, config.embedding_size
    by: Array = np.ones(width)
    offset: Array = np.zeros(width)
    if folds:
        by, offset = build("embeddings.LayerNorm.weight", width), build("embeddings.LayerNorm.bias", width)
    table = "embeddings.word_embeddings.weight"
    words = build.matrix(table, config.vocab_size, narrow)
    positions = build("embeddings.position_embeddings.weight", config.max_position_embeddings, width) * by
    segments = build("embeddings.token_type_embeddings.weight", config.type_vocab_size, width) * by
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
        build.linear(source, hidden, name, _scaled(weight, by), by * bias, residual=hidden)
    elif folds:
        build.lookup(hidden, "embeddings.words", _floats(words) * by, "word", add=True)
    else:
        build.lookup(hidden, table, words, "word", add=True)
    if not folds:
        build.norm(hidden, hidden, "embeddings.LayerNorm", TORCH_EPS)


def _after(outer: Affine, inner: Affine) -> Affine:
    """The affine map of `inner`, then `outer`."""
    weight = _floats(outer[0])
    return weight @ _floats(inner[0]), weight @ inner[1] + outer[1]


# ── the heads ──

Output = tuple[str, Columns | tuple[Columns, int]]


def _head(build: _Builder, config: PreTrainedConfig, head: str, hidden: Columns) -> Iterator[Output]:
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


def _has_pooler(build: _Builder, config: PreTrainedConfig) -> bool:
    return not getattr(config, "classifier_activation", True) or "pooler.dense.weight" in build.found


def _pool(build: _Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    first, pooled = Columns("first", hidden.width), Columns("pooled", hidden.width)
    build.pick(hidden, first)
    if not getattr(config, "classifier_activation", True):
        return first
    dense = build.dense("pooler.dense", hidden.width, hidden.width)
    build.linear(first, pooled, "pooler.dense", *dense, activation="tanh")
    return pooled


def _pair(build: _Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    name, pair = "cls.seq_relationship", Columns("pair", 2)
    build.linear(_pool(build, config, hidden), pair, name, *build.dense(name, 2, hidden.width))
    return pair


def _words(build: _Builder, config: PreTrainedConfig, hidden: Columns) -> Columns:
    name, width = "cls.predictions.transform", config.hidden_size
    asked, transformed, logits = (
        Columns("asked", width),
        Columns("transformed", width),
        Columns("logits", config.vocab_size),
    )
    build.pick(hidden, asked, asked=True)
    dense = build.dense(f"{name}.dense", width, width)
    build.linear(asked, transformed, f"{name}.dense", *dense, activation=config.hidden_act)
    build.norm(transformed, transformed, f"{name}.LayerNorm", config.layer_norm_eps)
    narrow = getattr(config, "embedding_size", width)
    tied = config.tie_word_embeddings
    table = "embeddings.word_embeddings.weight" if tied else "cls.predictions.decoder.weight"
    if table in build.tensors:  # as it was looked up
        scales = f"{table}.scales" if f"{table}.scales" in build.tensors else None
    else:
        _, scales = build.keep_matrix(table, build.matrix(table, config.vocab_size, narrow))
    untied = "cls.predictions.decoder.bias"
    bias = build(untied if not tied and untied in build.found else "cls.predictions.bias", config.vocab_size)
    source = Columns("transformed", narrow)
    build.steps.append(Linear(source, logits, table, build.keep("cls.predictions.bias", bias), scales))
    if narrow < width:  # MobileBERT: a further matrix for what the embeddings are too narrow for
        source, name = Columns("transformed", width - narrow, narrow), "cls.predictions.dense"
        rest = build.matrix(f"{name}.weight", config.vocab_size, width - narrow, transposed=True)
        build.linear(source, logits, name, rest, np.zeros(config.vocab_size), residual=logits)
    return logits
