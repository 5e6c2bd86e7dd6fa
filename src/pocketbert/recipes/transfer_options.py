"""Options of a transfer run."""

from __future__ import annotations

from dataclasses import dataclass, field

from pocketbert.options import Panel
from pocketbert.recipes.pretrain_options import MODEL, PUBLISHED, PretrainOptions
from pocketbert.training.settings import TransferWeights

TRANSFER = Panel("Transfer")
STRATEGIES = ("auxiliary", "joint", "progressive")


@dataclass(frozen=True, kw_only=True)
class TransferOptions(PretrainOptions):
    """Options of `transfer`: those of `pretrain`, whose phases are those of the distillation, and these.

    Raises `ConfigError` for values that contradict each other or make no sense.
    """

    preset: str | None = field(
        default="mobilebert",
        metadata=MODEL.option("Published recipe, with its architecture.", choices=("mobilebert", "mobilebert-tiny")),
    )
    teacher: str = field(metadata=TRANSFER.option("Pretrained IB-BERT: a folder or hub name.", "FOLDER|NAME"))
    strategy: str = field(default="progressive", metadata=TRANSFER.option("Transfer strategy.", choices=STRATEGIES))
    layer_steps: int | None = field(
        default=None,
        metadata=TRANSFER.option("Steps of layer transfer per layer; 0 for distillation only.", "N", default=PUBLISHED),
    )
    layer_batch_size: int | None = field(
        default=None, metadata=TRANSFER.option("Batch size during layer transfer.", "N", default=PUBLISHED)
    )
    layer_rate: float | None = field(
        default=None,
        metadata=TRANSFER.option("Learning rate during layer transfer.", "X", default="that of the first phase"),
    )
    lower_rate: float = field(
        default=0.3, metadata=TRANSFER.option("Learning-rate factor for the layers below; 0 freezes them.", "X")
    )
    feature_weight: float = field(
        default=100.0, metadata=TRANSFER.option("Weight of the loss between normalised feature maps.", "X")
    )
    mean_weight: float = field(
        default=5000.0, metadata=TRANSFER.option("Weight of the loss between means of feature maps.", "X")
    )
    variance_weight: float = field(
        default=5.0, metadata=TRANSFER.option("Weight of the loss between variances of feature maps.", "X")
    )
    attention_weight: float = field(default=1.0, metadata=TRANSFER.option("Weight of the attention loss.", "X"))
    alpha: float = field(
        default=0.5, metadata=TRANSFER.option("Weight of the teacher loss; the label loss gets 1 − alpha.", "X")
    )
    temperature: float = field(
        default=1.0, metadata=TRANSFER.option("Temperature of the softmax in the teacher loss.", "X")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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
