"""Options of a pretraining run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.errors import ConfigError
from pocketbert.options import Options, Panel, argument
from pocketbert.recipes.pretraining_recipes import MINI_RECIPES, RECIPES, PretrainingRecipe, continuing_recipe
from pocketbert.training.settings import OPTIMIZERS, PRECISIONS

MODEL = Panel("Model")
DATA = Panel("Data")
TRAINING = Panel("Training")
RUN = Panel("Run")
PUBLISHED = "as published"


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(Options):
    """Options of `pretrain`; the command's options have the same names.

    There are as many phases as `steps`; lengths, batch sizes, learning rates and warm-ups are one for all phases, or
    one per phase. Raises `ConfigError` for values that make no sense together.
    """

    corpus: Path | str = field(metadata=argument("Corpus folder, written by pocketbert prepare."))
    output: Path | str = field(metadata=argument("Output folder: a new one, or that of a run to resume."))
    preset: str | None = field(
        default=None, metadata=MODEL.option("Published recipe, with its architecture.", choices=list(RECIPES))
    )
    model: str | None = field(
        default=None,
        metadata=MODEL.option(
            "Checkpoint to continue pretraining, instead of --preset: a folder or hub name.",
            "FOLDER|NAME",
            names=["--model", "-m"],
        ),
    )
    mini: bool = field(default=False, metadata=MODEL.option("Miniature model and recipe, for two processor cores."))
    config: Path | str | None = field(
        default=None,
        metadata=MODEL.option(
            "Another architecture of the same family: a config.json.",
            "FILE",
            names=["--model-config"],
            default=PUBLISHED,
        ),
    )

    pairs: str | None = field(
        default=None,
        metadata=DATA.option(
            "Objective for pairs of segments: sentence order, next sentence, or none.",
            choices=("sop", "nsp", "none"),
            default=PUBLISHED,
        ),
    )
    whole_words: bool = field(
        default=False, metadata=DATA.option("Whole-word masking: mask all tokens of a word together.")
    )
    masked: float | None = field(
        default=None, metadata=DATA.option("Fraction of tokens to mask and predict.", "X", default="0.15")
    )
    length: tuple[int, ...] | None = field(
        default=None,
        metadata=DATA.option("Tokens per example, one number or one per phase.", "N,N", default=PUBLISHED),
    )
    steps: tuple[int, ...] | None = field(
        default=None, metadata=TRAINING.option("Steps of each phase.", "N,N", default=PUBLISHED)
    )
    batch_size: tuple[int, ...] | None = field(
        default=None,
        metadata=TRAINING.option("Batch size: examples per step, over all processes.", "N,N", default=PUBLISHED),
    )
    learning_rate: tuple[float, ...] | None = field(
        default=None,
        metadata=TRAINING.option("Peak learning rate, one number or one per phase.", "X,X", default=PUBLISHED),
    )
    warmup: tuple[float, ...] | None = field(
        default=None,
        metadata=TRAINING.option("Fraction of a phase's steps for linear warm-up.", "X,X", default=PUBLISHED),
    )
    optimizer: str | None = field(
        default=None, metadata=TRAINING.option("Optimizer.", choices=OPTIMIZERS, default="lamb")
    )
    weight_decay: float | None = field(
        default=None,
        metadata=TRAINING.option("Weight decay, of all weights but biases and norms.", "X", default="0.01"),
    )
    clip: float = field(default=1.0, metadata=TRAINING.option("Maximum norm of the gradient.", "X"))
    tokens: int = field(default=16_384, metadata=RUN.option("Approximate tokens per micro-batch.", "N"))
    seed: int = field(
        default=42, metadata=TRAINING.option("Seed of initial weights, examples, masks and dropout.", "N")
    )

    precision: str = field(
        default="auto",
        metadata=RUN.option(
            "Precision of computation; auto is bf16 on GPUs and processors with bf16 instructions, and fp32 elsewhere.",
            choices=PRECISIONS,
        ),
    )
    compile: bool = field(
        default=False, metadata=RUN.option("Compile the layers with torch.compile; needs a C++ compiler.")
    )
    sharded: bool = field(
        default=False, metadata=RUN.option("Shard weights, gradients and optimizer state across processes (FSDP2).")
    )
    device: str | None = field(
        default=None, metadata=RUN.option("PyTorch device: cpu, cuda, cuda:1, …", "NAME", default="cuda if available")
    )
    eval_every: int | None = field(
        default=None,
        metadata=RUN.option("Evaluate on the held-out split every N steps.", "N", default="1/50 of all steps"),
    )
    eval_batches: int = field(default=8, metadata=RUN.option("Batches of 64 held-out examples per evaluation.", "N"))
    save_minutes: float = field(
        default=10.0, metadata=RUN.option("Maximum time in minutes between saves of the training state.", "X")
    )
    resume: bool = field(default=False, metadata=RUN.option("Resume the run in the output folder, or start it."))
    tensorboard: bool = field(default=True, metadata=RUN.option("Write learning curves for TensorBoard."))

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.preset is None) == (self.model is None):
            raise ConfigError("choose what to pretrain: a published recipe (--preset), or a checkpoint (--model)")
        if self.model is not None:
            for name, unused in (("mini", False), ("config", None)):
                self._check(name, getattr(self, name) == unused, "is not for --model, which has its architecture")
        for name, least in (("steps", 1), ("batch_size", 1), ("length", 8)):
            self._check(name, min(getattr(self, name) or (least,)) >= least, f"must be at least {least}")
        rates = self.learning_rate or (1.0,)
        self._check("learning_rate", all(0 < rate < math.inf for rate in rates), "must be positive and finite")
        self._check("warmup", all(0 <= part <= 1 for part in self.warmup or ()), "must lie in [0, 1]")
        # Compiled layers whose weights are gathered from other processes were not seen to come to a first step.
        self._check("compile", not (self.compile and self.sharded), "excludes --sharded: choose one of them")
        self._check("masked", self.masked is None or 0 < self.masked < 1, "must lie between 0 and 1")
        self._check("clip", 0 < self.clip < math.inf, "must be positive and finite")
        self._check("weight_decay", self.weight_decay is None or self.weight_decay >= 0, "must not be negative")
        for name in ("tokens", "eval_batches"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        self._check("eval_every", self.eval_every is None or self.eval_every >= 1, "must be at least 1")
        self._check("save_minutes", self.save_minutes >= 0, "must not be negative")

    @property
    def recipe(self) -> PretrainingRecipe:
        """The published recipe, or that of going on from a checkpoint, with the changes of the options.

        Raises `ConfigError` for lists of different lengths, and for a configuration of another family;
        `CheckpointError` for a checkpoint that cannot be read.
        """
        if self.model is not None:
            recipe = continuing_recipe(AutoConfig.from_pretrained(self.model))
        else:
            assert self.preset is not None
            recipe = (MINI_RECIPES if self.mini else RECIPES)[self.preset]
        changed = {
            "steps": self.steps, "length": self.length, "batch": self.batch_size,
            "learning_rate": self.learning_rate, "warmup": self.warmup,
        }  # fmt: skip
        lists = {name: values for name, values in changed.items() if values is not None}
        count = len(self.steps) if self.steps is not None else max(map(len, lists.values()), default=1)
        if self.steps is None and count == 1:
            count = len(recipe.phases)
        if any(len(values) not in (1, count) for values in lists.values()):
            raise ConfigError(
                f"--length, --batch-size, --learning-rate and --warmup must have one value, or one per phase: {count}, "
                "the number of --steps"
            )
        phases = []
        for i in range(count):
            changes: dict[str, Any] = {name: values[min(i, len(values) - 1)] for name, values in lists.items()}
            phases.append(replace(recipe.phases[min(i, len(recipe.phases) - 1)], **changes))
        config = recipe.config if self.config is None else self._own_config(type(recipe.config))
        pairs: Any = recipe.pairs if self.pairs is None else None if self.pairs == "none" else self.pairs
        return replace(
            recipe,
            config=config,
            phases=tuple(phases),
            pairs=pairs,
            masked=self.masked or recipe.masked,
            optimizer=self.optimizer or recipe.optimizer,
            weight_decay=recipe.weight_decay if self.weight_decay is None else self.weight_decay,
        )

    def _own_config(self, family: type[PreTrainedConfig]) -> PreTrainedConfig:
        from pocketbert.checkpoints.files import read_json

        assert self.config is not None
        config = AutoConfig.from_dict(read_json(Path(self.config)))
        if not isinstance(config, family):
            raise ConfigError(
                f"--model-config {self.config} describes a {config.model_type}, and --preset {self.preset} pretrains a "
                f"{family.model_type}"
            )
        return config
