"""What can be said about a fine-tuning run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pocketbert.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """Options of `finetune`; the shell's flags carry the same names.

    Raises `ConfigError` for values that contradict each other or make no sense.
    """

    data: str | Path
    """The training data: a file in a layout of the task, or with `glue` a folder."""
    output: str | Path
    """The folder for the model and its run; must be new, or hold a run to resume."""
    task: str = "text-classification"
    """What to learn: text-classification, token-classification, question-answering or multiple-choice."""
    model: str | None = None
    """The checkpoint to start from: a folder or a name on the hub."""
    from_scratch: str | None = None
    """Start from fresh weights: the name of a preset, a `config.json`, or a folder with one."""
    tokenizer: str | None = None
    """A folder, a name on the hub, or a `vocab.txt`; the checkpoint's own when not given."""
    vocab_size: int | None = None
    """Learn a vocabulary of this size from the training texts instead (from scratch only)."""

    glue: str | None = None
    """The GLUE task whose official files `data` holds, such as sst-2."""
    eval_data: str | Path | None = None
    """A file to evaluate on."""
    eval_fraction: float = 0.1
    """Which part of the training data to keep back for evaluation when there is no file for it."""
    text_column: str | None = None
    """The column of the text, recognised when not given; that of the words by its number in files for tagging."""
    text_pair_column: str | None = None
    """The column of the second text, for pairs."""
    label_column: str | None = None
    """The column of the label; recognised when not given."""
    labels: tuple[str, ...] | None = None
    """The label names in the order of their ids; in sorted order when not given."""
    max_length: int | None = None
    """How many tokens of a text to read; 128, and of a question with its passage 384, when not given."""

    epochs: float = 3.0
    """How often to go through the data."""
    batch_size: int = 32
    """Examples a step, whatever the accumulation."""
    accumulation: int = 1
    """Into how many parts to divide each batch, to save memory."""
    learning_rate: float | None = None
    """The peak rate; 5e-5 from a checkpoint and 5e-4 from scratch when not given."""
    warmup: float = 0.1
    """The part of all steps in which the rate rises; it falls to zero in the others."""
    weight_decay: float = 0.01
    """For weights other than biases and norms."""
    clip: float = 1.0
    """The largest norm of the gradient."""
    seed: int = 42
    """Decides fresh weights, order, dropout and what is kept back."""
    precision: str = "auto"
    """fp32, bf16, or auto: bf16 on a GPU that has it, fp32 elsewhere."""
    quantization_aware: bool = False
    """Round a MobileBERT to 8 bits while it learns, for engines that compute in whole numbers alone."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU when there is one, if not given."""

    eval_every: int | None = None
    """Steps between evaluations; once an epoch when not given."""
    metric: str | None = None
    """Which metric decides what is best; the task's first when not given."""
    patience: int | None = None
    """Stop after so many evaluations in a row without a new best."""
    resume: bool = False
    """Continue the run in `output`; begin it if there is none."""
    tensorboard: bool = True
    """Write learning curves to the folder `tensorboard` of the output."""

    def __post_init__(self) -> None:
        if (self.model is None) == (self.from_scratch is None):
            raise ConfigError("say what to start from: either a checkpoint (--model) or --from-scratch")
        if self.vocab_size is not None and (self.from_scratch is None or self.tokenizer is not None):
            raise ConfigError("--vocab-size makes a new vocabulary: it needs --from-scratch, and no --tokenizer")
        if self.from_scratch is not None and self.vocab_size is None and self.tokenizer is None:
            raise ConfigError("--from-scratch needs a vocabulary: --tokenizer vocab.txt, or --vocab-size to learn one")
        if self.glue is not None:
            for name in ("eval_data", "text_column", "text_pair_column", "label_column", "labels"):
                self._check(name, getattr(self, name) is None, f"is settled by --glue {self.glue}; leave it out")
        if self.task != "text-classification":
            foreign = ["glue", "text_pair_column"]
            foreign += [] if self.task == "token-classification" else ["text_column", "label_column", "labels"]
            for name in foreign:
                self._check(name, getattr(self, name) is None, f"is not for --task {self.task}; leave it out")
        names = self.labels
        self._check(
            "labels", names is None or len(set(names)) == len(names) > 1, "must be two names or more, all different"
        )
        at_least = {
            "max_length": 4, "batch_size": 1, "accumulation": 1, "seed": 0, "eval_every": 1, "patience": 1,
        }  # fmt: skip
        for name, least in at_least.items():
            value = getattr(self, name)
            self._check(name, value is None or value >= least, f"must be at least {least}")
        for name in ("epochs", "learning_rate", "clip"):
            value = getattr(self, name)
            self._check(name, value is None or 0 < value < math.inf, "must be positive and finite")
        self._check("accumulation", self.accumulation <= self.batch_size, f"exceeds --batch-size {self.batch_size}")
        self._check("warmup", 0 <= self.warmup <= 1, "must lie in [0, 1]")
        self._check("weight_decay", self.weight_decay >= 0, "must not be negative")
        self._check("eval_fraction", 0 < self.eval_fraction < 1, "must lie between 0 and 1")
        self._check("precision", self.precision in ("auto", "fp32", "bf16"), "must be auto, fp32 or bf16")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = ",".join(value) if isinstance(value, tuple) else value
            raise ConfigError(f"--{name.replace('_', '-')} {shown} {rule}")
