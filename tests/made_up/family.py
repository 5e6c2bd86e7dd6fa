"""Pebble, an architecture that nobody published: configuration and description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Dense, Family, WordScores


@dataclass(frozen=True, kw_only=True)
class PebbleConfig(PreTrainedConfig):
    """Fields with names of their own; neither segments nor a pooler."""

    model_type: ClassVar[str] = "pebble"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_blocks",
        "num_attention_heads": "n_heads",
        "intermediate_size": "wide_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "dropout",
    }

    dim: int = 72
    n_blocks: int = 2
    n_heads: int = 4
    wide_dim: int = 144
    activation: str = "silu"
    dropout: float = 0.1


FAMILY = Family(
    model_type="pebble",
    name="Pebble",
    config_class=PebbleConfig,
    presets={"pebble-small": PebbleConfig()},
    prefix="pebble",
    models="made_up.models",
    lowering="made_up.lowering",
    layers="stack.blocks",
    embeddings=("embeddings.words.weight", "embeddings.places.weight"),
    pooler=None,
    heads={
        "Model": (),
        "ForMaskedLM": (),
        "ForSequenceClassification": (Dense("before", "relu"), Dense("classifier", dropout="head_dropout_prob")),
        "ForTokenClassification": (Dense("tags", dropout="dropout"),),
    },
    words=WordScores(transform="guess.dense", norm="guess.norm", decoder="guess.out", bias="guess.out.bias"),
)
