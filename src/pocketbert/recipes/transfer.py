"""MobileBERT's transfer: a thin student from a pretrained IB-BERT, by one of the paper's three strategies.

- auxiliary: knowledge transfer to all layers, during the distillation;
- joint: first knowledge transfer to all layers at once, then the distillation;
- progressive: first knowledge transfer to one layer after the other, from the bottom, then the distillation.

All three take the same number of steps: those of the layers, and those of the distillation (Sun et al. 2020, section
3.6).
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
from pocketbert.recipes.pretrain import PretrainResult, PretrainRun
from pocketbert.recipes.pretraining_recipes import Phase
from pocketbert.recipes.processes import distributed
from pocketbert.recipes.transfer_options import TransferOptions
from pocketbert.tokenization import BertTokenizer
from pocketbert.training.distributed import SINGLE_PROCESS, ProcessGroup
from pocketbert.training.objectives import Objective
from pocketbert.training.optim import build_optimizer
from pocketbert.training.pretraining import Pretraining
from pocketbert.training.teachers import hash_model
from pocketbert.training.transfer import Stage, Transfer, layer_of

# As released (google-research/mobilebert, distill_util.py): the current layer is trained at three times the rate, the
# layers below it at a tenth of that (the option `lower_rate`). During the steps of a layer the rate rises for a tenth
# of them, then falls, with the square root of those that are left, to 0.9. The released fall begins with the first
# step: its peak is half a percent lower.
LAYER_RATE = 3.0
LAYER_WARMUP, LAYER_POWER, LAYER_END = 0.1, 0.5, 0.9


def transfer(options: TransferOptions, *, console: Console | None = None, argv: Sequence[str] = ()) -> PretrainResult:
    """Train a student from its teacher, layer by layer, or resume such a run; alone or under `torchrun`.

    Args:
        options: teacher, corpus, strategy and hyperparameters.
        console: where to show progress: a bar on a terminal, lines otherwise; without a console lines go to the log.
        argv: the command, for `run.json`.

    Raises:
        DataError: the corpus is damaged, or too small for the batch.
        ConfigError: options contradict each other, the model, or the run to resume; student and teacher do not fit.
        CheckpointError: the teacher cannot be read or has no pretraining heads; a training state cannot be read or
            written, or the output folder is in use.
        TrainingInterrupted: SIGINT or SIGTERM arrived; the training state is saved.
        TrainingError: the loss is not finite.
    """
    with distributed() as processes:
        return TransferRun(options, console=console, argv=argv, processes=processes).run()


class TransferRun(PretrainRun):
    """A pretraining run with a teacher: knowledge transfer to the layers, then distillation."""

    options: TransferOptions

    def __init__(
        self,
        options: TransferOptions,
        *,
        console: Console | None = None,
        argv: Sequence[str] = (),
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        super().__init__(options, console=console, argv=argv, processes=processes)
        self.stages, self.phases = stages_and_phases(options, self.recipe.config.num_hidden_layers)

    def read(self) -> None:
        """Open the corpus, and load the teacher."""
        super().read()
        self.teacher: PreTrainedModel = load_trained(self.options.teacher, "ForPreTraining")

    def facts(self) -> dict[str, Any]:
        """Return the corpus and the teacher by hash."""
        return {**super().facts(), "teacher": hash_model(self.teacher)}

    def config(self) -> PreTrainedConfig:
        """Return the student's configuration, with as many embeddings as the teacher has."""
        config, size, tokens = super().config(), self.teacher.config.vocab_size, len(self.tokenizer)
        if not tokens <= size < tokens + 64:
            raise ConfigError(
                f"the teacher {self.options.teacher} has a vocabulary of {size:,}, and the corpus was prepared with "
                f"{tokens:,} tokens: prepare it with the teacher's tokenizer"
            )
        return config.replace(vocab_size=size)

    def prepare(self) -> tuple[BertTokenizer, PreTrainedModel]:
        """Return the tokenizer of the corpus, and a student with its teacher's embeddings and heads."""
        tokenizer, student = super().prepare()
        fresh = [name for name in init_from_teacher(student, self.teacher, []) if layer_of(name) == 0]
        total = sum(layer_of(name) == 0 for name, _ in student.named_parameters())
        self.log(f"{total - len(fresh)} of {total} tensors outside the layers initialised from {self.options.teacher}")
        return tokenizer, student

    def objective(self, model: PreTrainedModel) -> Pretraining:
        """Return the losses of knowledge transfer and distillation."""
        return Transfer(model, self.teacher.to(self.device), self.options.weights(), self.stages)

    def optimizer(self, objective: Objective) -> torch.optim.Optimizer:
        """Return the optimizer, with a group of parameters per layer."""
        recipe = self.recipe
        return build_optimizer(
            recipe.optimizer, objective, learning_rate=1.0, weight_decay=recipe.weight_decay, layer_of=layer_of
        )


def stages_and_phases(options: TransferOptions, layers: int) -> tuple[list[Stage], list[Phase]]:
    """Return what is trained when, and on which batches: one stage per phase."""
    recipe = options.recipe
    first = recipe.phases[0]
    steps = recipe.layer_steps if options.layer_steps is None else options.layer_steps
    all_layers = tuple(range(1, layers + 1))
    layer_phase = Phase(
        steps=steps,
        length=recipe.phases[-1].length,
        batch=options.layer_batch_size or recipe.transfer_batch,
        learning_rate=options.layer_rate or first.learning_rate,
        warmup=LAYER_WARMUP,
        power=LAYER_POWER,
        end=LAYER_END,
    )
    stages: list[Stage] = []
    phases: list[Phase] = []
    if steps and options.strategy == "auxiliary":
        total = sum(phase.steps for phase in recipe.phases) + steps * layers
        scale = total / (total - steps * layers)
        phases = [replace(phase, steps=round(phase.steps * scale)) for phase in recipe.phases]
        return [Stage(steps=phase.steps, layers=all_layers, distils=True) for phase in phases], phases
    if steps and options.strategy == "joint":
        stages.append(Stage(steps=steps * layers, layers=all_layers, rate=LAYER_RATE))
        phases.append(replace(layer_phase, steps=steps * layers))
    if steps and options.strategy == "progressive":
        for layer in all_layers:
            stages.append(Stage(steps=steps, layers=(layer,), rate=LAYER_RATE, lower_rate=options.lower_rate))
            phases.append(layer_phase)
    stages += [Stage(steps=phase.steps, distils=True) for phase in recipe.phases]
    return stages, [*phases, *recipe.phases]
