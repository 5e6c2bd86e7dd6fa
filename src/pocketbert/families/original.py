"""The authors' own TensorFlow checkpoints: configuration files and names of variables, as plain data.

BERT and MobileBERT share Google's code, so most names are the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A name in TensorFlow and the official one; `{n}` and `{i}` are numbers in both."""

    tensorflow: str
    official: str
    transposed: bool = False  # TensorFlow stores the weights of a dense layer as [in, out]


@dataclass(frozen=True)
class NameTable:
    """The names of the variables in one kind of TensorFlow checkpoint.

    Attributes:
        title: of the kind.
        rules: one per variable.
        marker: regular expression that only the names of this kind contain; empty: the kind that remains.
    """

    title: str
    rules: tuple[Rule, ...]
    marker: str = ""


@dataclass(frozen=True)
class OriginalFormat:
    """How an architecture's authors store it.

    Attributes:
        config_file: name of the configuration file.
        config_keys: keys that only this family's configuration files have; empty: the family of all other files.
        config_defaults: values of keys that a file omits, where the authors' differ from the published class's.
        config_copies: keys that default to the value of another key.
        tables: of the names in its checkpoints; the first whose marker is found counts.
    """

    config_file: str
    config_keys: frozenset[str] = frozenset()
    config_defaults: Mapping[str, Any] = field(default_factory=dict)
    config_copies: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[NameTable, ...] = ()


def dense_rules(tensorflow: str, official: str) -> tuple[Rule, ...]:
    """Kernel and bias of a dense layer."""
    return Rule(f"{tensorflow}/kernel", f"{official}.weight", True), Rule(f"{tensorflow}/bias", f"{official}.bias")


def norm_rules(tensorflow: str, official: str) -> tuple[Rule, ...]:
    """Gamma and beta of a norm."""
    return Rule(f"{tensorflow}/gamma", f"{official}.weight"), Rule(f"{tensorflow}/beta", f"{official}.bias")


def output_rules(tensorflow: str, official: str) -> tuple[Rule, ...]:
    """A head in Google's scripts, whose weights are stored as PyTorch's are."""
    return Rule(f"{tensorflow}weights", f"{official}.weight"), Rule(f"{tensorflow}bias", f"{official}.bias")


def bert_rules(prefix: str, norm: str) -> tuple[Rule, ...]:
    """The names that BERT's and MobileBERT's checkpoints have in common; `norm` is their name of a norm."""
    layer, official = "bert/encoder/layer_{n}", f"{prefix}.encoder.layer.{{n}}"
    return (
        *(
            Rule(f"bert/embeddings/{kind}_embeddings", f"{prefix}.embeddings.{kind}_embeddings.weight")
            for kind in ("word", "token_type", "position")
        ),
        *norm_rules(f"bert/embeddings/{norm}", f"{prefix}.embeddings.LayerNorm"),
        *(
            rule
            for part in ("query", "key", "value")
            for rule in dense_rules(f"{layer}/attention/self/{part}", f"{official}.attention.self.{part}")
        ),
        *dense_rules(f"{layer}/attention/output/dense", f"{official}.attention.output.dense"),
        *norm_rules(f"{layer}/attention/output/{norm}", f"{official}.attention.output.LayerNorm"),
        *dense_rules(f"{layer}/intermediate/dense", f"{official}.intermediate.dense"),
        *dense_rules(f"{layer}/output/dense", f"{official}.output.dense"),
        *norm_rules(f"{layer}/output/{norm}", f"{official}.output.LayerNorm"),
        *dense_rules("bert/pooler/dense", f"{prefix}.pooler.dense"),
        *dense_rules("cls/predictions/transform/dense", "cls.predictions.transform.dense"),
        *norm_rules("cls/predictions/transform/LayerNorm", "cls.predictions.transform.LayerNorm"),
        Rule("cls/predictions/output_bias", "cls.predictions.bias"),
        *output_rules("cls/seq_relationship/output_", "cls.seq_relationship"),
        *output_rules("cls/squad/output_", "qa_outputs"),
        *output_rules("output_", "classifier"),
    )
