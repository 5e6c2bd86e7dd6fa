"""Options of a distillation run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pocketbert.errors import ConfigError
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.training.settings import DistillationWeights, LayerPairs


@dataclass(frozen=True, kw_only=True)
class DistillOptions(FinetuneOptions):
    """Options of `distill`: those of `finetune`, in which `model` is the student, and these.

    Raises `ConfigError` for values that contradict each other or make no sense.
    """

    teacher: tuple[str, ...]
    """Models of the same task and labels, on raw text any encoders: folders or names on the hub."""
    teacher_labels: tuple[str, ...] | None = None
    """What the teachers' labels mean, in their order, where they do not say (LABEL_0, …)."""
    from_teacher: bool = False
    """Begin a student from scratch with the first teacher's weights, as far as they fit."""
    keep_vocabulary: int | None = None
    """Keep only so many pieces of the teacher's vocabulary, those that the texts use most (from scratch only)."""

    alpha: float = 0.5
    """How much the teachers' answers count; the labels count for the rest."""
    temperature: float = 1.0
    """Softens the answers of teachers and student."""
    hidden_weight: float = 0.0
    """How much the hidden states count."""
    attention_weight: float = 0.0
    """How much the attention maps count."""
    layers: LayerPairs | None = None
    """Which layers are compared, student's and teacher's; evenly spread when not given."""
    augment: int = 0
    """How many altered copies of each text to ask the teachers about."""
    unlabelled: str | Path | None = None
    """A file of further texts, without labels."""
    cache: str | Path | None = None
    """The folder for what the teachers say; in the output when not given."""
    cache_gigabytes: float = 1.0
    """The most that hidden states may take there; when they are more, the teachers run beside the student."""

    def __post_init__(self) -> None:
        if not self.teacher:
            raise ConfigError("say who teaches (--teacher)")
        scratch = self.from_scratch is not None
        self._check("keep_vocabulary", self.keep_vocabulary is None or scratch, "needs --from-scratch")
        if self.from_teacher and not scratch:
            raise ConfigError("--from-teacher fills a student that begins --from-scratch; it has weights of its own")
        if self.vocab_size is not None:
            raise ConfigError(
                "--vocab-size would learn other pieces than the teacher's, who could not read them; --keep-vocabulary "
                "keeps the most used of his"
            )
        if scratch and self.tokenizer is None:
            object.__setattr__(
                self, "tokenizer", str(self.data) if self.task == "feature-extraction" else self.teacher[0]
            )
        super().__post_init__()
        if self.task != "text-classification":
            foreign = {"augment": 0, "unlabelled": None}
            if self.task == "feature-extraction":
                foreign |= {"keep_vocabulary": None, "eval_data": None}
            if self.task != "token-classification":
                foreign |= {"teacher_labels": None}
            for name, unused in foreign.items():
                self._check(name, getattr(self, name) == unused, f"is not for --task {self.task}; leave it out")
        if not (self.alpha or self.hidden_weight or self.attention_weight):
            raise ConfigError("nothing is learned from the teacher: --alpha and the other weights are all 0")
        if self.task == "feature-extraction" and not (self.hidden_weight or self.attention_weight):
            raise ConfigError(
                f"--task {self.task} learns from hidden states and attention: give --hidden-weight 1, "
                "--attention-weight 1, or both"
            )
        self._check("augment", self.augment >= 0, "must not be negative")
        self._check("cache_gigabytes", self.cache_gigabytes >= 0, "must not be negative")
        self.weights()

    def weights(self) -> DistillationWeights:
        """Return the weights of the losses."""
        return DistillationWeights(
            alpha=self.alpha,
            temperature=self.temperature,
            hidden_weight=self.hidden_weight,
            attention_weight=self.attention_weight,
        )
