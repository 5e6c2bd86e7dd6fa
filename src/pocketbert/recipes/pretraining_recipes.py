"""Published pretraining recipes, and miniatures of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pocketbert.configs import PRESETS, PreTrainedConfig

if TYPE_CHECKING:
    from pocketbert.corpus.pretraining_batches import Pairs


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a run with its own learning rate, which has a warm-up and then decays."""

    steps: int
    length: int
    """Tokens per example."""
    batch: int
    """Examples per step, over all processes and micro-batches."""
    learning_rate: float
    warmup: float
    """Fraction of the steps for linear warm-up."""
    power: float = 1.0
    """Power of the polynomial decay."""
    end: float = 0.0
    """Fraction of the peak rate at the end."""


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe:
    """How one model was pretrained."""

    config: PreTrainedConfig
    pairs: Pairs | None
    phases: tuple[Phase, ...]
    layer_steps: int = 0
    """Steps of knowledge transfer per layer."""
    transfer_batch: int = 0
    """Examples per step of knowledge transfer, of the length of the last phase."""
    optimizer: str = "lamb"
    weight_decay: float = 0.01
    masked: float = 0.15


def _small(name: str, **changes: Any) -> PreTrainedConfig:
    return PRESETS[name].replace(**changes)


_SQUEEZEBERT = PretrainingRecipe(
    config=PRESETS["squeezebert-uncased"],
    pairs="sop",
    # The model card. The warm-up of the second phase was not published: that of the first.
    phases=(
        Phase(steps=56_000, length=128, batch=8192, learning_rate=2.5e-3, warmup=0.28),
        Phase(steps=6_000, length=512, batch=8192, learning_rate=2.5e-3, warmup=0.28),
    ),
)
# google-research/mobilebert's README: 240k steps of transfer, 10k a layer, then 500k of distillation at length 512.
_MOBILEBERT = PretrainingRecipe(
    config=PRESETS["mobilebert-uncased"],
    pairs="nsp",
    phases=(Phase(steps=500_000, length=512, batch=2048, learning_rate=1.5e-3, warmup=0.02),),
    layer_steps=10_000,
    transfer_batch=2048,
)
# The paper: 500k steps of 4096 examples with LAMB. Length, rate and warm-up are those of the student.
_IB_BERT = PretrainingRecipe(
    config=PRESETS["ib-bert"],
    pairs="nsp",
    phases=(Phase(steps=500_000, length=512, batch=4096, learning_rate=1.5e-3, warmup=0.02),),
)

#: By the name of `--preset`.
RECIPES: Mapping[str, PretrainingRecipe] = {
    "squeezebert": _SQUEEZEBERT,
    "ib-bert": _IB_BERT,
    "mobilebert": _MOBILEBERT,
    "mobilebert-tiny": replace(_MOBILEBERT, config=PRESETS["mobilebert-tiny"]),
}


def continuing_recipe(config: PreTrainedConfig) -> PretrainingRecipe:
    """Return how a model with this configuration goes on learning masked words, on any amount of text.

    Gururangan et al. 2020 (https://arxiv.org/abs/2004.10964) adapt models to a domain or to the texts of a task in this
    way. Steps and rate are ours, for a few megabytes of text and small models.
    """
    length = min(128, config.max_tokens)
    phase = Phase(steps=1_000, length=length, batch=32, learning_rate=1e-4, warmup=0.1)
    return PretrainingRecipe(config=config, pairs=None, phases=(phase,), optimizer="adamw")


def _mini_phases(first: int, second: int, rate: float) -> tuple[Phase, ...]:
    return (
        Phase(steps=first, length=64, batch=32, learning_rate=rate, warmup=0.1),
        Phase(steps=second, length=128, batch=16, learning_rate=rate / 2, warmup=0.1),
    )


# Such runs read no text twice, so they need no dropout.
_MINI: Mapping[str, Any] = {
    "hidden_size": 256, "num_hidden_layers": 4, "embedding_size": 64, "intra_bottleneck_size": 64,
    "intermediate_size": 256, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
_MINI_TRANSFER: Mapping[str, Any] = {"phases": _mini_phases(700, 60, 5e-3), "layer_steps": 60, "transfer_batch": 16}

#: Miniatures for one processor core: models that are smaller in every dimension, and runs of five to twenty minutes.
MINI_RECIPES: Mapping[str, PretrainingRecipe] = {
    "squeezebert": replace(
        _SQUEEZEBERT,
        config=_small(
            "squeezebert-uncased", hidden_size=256, embedding_size=256, num_hidden_layers=6, num_attention_heads=4,
            intermediate_size=1024, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        ),
        phases=_mini_phases(4_000, 400, 3e-3),
    ),
    "ib-bert": replace(
        _IB_BERT,
        config=_small("ib-bert", **{**_MINI, "intra_bottleneck_size": 256, "intermediate_size": 1024}),
        phases=_mini_phases(900, 60, 8e-3),
    ),
    "mobilebert": replace(_MOBILEBERT, config=_small("mobilebert-uncased", **_MINI), **_MINI_TRANSFER),
    "mobilebert-tiny": replace(_MOBILEBERT, config=_small("mobilebert-tiny", **_MINI), **_MINI_TRANSFER),
}  # fmt: skip
