"""Options of a distillation run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pocketbert.bundles import ENCODER
from pocketbert.errors import ConfigError
from pocketbert.options import Panel
from pocketbert.recipes.finetune_options import START, FinetuneOptions
from pocketbert.tasks import TASKS, foreign_options
from pocketbert.tasks.evaluate_options import DATA
from pocketbert.training.settings import DistillationWeights, EncoderWeights

DISTILLATION = Panel("Distillation")
RAW_TEXT = Panel("Distillation on raw text")
INITIALISATIONS = ("copy", "refit")


@dataclass(frozen=True, kw_only=True)
class DistillOptions(FinetuneOptions):
    """Options of `distill`: those of `finetune`, in which `model` is the student, and these.

    Raises `ConfigError` for values that contradict each other or make no sense.
    """

    teacher: tuple[str, ...] = field(
        default=(),
        metadata=DISTILLATION.option(
            "Teacher with the same task and labels: a folder or hub name. Repeat it for an ensemble of teachers. "
            "Required unless --teacher-logits is given.",
            "FOLDER|NAME",
            repeated=True,
        ),
    )
    teacher_labels: tuple[str, ...] | None = field(
        default=None,
        metadata=DISTILLATION.option(
            "Names of the teachers' labels in the order of their ids.", "A,B,C", default="those in the teachers' config"
        ),
    )
    task: str = field(
        default="text-classification",
        metadata=DATA.option(
            f"Task: one of {', '.join(TASKS)}, or feature-extraction on prepared raw text.",
            "TASK",
            choices=(*TASKS, "feature-extraction"),
        ),
    )
    model: str | None = field(
        default=None,
        metadata=START.option(
            "Student checkpoint to start from: a folder or hub name.",
            "FOLDER|NAME",
            names=["--student", "-m"],
            default=f"{ENCODER}, bundled",
        ),
    )
    init: str | None = field(
        default=None,
        metadata=START.option(
            "With --from-scratch: initialise the student from the first teacher: copy its weights that fit, or, on raw "
            "text, also refit the layers to the teacher's activations by least squares.",
            "copy|refit",
            default="random weights",
            choices=INITIALISATIONS,
        ),
    )
    init_tokens: int = field(
        default=200_000, metadata=START.option("With --init refit: tokens of DATA to fit the layers to.", "N")
    )
    keep_vocabulary: int | None = field(
        default=None,
        metadata=START.option(
            "With --from-scratch: keep only the N tokens of the teacher's vocabulary that are most frequent in DATA.",
            "N",
        ),
    )

    frozen_start: bool = False  # a student learns from its teachers
    few_shot: bool = False

    alpha: float = field(
        default=0.5, metadata=DISTILLATION.option("Weight of the teacher loss; the label loss gets 1 − alpha.", "X")
    )
    temperature: float = field(
        default=1.0, metadata=DISTILLATION.option("Temperature of the softmax in the teacher loss.", "X")
    )
    hidden_weight: float = field(default=0.0, metadata=DISTILLATION.option("Weight of the hidden-state loss.", "X"))
    attention_weight: float = field(default=0.0, metadata=DISTILLATION.option("Weight of the attention loss.", "X"))
    sentence_weight: float = field(
        default=0.0,
        metadata=RAW_TEXT.option("Weight of the sentence loss: 1 minus the cosine of mean hidden states.", "X"),
    )
    word_weight: float = field(
        default=0.0,
        metadata=RAW_TEXT.option(
            "Weight of the masked language modelling loss; the student is then saved with that head.", "X"
        ),
    )
    word_share: float = field(
        default=0.25,
        metadata=RAW_TEXT.option("Fraction of each batch that the student also reads as a masked copy.", "X"),
    )
    short_share: float = field(
        default=0.0,
        metadata=RAW_TEXT.option("Fraction of the tokens of each batch in single sentences of 3 to 20 words.", "X"),
    )
    pair_weight: float = field(
        default=0.0,
        metadata=RAW_TEXT.option(
            "Weight of the pair loss: from two texts read as a pair, the student predicts the cosine of the "
            "teacher's vectors.",
            "X",
        ),
    )
    pair_share: float = field(
        default=0.0,
        metadata=RAW_TEXT.option(
            "Fraction of the tokens of each batch in pairs of texts, for students of tasks with pairs.", "X"
        ),
    )
    relation_weight: float = field(
        default=0.0,
        metadata=RAW_TEXT.option(
            "Weight of the relation loss: similarities among queries, keys and values of the last layers "
            "(MiniLMv2), for any widths and heads.",
            "X",
        ),
    )
    relation_heads: int = field(
        default=12,
        metadata=RAW_TEXT.option(
            "Number of heads into which queries, keys and values are split for the relation loss.", "N"
        ),
    )
    layer_local: bool = field(
        default=False,
        metadata=RAW_TEXT.option("Train each layer by itself, on the input of the teacher's layer."),
    )
    similarity_data: tuple[str, ...] = field(
        default=(),
        metadata=RAW_TEXT.option(
            "File of pairs of texts with scores, such as STS-B's dev.tsv: each evaluation reports the rank correlation "
            "of the student's cosines with them. May be repeated.",
            "FILE",
            repeated=True,
        ),
    )
    layers: tuple[tuple[int, int], ...] | None = field(
        default=None,
        metadata=DISTILLATION.option(
            "Layers to compare, the student's first: layers count from 1, 0:0 are the embeddings.",
            "1:3,2:6",
            default="evenly spread",
        ),
    )
    augment: int = field(
        default=0, metadata=DISTILLATION.option("Augmented copies of each text, labelled by the teachers.", "N")
    )
    unlabelled: Path | str | None = field(
        default=None, metadata=DISTILLATION.option("File of additional texts without labels.", "FILE")
    )
    teacher_logits: tuple[str, ...] = field(
        default=(),
        metadata=DISTILLATION.option(
            "File with logits of a teacher that was run elsewhere, for every training text. May be repeated.",
            "FILE",
            repeated=True,
        ),
    )
    cache: Path | str | None = field(
        default=None,
        metadata=DISTILLATION.option(
            "Folder for the cache of teacher outputs.", "FOLDER", default="in the output folder"
        ),
    )
    cache_gigabytes: float = field(
        default=1.0,
        metadata=DISTILLATION.option(
            "Maximum size of cached hidden states; beyond it, teachers run during training.", "X"
        ),
    )

    def __post_init__(self) -> None:
        if not self.teacher:
            self._check_logits_alone()
        scratch = self.from_scratch is not None
        self._check("keep_vocabulary", self.keep_vocabulary is None or scratch, "needs --from-scratch")
        if self.init is not None:
            self._check("init", self.init in INITIALISATIONS, f"must be one of {', '.join(INITIALISATIONS)}")
            self._check("init", scratch, "initialises a student --from-scratch; a checkpoint has weights of its own")
        self._check("init_tokens", self.init_tokens >= 1, "must be at least 1")
        if self.vocab_size is not None:
            raise ConfigError(
                "--vocab-size trains a new vocabulary, which the teacher cannot read; use --keep-vocabulary to keep "
                "the teacher's most frequent tokens"
            )
        if scratch and self.tokenizer is None:
            object.__setattr__(
                self, "tokenizer", str(self.data) if self.task == "feature-extraction" else self.teacher[0]
            )
        super().__post_init__()
        if self.init == "refit" and self.task != "feature-extraction":
            raise ConfigError(
                "--init refit is for --task feature-extraction: distil an encoder on raw text first, or --init copy"
            )
        if self.task != "text-classification":
            foreign: dict[str, object] = {"augment": 0, "unlabelled": None, "teacher_logits": ()}
            if self.task == "feature-extraction":
                foreign |= {"keep_vocabulary": None, "eval_data": None}
            if "labels" in foreign_options(self.task):
                foreign |= {"teacher_labels": None}
            for name, unused in foreign.items():
                self._check(name, getattr(self, name) == unused, f"is not for --task {self.task}; leave it out")
        if not (self.alpha or self.hidden_weight or self.attention_weight):
            raise ConfigError("all distillation weights are 0: set --alpha, --hidden-weight or --attention-weight")
        if self.task == "feature-extraction":
            self._check_raw_text()
        else:
            further = (
                "sentence_weight",
                "word_weight",
                "relation_weight",
                "layer_local",
                "similarity_data",
                "short_share",
                "pair_weight",
                "pair_share",
            )
            for name in further:
                self._check(name, not getattr(self, name), "is for --task feature-extraction; leave it out")
        for name, unused in (("class_weights", None), ("label_smoothing", 0.0), ("sample_weights", None)):
            self._check(
                name,
                getattr(self, name) == unused,
                "is for finetune: in distillation, the teachers' outputs are the targets",
            )
        self._check("augment", self.augment >= 0, "must not be negative")
        self._check("cache_gigabytes", self.cache_gigabytes >= 0, "must not be negative")
        self.weights()

    def _check_logits_alone(self) -> None:
        if not self.teacher_logits:
            raise ConfigError("name at least one teacher (--teacher), or give its logits (--teacher-logits)")
        if self.from_scratch is not None and self.tokenizer is None:
            raise ConfigError("--from-scratch without a --teacher needs a --tokenizer")
        for name, unused in (("init", None), ("hidden_weight", 0.0), ("attention_weight", 0.0), ("augment", 0)):
            self._check(name, getattr(self, name) == unused, "needs a --teacher: --teacher-logits has only logits")

    def _check_raw_text(self) -> None:
        weights = self.encoder_weights()
        others = {
            "attention_weight": weights.attention_weight, "relation_weight": weights.relation_weight,
            "sentence_weight": weights.sentence_weight,
        }  # fmt: skip
        if not (weights.hidden_weight or any(others.values())):
            raise ConfigError(
                f"--task {self.task} trains on the hidden states and attention of teachers: give --hidden-weight 1, "
                f"--attention-weight 1, "
                "--relation-weight 1, --sentence-weight 1, or several"
            )
        if self.layer_local:
            self._check(
                "hidden_weight", weights.hidden_weight > 0, "must be positive: --layer-local uses no other loss"
            )
            for name in (*others, "word_weight", "pair_weight"):
                self._check(name, not getattr(self, name), "is not for --layer-local, which compares hidden states")
        self._check("pair_weight", self.pair_weight == 0 or self.pair_share > 0, "needs pairs: give --pair-share")
        self._check("relation_heads", self.relation_heads >= 1, "must be at least 1")
        stems = [Path(name).stem for name in self.similarity_data]
        self._check("similarity_data", len(set(stems)) == len(stems), "must be files with different names")
        left = self.batch_size
        for name, share, parts in (("short_share", self.short_share, 1), ("pair_share", self.pair_share, 3)):
            replaced = parts * round(share / parts * self.batch_size)
            left -= replaced
            self._check(
                name,
                share == 0 or (replaced > 0 and left >= self.accumulation),
                f"must leave and replace examples of a batch of {self.batch_size}",
            )
        self._check("word_share", 0 < self.word_share <= 1, "must lie between 0 and 1")

    def encoder_weights(self) -> EncoderWeights:
        """Return the weights of the losses on raw text."""
        return EncoderWeights(
            hidden_weight=self.hidden_weight,
            attention_weight=self.attention_weight,
            relation_weight=self.relation_weight,
            relation_heads=self.relation_heads,
            sentence_weight=self.sentence_weight,
            word_weight=self.word_weight,
            pair_weight=self.pair_weight,
        )

    def weights(self) -> DistillationWeights:
        """Return the weights of the losses on labelled data."""
        return DistillationWeights(
            alpha=self.alpha,
            temperature=self.temperature,
            hidden_weight=self.hidden_weight,
            attention_weight=self.attention_weight,
        )
