"""Options of a pretraining run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pocketbert.checkpoints.files import read_json
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.errors import ConfigError
from pocketbert.recipes.pretraining_recipes import MINI_RECIPES, RECIPES, PretrainingRecipe
from pocketbert.training.settings import OPTIMIZERS


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """Options of `pretrain`; the shell's flags carry the same names.

    What is None is as published for the preset. There are as many phases as `steps`; lengths, batch sizes, rates and
    warm-ups are one for all, or one a phase. Raises `ConfigError` for values that make no sense together.
    """

    corpus: str | Path
    """The folder that `prepare` wrote."""
    output: str | Path
    """The folder for the model and its run; must be new, or hold a run to resume."""
    preset: str
    """Whose recipe and architecture: a name of `recipes.pretraining_recipes.RECIPES`."""
    mini: bool = False
    """The recipe in miniature."""
    config: str | Path | None = None
    """A config.json of the preset's family, in the place of its architecture."""

    pairs: str | None = None
    """What a second segment is for: sop, nsp, or none."""
    whole_words: bool = False
    """Whether the pieces of a word are masked together."""
    masked: float | None = None
    """Which part of the tokens is to be predicted."""
    length: tuple[int, ...] | None = None
    """Tokens of an example."""
    steps: tuple[int, ...] | None = None
    """How many steps of each phase."""
    batch_size: tuple[int, ...] | None = None
    """Examples a step, over all processes."""
    learning_rate: tuple[float, ...] | None = None
    """The peak rate."""
    warmup: tuple[float, ...] | None = None
    """The part of a phase's steps in which the rate rises."""
    optimizer: str | None = None
    """lamb, lamb-nvidia or adamw."""
    weight_decay: float | None = None
    """For weights other than biases and norms."""
    clip: float = 1.0
    """The largest norm of the gradient."""
    tokens: int = 16_384
    """About how many tokens to compute at once: a batch is divided into as many parts as that takes."""
    seed: int = 42
    """Decides fresh weights, examples, masks and dropout."""

    precision: str = "auto"
    """fp32, bf16, or auto: bf16 on a GPU that has it, fp32 elsewhere."""
    compile: bool = False
    """Compile the layers with `torch.compile`, for training; needs a C++ compiler."""
    sharded: bool = False
    """Divide weights, gradients and moments among the processes (FSDP2), where there are several."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU when there is one, if not given."""
    eval_every: int | None = None
    """Steps between evaluations on what the corpus keeps back; a fiftieth of the run when not given."""
    eval_batches: int = 8
    """How many batches of 64 examples an evaluation takes."""
    save_minutes: float = 10.0
    """Save the state at least so often."""
    resume: bool = False
    """Continue the run in `output`; begin it if there is none."""
    tensorboard: bool = True
    """Write learning curves to the folder `tensorboard` of the output."""

    def __post_init__(self) -> None:
        self._check("preset", self.preset in RECIPES, f"must be one of {', '.join(RECIPES)}")
        self._check("pairs", self.pairs in (None, "sop", "nsp", "none"), "must be sop, nsp or none")
        self._check("optimizer", self.optimizer in (None, *OPTIMIZERS), f"must be one of {', '.join(OPTIMIZERS)}")
        self._check("precision", self.precision in ("auto", "fp32", "bf16"), "must be auto, fp32 or bf16")
        for name, least in (("steps", 1), ("batch_size", 1), ("length", 8)):
            self._check(name, min(getattr(self, name) or (least,)) >= least, f"must be at least {least}")
        rates = self.learning_rate or (1.0,)
        self._check("learning_rate", all(0 < rate < math.inf for rate in rates), "must be positive and finite")
        self._check("warmup", all(0 <= part <= 1 for part in self.warmup or ()), "must lie in [0, 1]")
        self._check("masked", self.masked is None or 0 < self.masked < 1, "must lie between 0 and 1")
        self._check("clip", 0 < self.clip < math.inf, "must be positive and finite")
        self._check("weight_decay", self.weight_decay is None or self.weight_decay >= 0, "must not be negative")
        for name in ("tokens", "eval_batches"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        self._check("eval_every", self.eval_every is None or self.eval_every >= 1, "must be at least 1")
        self._check("save_minutes", self.save_minutes >= 0, "must not be negative")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            raise ConfigError(f"--{name.replace('_', '-')} {shown} {rule}")

    @property
    def recipe(self) -> PretrainingRecipe:
        """The published recipe, changed by what the options say.

        Raises `ConfigError` for lists of unequal lengths, and for a configuration that is none, or of another family.
        """
        recipe = (MINI_RECIPES if self.mini else RECIPES)[self.preset]
        given = {
            "steps": self.steps, "length": self.length, "batch": self.batch_size,
            "learning_rate": self.learning_rate, "warmup": self.warmup,
        }  # fmt: skip
        lists = {name: values for name, values in given.items() if values is not None}
        count = len(self.steps) if self.steps is not None else max(map(len, lists.values()), default=1)
        if self.steps is None and count == 1:
            count = len(recipe.phases)
        if any(len(values) not in (1, count) for values in lists.values()):
            raise ConfigError(
                f"lengths, batch sizes, rates and warm-ups must be one, or one for each of {count} phases, of which "
                "there are as many as --steps"
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
        assert self.config is not None
        config = AutoConfig.from_dict(read_json(Path(self.config)))
        if not isinstance(config, family):
            raise ConfigError(
                f"--config {self.config} describes a {config.model_type}, and --preset {self.preset} pretrains a "
                f"{family.model_type}"
            )
        return config
