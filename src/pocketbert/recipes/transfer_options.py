"""Options of a transfer run."""

from __future__ import annotations

from dataclasses import dataclass

from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.training.settings import TransferWeights

STRATEGIES = ("auxiliary", "joint", "progressive")


@dataclass(frozen=True, kw_only=True)
class TransferOptions(PretrainOptions):
    """Options of `transfer`: those of `pretrain`, whose phases are those of the distillation, and these.

    Raises `ConfigError` for values that contradict each other or make no sense.
    """

    teacher: str
    """A pretrained IB-BERT: a folder, or a name on the hub."""
    strategy: str = "progressive"
    """auxiliary, joint or progressive."""
    layer_steps: int | None = None
    """How many steps each layer is taught; 0 leaves the distillation alone. As published when not given."""
    layer_batch_size: int | None = None
    """Examples a step meanwhile; as published when not given."""
    layer_rate: float | None = None
    """The rate meanwhile; that of the first phase when not given."""
    lower_rate: float = 0.3
    """By what to multiply that of the layers below the taught one; 0 freezes them."""
    feature_weight: float = 100.0
    """How much the normalised feature maps count."""
    mean_weight: float = 5000.0
    """How much the means of the feature maps count."""
    variance_weight: float = 5.0
    """How much their variances count."""
    attention_weight: float = 1.0
    """How much the attention counts."""
    alpha: float = 0.5
    """How much the teacher's words count; the labels count for the rest."""
    temperature: float = 1.0
    """Softens the words of teacher and student."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("strategy", self.strategy in STRATEGIES, f"must be one of {', '.join(STRATEGIES)}")
        self._check("preset", self.preset.startswith("mobilebert"), "has no teacher: mobilebert or mobilebert-tiny")
        self._check("layer_steps", self.layer_steps is None or self.layer_steps >= 0, "must not be negative")
        self._check("layer_batch_size", (self.layer_batch_size or 1) >= 1, "must be at least 1")
        self._check("layer_rate", self.layer_rate is None or self.layer_rate > 0, "must be positive")
        self._check("lower_rate", self.lower_rate >= 0, "must not be negative")
        self.weights()

    def weights(self) -> TransferWeights:
        """Return the weights of the losses."""
        return TransferWeights(
            feature_weight=self.feature_weight,
            mean_weight=self.mean_weight,
            variance_weight=self.variance_weight,
            attention_weight=self.attention_weight,
            alpha=self.alpha,
            temperature=self.temperature,
        )
