"""Settings of training that options are checked against; nothing here needs PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from pocketbert.errors import ConfigError

#: Names of optimizers: LAMB as in the papers, LAMB as in NVIDIA's recipes, and AdamW.
OPTIMIZERS = ("lamb", "lamb-nvidia", "adamw")
#: fp32, bf16, or auto: bf16 on a GPU or processor with units for it, fp32 otherwise.
PRECISIONS = ("auto", "fp32", "bf16")

#: Learning rates after the warm-up: falling to 0 over all steps, or constant.
SCHEDULES = ("linear", "constant")

#: Pairs of layers to compare, the student's first; layers count from 1, and (0, 0) are the embeddings.
LayerPairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class DistillationWeights:
    """Weights of the distillation losses. Raises `ConfigError` for values out of range."""

    alpha: float = 0.5
    temperature: float = 1.0
    hidden_weight: float = 0.0
    attention_weight: float = 0.0

    def __post_init__(self) -> None:
        _check_teacher_loss(self.alpha, self.temperature)
        if not (0 <= self.hidden_weight < math.inf and 0 <= self.attention_weight < math.inf):
            raise ConfigError("hidden_weight and attention_weight must not be negative")


@dataclass(frozen=True, kw_only=True)
class EncoderWeights:
    """Weights of the losses of an encoder on raw text. Raises `ConfigError` for values out of range."""

    hidden_weight: float = 0.0
    attention_weight: float = 0.0
    relation_weight: float = 0.0
    relation_heads: int = 12
    sentence_weight: float = 0.0
    word_weight: float = 0.0
    pair_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name.endswith("_weight")):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative")


@dataclass(frozen=True, kw_only=True)
class TransferWeights:
    """Weights of the transfer losses, by default as released. Raises `ConfigError` for values out of range."""

    feature_weight: float = 100.0
    mean_weight: float = 5000.0
    variance_weight: float = 5.0
    attention_weight: float = 1.0
    alpha: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("feature_weight", "mean_weight", "variance_weight", "attention_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative")
        _check_teacher_loss(self.alpha, self.temperature)


def _check_teacher_loss(alpha: float, temperature: float) -> None:
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha={alpha} must lie in [0, 1]")
    if not 0 < temperature < math.inf:
        raise ConfigError(f"temperature={temperature} must be positive and finite")
