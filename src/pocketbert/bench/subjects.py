"""The models that are measured: of a folder, or of a published size with random weights, which run just as fast."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import read_tensors
from pocketbert.configs import PRESETS, AutoConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.errors import InputError
from pocketbert.runtime.lowering import PREFIXES, lower
from pocketbert.runtime.plan import Plan
from pocketbert.runtime.quantize import quantize

PUBLISHED = {
    "SqueezeBERT": "squeezebert-uncased",
    "MobileBERT": "mobilebert-uncased",
    "BERT-base": "bert-base-uncased",
}
HEADS = ("cls.", "classifier.", "qa_outputs.")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """An encoder, as all engines get it.

    Attributes:
        name: for people.
        config: its sizes.
        tensors: by their official names, without the encoder's prefix and without heads.
    """

    name: str
    config: PreTrainedConfig
    tensors: dict[str, np.ndarray]

    @cached_property
    def plan(self) -> Plan:
        """In fp32."""
        return lower(self.config, self.tensors, "Model")

    @cached_property
    def int8_plan(self) -> Plan:
        """The same in int8."""
        return quantize(self.plan)

    @cached_property
    def digest(self) -> str:
        """Changes with every weight and with the configuration."""
        sum_ = zlib.crc32(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for name in sorted(self.tensors):
            sum_ = zlib.crc32(np.ascontiguousarray(self.tensors[name]).data, zlib.crc32(name.encode(), sum_))
        return f"{sum_:08x}"


def published(name: str) -> Subject:
    """A model of `PUBLISHED` with random weights, always the same."""
    return with_random_weights(name, PRESETS[PUBLISHED[name]])


def from_folder(name_or_path: str | Path) -> Subject:
    """The encoder of a model folder or hub name.

    Raises:
        CheckpointError: its files are missing or damaged.
        ConfigError: `config.json` cannot be understood.
        InputError: it is in int8 already, which other engines cannot read.
    """
    config = AutoConfig.from_pretrained(name_or_path)
    if config.quantized:
        raise InputError(f"{name_or_path} is in int8 already: give the model that it was made from, to be run in both")
    prefix = PREFIXES[config.model_type]
    tensors = {name.removeprefix(prefix): tensor for name, tensor in read_tensors(name_or_path).items()}
    encoder = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEADS)}
    return Subject(Path(name_or_path).name or str(name_or_path), config, encoder)


def with_random_weights(name: str, config: PreTrainedConfig, seed: int = 0) -> Subject:
    """A model of these sizes, drawn as for pretraining: normal weights, biases 0, norms 1."""
    draws = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for key, shape in _shapes(config):
        if key.endswith("bias"):
            tensors[key] = np.zeros(shape, np.float32)
        elif len(shape) == 1:
            tensors[key] = np.ones(shape, np.float32)
        else:
            tensors[key] = draws.standard_normal(shape, np.float32) * np.float32(config.initializer_range)
    return Subject(name, config, tensors)


Shapes = Iterator[tuple[str, tuple[int, ...]]]


def _shapes(config: PreTrainedConfig) -> Shapes:
    """The official names of an encoder's tensors, and their shapes."""
    for table, rows in (
        ("word", config.vocab_size),
        ("position", config.max_position_embeddings),
        ("token_type", config.type_vocab_size),
    ):
        mobile_words = isinstance(config, MobileBertConfig) and table == "word"
        width = config.embedding_size if mobile_words else config.hidden_size  # type: ignore[attr-defined]
        yield f"embeddings.{table}_embeddings.weight", (rows, width)
    yield from _norm("embeddings.LayerNorm", config.hidden_size)
    if isinstance(config, MobileBertConfig):
        yield from _mobilebert(config)
        return
    layer = _squeezebert_layer(config) if isinstance(config, SqueezeBertConfig) else _bert_layer(config)
    layers = "layers" if isinstance(config, SqueezeBertConfig) else "layer"
    parts = list(layer)
    for i in range(config.num_hidden_layers):
        for name, shape in parts:
            yield f"encoder.{layers}.{i}.{name}", shape
    yield from _dense("pooler.dense", config.hidden_size, config.hidden_size)


def _dense(name: str, out: int, into: int, *kernel: int) -> Shapes:
    yield f"{name}.weight", (out, into, *kernel)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _bert_layer(config: PreTrainedConfig) -> Shapes:
    width, inner = config.hidden_size, config.intermediate_size
    for part in ("query", "key", "value"):
        yield from _dense(f"attention.self.{part}", width, width)
    yield from _dense("attention.output.dense", width, width)
    yield from _norm("attention.output.LayerNorm", width)
    yield from _dense("intermediate.dense", inner, width)
    yield from _dense("output.dense", width, inner)
    yield from _norm("output.LayerNorm", width)


def _squeezebert_layer(config: SqueezeBertConfig) -> Shapes:
    width, inner = config.hidden_size, config.intermediate_size
    for part, groups in (("query", config.q_groups), ("key", config.k_groups), ("value", config.v_groups)):
        yield from _dense(f"attention.{part}", width, width // groups, 1)
    yield from _dense("post_attention.conv1d", width, width // config.post_attention_groups, 1)
    yield from _norm("post_attention.layernorm", width)
    yield from _dense("intermediate.conv1d", inner, width // config.intermediate_groups, 1)
    yield from _dense("output.conv1d", width, inner // config.output_groups, 1)
    yield from _norm("output.layernorm", width)


def _mobilebert(config: MobileBertConfig) -> Shapes:
    """As published: with bottlenecks, of which the one for queries and keys is shared."""
    if not (config.use_bottleneck and config.key_query_shared_bottleneck) or config.use_bottleneck_attention:
        raise InputError("random weights are drawn for MobileBERT as published only: give a folder")
    width, true, inner = config.hidden_size, config.intra_bottleneck_size, config.intermediate_size
    stacked = 3 if config.trigram_input else 1
    yield from _dense("embeddings.embedding_transformation", width, config.embedding_size * stacked)
    for i in range(config.num_hidden_layers):
        at = f"encoder.layer.{i}."
        for part, into in (("query", true), ("key", true), ("value", width)):
            yield from _dense(f"{at}attention.self.{part}", true, into)
        yield from _dense(f"{at}attention.output.dense", true, true)
        yield from _norm(f"{at}attention.output.LayerNorm", true)
        for network in ("", *(f"ffn.{k}." for k in range(config.num_feedforward_networks - 1))):
            yield from _dense(f"{at}{network}intermediate.dense", inner, true)
            yield from _dense(f"{at}{network}output.dense", true, inner)
            yield from _norm(f"{at}{network}output.LayerNorm", true)
        yield from _dense(f"{at}output.bottleneck.dense", width, true)
        yield from _norm(f"{at}output.bottleneck.LayerNorm", width)
        for bottleneck in ("input", "attention"):
            yield from _dense(f"{at}bottleneck.{bottleneck}.dense", true, width)
            yield from _norm(f"{at}bottleneck.{bottleneck}.LayerNorm", true)
    if config.classifier_activation:
        yield from _dense("pooler.dense", width, width)
