"""MobileBERT's transfer: a thin student from an IB-BERT that `pretrain` trained, by the paper's three strategies.

- auxiliary: all layers are taught while the student learns to say what its teacher says;
- joint: first all layers at once, then what the teacher says;
- progressive: first one layer after the other, from the bottom, then what the teacher says.

All three take as many steps: those of the layers, and those of the distillation (Sun et al. 2020, section 3.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from pocketbert.configs import PreTrainedConfig
from pocketbert.errors import ConfigError
from pocketbert.models.auto import load_trained
from pocketbert.models.init_from_teacher import init_from_teacher
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.pretrain import Course, PretrainResult, pretrain
from pocketbert.recipes.pretraining_recipes import Phase
from pocketbert.recipes.transfer_options import TransferOptions
from pocketbert.training.distributed import Ranks
from pocketbert.training.optim import build_optimizer
from pocketbert.training.pretraining import Pretraining
from pocketbert.training.teachers import hash_model
from pocketbert.training.transfer import Stage, Transfer, place_of

# As released (google-research/mobilebert, distill_util.py): the taught layer learns at three times the rate, those
# below it at a tenth of that. During each layer's steps the rate rises for a tenth of them, then falls, with the square
# root of those that are left, to 0.9. The released fall begins with the first step: its peak is half a percent lower.
TAUGHT_RATE = 3.0  # the factor of the layers below is an option, `lower_rate`, by default 0.3
LAYER_WARMUP, LAYER_POWER, LAYER_END = 0.1, 0.5, 0.9


class TransferCourse(Course):
    """Layers, then words, from a teacher."""

    options: TransferOptions

    def __init__(self, options: TransferOptions, ranks: Ranks, device: torch.device, tell: Any) -> None:
        super().__init__(options, ranks, device, tell)
        self.teacher: PreTrainedModel = load_trained(options.teacher, "ForPreTraining")
        self.stages, self.phases = plan_stages(options, self.recipe.config.num_hidden_layers)

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
        fresh = [name for name in init_from_teacher(student, self.teacher, []) if place_of(name) == 0]
        of = sum(place_of(name) == 0 for name, _ in student.named_parameters())
        self.tell(f"{of - len(fresh)} of {of} tensors outside the layers begin as those of {self.options.teacher}")
        return student

    def objective(self, model: PreTrainedModel) -> Pretraining:
        """What is learned from the teacher."""
        return Transfer(model, self.teacher.to(self.device), self.options.weights(), self.stages)

    def optimizer(self, objective: Pretraining) -> torch.optim.Optimizer:
        """With layers in groups of their own."""
        recipe = self.recipe
        return build_optimizer(
            recipe.optimizer, objective, learning_rate=1.0, weight_decay=recipe.weight_decay, place=place_of
        )


def plan_stages(options: TransferOptions, layers: int) -> tuple[list[Stage], list[Phase]]:
    """What is learned when, and on which batches: one stage a phase."""
    recipe = options.recipe
    first = recipe.phases[0]
    each = recipe.layer_steps if options.layer_steps is None else options.layer_steps
    everything = tuple(range(1, layers + 1))
    teaching = Phase(
        steps=each,
        length=recipe.phases[-1].length,
        batch=options.layer_batch_size or recipe.transfer_batch,
        learning_rate=options.layer_rate or first.learning_rate,
        warmup=LAYER_WARMUP,
        power=LAYER_POWER,
        end=LAYER_END,
    )
    stages: list[Stage] = []
    phases: list[Phase] = []
    if each and options.strategy == "auxiliary":
        whole = sum(phase.steps for phase in recipe.phases) + each * layers
        scale = whole / (whole - each * layers)
        phases = [replace(phase, steps=round(phase.steps * scale)) for phase in recipe.phases]
        return [Stage(steps=phase.steps, layers=everything, distils=True) for phase in phases], phases
    if each and options.strategy == "joint":
        stages.append(Stage(steps=each * layers, layers=everything, rate=TAUGHT_RATE))
        phases.append(replace(teaching, steps=each * layers))
    if each and options.strategy == "progressive":
        for layer in everything:
            stages.append(Stage(steps=each, layers=(layer,), rate=TAUGHT_RATE, lower_rate=options.lower_rate))
            phases.append(teaching)
    stages += [Stage(steps=phase.steps, distils=True) for phase in recipe.phases]
    return stages, [*phases, *recipe.phases]


def transfer(options: TransferOptions, *, console: Console | None = None, argv: Sequence[str] = ()) -> PretrainResult:
    """Train a student from its teacher, or continue to; arguments and errors as of `pretrain`.

    Raises:
        ConfigError: besides, student and teacher do not fit.
        CheckpointError: besides, the teacher cannot be read, or has no pretraining heads.
    """
    return pretrain(options, console=console, argv=argv, course_class=TransferCourse)
