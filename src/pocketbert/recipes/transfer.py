"""MobileBERT's transfer: a thin student from an IB-BERT that `pretrain` trained, by the paper's three strategies.

- auxiliary: all layers are taught while the student learns to say what its teacher says;
- joint: first all layers at once, then what the teacher says;
- progressive: first one layer after the other, from the bottom, then what the teacher says.

All three take as many steps: those of the layers, and those of the distillation (Sun et al. 2020, section 3.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console

from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import ConfigError
from pocketbert.models.auto import load_trained
from pocketbert.models.inherit import inherit
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.pretrain import Course, PretrainOptions, PretrainResult, pretrain
from pocketbert.recipes.published import Phase
from pocketbert.training.distributed import Ranks
from pocketbert.training.optim import build_optimizer
from pocketbert.training.pretraining import Pretraining
from pocketbert.training.teachers import hash_model
from pocketbert.training.transfer import Stage, Transfer, TransferTerms, place_of

STRATEGIES = ("auxiliary", "joint", "progressive")
# As released (google-research/mobilebert, distill_util.py): the taught layer learns at three times the rate, those
# below it at a tenth of that. During each layer's steps the rate rises for a tenth of them, then falls, with the square
# root of those that are left, to 0.9. The released fall begins with the first step: its peak is half a percent lower.
TAUGHT_RATE, LOWER_RATE = 3.0, 0.3
LAYER_WARMUP, LAYER_POWER, LAYER_END = 0.1, 0.5, 0.9


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
    lower_rate: float = LOWER_RATE
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
        self.terms()

    def terms(self) -> TransferTerms:
        """The weights of the losses."""
        return TransferTerms(
            feature_weight=self.feature_weight,
            mean_weight=self.mean_weight,
            variance_weight=self.variance_weight,
            attention_weight=self.attention_weight,
            alpha=self.alpha,
            temperature=self.temperature,
        )


class TransferCourse(Course):
    """Layers, then words, from a teacher."""

    options: TransferOptions

    def __init__(self, options: TransferOptions, ranks: Ranks, device: torch.device, tell: Any) -> None:
        super().__init__(options, ranks, device, tell)
        self.teacher: PreTrainedModel = load_trained(options.teacher, "ForPreTraining")
        self.stages, self.phases = plan_stages(options, self.origin.config.num_hidden_layers)

    def facts(self) -> dict[str, Any]:
        """The corpus, and the teacher by its hash."""
        return {**super().facts(), "teacher": hash_model(self.teacher)}

    def config(self) -> PreTrainedConfig:
        """The student's, with as many rows for words as the teacher has."""
        config, words = super().config(), self.teacher.config.vocab_size
        if not len(self.tokenizer) <= words < len(self.tokenizer) + 64:
            raise ConfigError(
                f"the teacher {self.options.teacher} knows {words:,} pieces of words, and the corpus was prepared with "
                f"{len(self.tokenizer):,}: prepare it with the teacher's tokenizer"
            )
        return config.replace(vocab_size=words)

    def model(self) -> PreTrainedModel:
        """A fresh student with its teacher's embeddings and heads."""
        student = super().model()
        fresh = [name for name in inherit(student, self.teacher, []) if place_of(name) == 0]
        of = sum(place_of(name) == 0 for name, _ in student.named_parameters())
        self.tell(f"{of - len(fresh)} of {of} tensors outside the layers begin as those of {self.options.teacher}")
        return student

    def objective(self, model: PreTrainedModel) -> Pretraining:
        """What is learned from the teacher."""
        return Transfer(model, self.teacher.to(self.device), self.options.terms(), self.stages)

    def optimizer(self, objective: Pretraining) -> torch.optim.Optimizer:
        """With layers in groups of their own."""
        origin = self.origin
        return build_optimizer(
            origin.optimizer, objective, learning_rate=1.0, weight_decay=origin.weight_decay, place=place_of
        )


def plan_stages(options: TransferOptions, layers: int) -> tuple[list[Stage], list[Phase]]:
    """What is learned when, and on which batches: one stage a phase."""
    origin = options.origin
    first = origin.phases[0]
    each = origin.layer_steps if options.layer_steps is None else options.layer_steps
    everything = tuple(range(1, layers + 1))
    teaching = Phase(
        steps=each,
        length=origin.phases[-1].length,
        batch=options.layer_batch_size or origin.transfer_batch,
        learning_rate=options.layer_rate or first.learning_rate,
        warmup=LAYER_WARMUP,
        power=LAYER_POWER,
        end=LAYER_END,
    )
    stages: list[Stage] = []
    phases: list[Phase] = []
    if each and options.strategy == "auxiliary":
        whole = sum(phase.steps for phase in origin.phases) + each * layers
        scale = whole / (whole - each * layers)
        phases = [replace(phase, steps=round(phase.steps * scale)) for phase in origin.phases]
        return [Stage(steps=phase.steps, layers=everything, distils=True) for phase in phases], phases
    if each and options.strategy == "joint":
        stages.append(Stage(steps=each * layers, layers=everything, rate=TAUGHT_RATE))
        phases.append(replace(teaching, steps=each * layers))
    if each and options.strategy == "progressive":
        for layer in everything:
            stages.append(Stage(steps=each, layers=(layer,), rate=TAUGHT_RATE, lower_rate=options.lower_rate))
            phases.append(teaching)
    stages += [Stage(steps=phase.steps, distils=True) for phase in origin.phases]
    return stages, [*phases, *origin.phases]


def transfer(options: TransferOptions, *, console: Console | None = None, argv: Sequence[str] = ()) -> PretrainResult:
    """Train a student from its teacher, or continue to; arguments and errors as of `pretrain`.

    Raises:
        ConfigError: besides, student and teacher do not fit.
        CheckpointError: besides, the teacher cannot be read, or has no pretraining heads.
    """
    return pretrain(options, console=console, argv=argv, course_class=TransferCourse)
