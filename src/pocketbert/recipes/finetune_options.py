"""Options of a fine-tuning run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketbert.bundles import ENCODER
from pocketbert.errors import ConfigError
from pocketbert.options import Options, Panel, argument
from pocketbert.tasks import TASKS, foreign_options
from pocketbert.tasks.evaluate_options import (
    DATA,
    GLUE,
    LABEL_COLUMN,
    MERGE_LABELS,
    SKIP_BAD,
    TEXT_COLUMN,
    TEXT_PAIR_COLUMN,
    metric_name,
)
from pocketbert.training.settings import PRECISIONS, SCHEDULES

FROZEN_PARTS = ("embeddings",)
START = Panel("Initial model")
TRAINING = Panel("Training")
EVALUATION = Panel("Evaluation")
RUN = Panel("Run")


#: Options of training that only text classification has.
_OF_TEXTS = ("baseline", "class_weights", "few_shot", "label_smoothing", "sample_weights")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Options):
    """Options of `finetune`; the command's options have the same names.

    In Python, `data` and `eval_data` may be in memory (see `pocketbert.data.memory`), and a run without `output` keeps
    nothing on disk: its result has the model.

    Raises `ConfigError` for values that contradict each other or make no sense, `DataError` for data in memory that is
    no table.
    """

    data: Path | str | Any = field(
        metadata=argument("Training data: a file in one of the task's formats; with --glue a folder.")
    )
    output: Path | str | None = field(
        default=None,
        metadata=RUN.option(
            "Output folder: a new one, or that of a run to resume.", "FOLDER", names=["--output", "-o"], required=True
        ),
    )
    task: str = field(
        default="text-classification",
        metadata=DATA.option(
            f"Task: one of {', '.join(TASKS)}.",
            "TASK",
            choices=list(TASKS),
        ),
    )
    model: str | None = field(
        default=None,
        metadata=START.option(
            "Checkpoint to start from: a folder or hub name.",
            "FOLDER|NAME",
            names=["--model", "-m"],
            default=f"{ENCODER}, bundled",
        ),
    )
    from_scratch: str | None = field(
        default=None,
        metadata=START.option(
            "Start from random weights: name of a preset such as squeezebert-uncased, or config.json.", "PRESET|FILE"
        ),
    )
    tokenizer: str | None = field(
        default=None,
        metadata=START.option(
            "Tokenizer: a folder, hub name or vocab.txt.", "FOLDER|NAME|FILE", default="the checkpoint's"
        ),
    )
    vocab_size: int | None = field(
        default=None, metadata=START.option("Size of a new vocabulary, trained on DATA; needs --from-scratch.", "N")
    )

    glue: str | None = field(default=None, metadata=GLUE)
    eval_data: Path | str | Any | None = field(
        default=None, metadata=EVALUATION.option("File of evaluation data.", "FILE", default="split off from DATA")
    )
    eval_fraction: float = field(
        default=0.1, metadata=EVALUATION.option("Fraction of DATA to split off as dev set.", "X")
    )
    text_column: str | None = field(default=None, metadata=TEXT_COLUMN)
    text_pair_column: str | None = field(default=None, metadata=TEXT_PAIR_COLUMN)
    label_column: str | None = field(default=None, metadata=LABEL_COLUMN)
    labels: tuple[str, ...] | None = field(
        default=None, metadata=DATA.option("Names of the labels in the order of their ids.", "A,B,C", default="sorted")
    )
    skip_bad: bool = field(default=False, metadata=SKIP_BAD)
    merge_labels: bool = field(default=False, metadata=MERGE_LABELS)
    max_length: int | None = field(
        default=None,
        metadata=DATA.option(
            "Maximum number of tokens per input; longer texts are truncated; tagged words and passages are read in "
            "windows.",
            "N",
            default="128; 384 for question answering",
        ),
    )

    frozen_start: bool = field(
        default=True,
        metadata=START.option(
            "Start from a linear head that is fitted to frozen vectors, on tables of up to 10,000 rows. The head "
            "reads the mean of the tokens, which other libraries do not support."
        ),
    )
    few_shot: bool = field(
        default=False,
        metadata=START.option("Only fit a linear head to frozen vectors, in seconds: for a few examples per label."),
    )
    epochs: float | None = field(
        default=None, metadata=TRAINING.option("Training epochs.", "N", default="3, or enough for 60 steps")
    )
    max_steps: int | None = field(
        default=None, metadata=TRAINING.option("Steps in total, instead of --epochs.", "N", default="all epochs")
    )
    batch_size: int = field(default=32, metadata=TRAINING.option("Batch size: examples per step.", "N"))
    accumulation: int = field(
        default=1,
        metadata=TRAINING.option("Gradient accumulation: micro-batches per step; more of them need less memory.", "N"),
    )
    learning_rate: float | None = field(
        default=None, metadata=TRAINING.option("Peak learning rate.", "X", default="5e-5; 5e-4 from scratch")
    )
    warmup: float = field(
        default=0.1,
        metadata=TRAINING.option("Fraction of steps for linear warm-up; the rate then decays linearly to 0.", "X"),
    )
    warmup_steps: int | None = field(
        default=None, metadata=TRAINING.option("Steps of warm-up, instead of --warmup.", "N", default="from --warmup")
    )
    schedule: str = field(
        default="linear",
        metadata=TRAINING.option(
            "Learning rate after warm-up: linear decay to 0, or constant, so that the run can be continued.",
            choices=SCHEDULES,
        ),
    )
    decay_last: float = field(
        default=0.0,
        metadata=TRAINING.option(
            "With --schedule constant: fraction of steps, at the end, for linear decay to 0.", "X"
        ),
    )
    decay_now: int | None = field(
        default=None,
        metadata=TRAINING.option(
            "With --resume-from: linear decay to 0 over N steps from that state.", "N", default="no decay"
        ),
    )
    weight_decay: float = field(
        default=0.01, metadata=TRAINING.option("Weight decay, of all weights but biases and norms.", "X")
    )
    clip: float = field(default=1.0, metadata=TRAINING.option("Maximum norm of the gradient.", "X"))
    freeze: str | None = field(
        default=None,
        metadata=TRAINING.option(
            "Part of the model whose weights are not trained.", choices=FROZEN_PARTS, default="nothing is frozen"
        ),
    )
    seed: int = field(
        default=42, metadata=TRAINING.option("Seed of initial weights, data order, dropout and dev set.", "N")
    )
    precision: str = field(
        default="auto",
        metadata=TRAINING.option(
            "Precision of computation; auto is bf16 on GPUs and processors with bf16 instructions, and fp32 elsewhere.",
            choices=PRECISIONS,
        ),
    )
    class_weights: str | Mapping[str, float] | None = field(
        default=None,
        metadata=TRAINING.option(
            "Weights of examples in the loss, by label: balanced for equal total weights of all labels; or "
            "A=2,B=0.5, others 1.",
            "balanced|A=X,B=Y",
            default="1 for every label",
        ),
    )
    label_smoothing: float = field(
        default=0.0,
        metadata=TRAINING.option("Label smoothing: fraction of each target that is distributed over all labels.", "X"),
    )
    sample_weights: Sequence[float] | None = None
    """How much each row of `data` counts; in Python only."""
    quantization_aware: bool = field(
        default=False,
        metadata=TRAINING.option("Quantization-aware training of a MobileBERT, for integer-only engines."),
    )
    device: str | None = field(
        default=None, metadata=RUN.option("PyTorch device: cpu, cuda, cuda:1, …", "NAME", default="cuda if available")
    )

    sharded: bool = field(
        default=False, metadata=RUN.option("Shard weights, gradients and optimizer state across processes (FSDP2).")
    )

    eval_every: int | None = field(
        default=None, metadata=EVALUATION.option("Evaluate every N steps.", "N", default="one epoch")
    )
    metric: str | Callable[[Any, Any], float] | None = field(
        default=None,
        metadata=EVALUATION.option(
            "Metric that selects the best checkpoint: one of the task's, or a scikit-learn name such as f1_macro, "
            "balanced_accuracy or roc_auc (extra sklearn).",
            "NAME",
            default="the task's first metric",
        ),
    )
    thresholds: str | None = field(
        default=None,
        metadata=EVALUATION.option(
            "For several labels per text: fit a threshold per label on the dev set, for the best F1 or a precision "
            "such as 0.95.",
            "f1|X",
            default="0.5 for every label",
        ),
    )
    baseline: bool = field(
        default=False,
        metadata=EVALUATION.option(
            "Compare with TF-IDF and logistic regression on the same examples; needs the extra sklearn."
        ),
    )
    patience: int | None = field(
        default=None,
        metadata=EVALUATION.option("Stop after N evaluations without improvement.", "N", default="no early stopping"),
    )
    resume: bool = field(default=False, metadata=RUN.option("Resume the run in the output folder, or start it."))
    resume_from: Path | str | None = field(
        default=None,
        metadata=RUN.option(
            "Continue the run in another folder, from its newest training state; that folder is not changed.",
            "FOLDER",
            default="a new run",
        ),
    )
    push: str | None = field(
        default=None,
        metadata=RUN.option(
            "Push the finished model to the hub under this name; a new repository is private.", "NAME",
            default="not pushed",
        ),
    )  # fmt: skip
    tensorboard: bool = field(default=True, metadata=RUN.option("Write learning curves for TensorBoard."))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_places()
        if self.from_scratch is not None:
            self._check("model", self.model is None, "and --from-scratch exclude each other: choose one of them")
        elif self.model is None:
            object.__setattr__(self, "model", ENCODER)
        if self.vocab_size is not None and (self.from_scratch is None or self.tokenizer is not None):
            raise ConfigError("--vocab-size trains a new vocabulary: it needs --from-scratch, and no --tokenizer")
        if self.from_scratch is not None and self.vocab_size is None and self.tokenizer is None:
            raise ConfigError("--from-scratch needs a vocabulary: --tokenizer vocab.txt, or --vocab-size to train one")
        if self.glue is not None:
            for name in ("eval_data", "text_column", "text_pair_column", "label_column", "labels"):
                self._check(name, getattr(self, name) is None, f"follows from --glue {self.glue}; leave it out")
            for name in ("skip_bad", "merge_labels"):
                self._check(name, not getattr(self, name), f"is not for --glue {self.glue}; leave it out")
        of_texts = () if self.task == "text-classification" else _OF_TEXTS
        for name in (*foreign_options(self.task), *of_texts):
            unused = getattr(self, name) is None or getattr(self, name) in (False, 0.0)
            self._check(name, unused, f"is not for --task {self.task}; leave it out")
        if self.thresholds is not None:
            from pocketbert.decisions import read_goal  # which needs NumPy, and `--help` does not

            read_goal(self.thresholds)
            self._check(
                "thresholds", self.task == "text-classification", f"is not for --task {self.task}; leave it out"
            )
        names = self.labels
        self._check(
            "labels", names is None or len(set(names)) == len(names) > 1, "must be two names or more, all different"
        )
        at_least = {
            "max_length": 4, "batch_size": 1, "accumulation": 1, "seed": 0, "eval_every": 1, "patience": 1,
            "max_steps": 1, "warmup_steps": 0, "decay_now": 1,
        }  # fmt: skip
        for name, least in at_least.items():
            value = getattr(self, name)
            self._check(name, value is None or value >= least, f"must be at least {least}")
        for name in ("epochs", "learning_rate", "clip"):
            value = getattr(self, name)
            self._check(name, value is None or 0 < value < math.inf, "must be positive and finite")
        self._check("sharded", not (self.sharded and self.quantization_aware), "excludes --quantization-aware")
        self._check("accumulation", self.accumulation <= self.batch_size, f"exceeds --batch-size {self.batch_size}")
        self._check("warmup", 0 <= self.warmup <= 1, "must lie in [0, 1]")
        self._check("weight_decay", self.weight_decay >= 0, "must not be negative")
        self._check_schedule()
        self._check("eval_fraction", 0 < self.eval_fraction < 1, "must lie between 0 and 1")
        self._check("label_smoothing", 0 <= self.label_smoothing < 1, "must lie in [0, 1)")
        self._check_weights()

    def _check_places(self) -> None:
        """Give data in memory one form, and check that what needs a folder has one."""
        for name in ("data", "eval_data"):
            data = getattr(self, name)
            if isinstance(data, str | Path) or (data is None and name == "eval_data"):
                continue
            from pocketbert.data.memory import as_source

            object.__setattr__(self, name, as_source(data))
            self._check(name, self.glue is None, "is in memory: --glue reads a folder")
            self._check(name, self.task in TASKS, f"is in memory: --task {self.task} reads a folder")
        self._check("push", self.push is None or not self.few_shot, "is not for --few-shot: use `hf upload`")
        if self.output is None:
            for name in ("push", "resume", "resume_from"):
                self._check(name, not getattr(self, name), "needs an output folder")

    def _check_weights(self) -> None:
        weights = self.weights_by_label() or {}
        positive = all(0 < weight < math.inf for weight in weights.values())
        self._check("class_weights", positive, "must be positive and finite")
        samples = self.sample_weights
        if samples is None:
            return
        if not (all(0 <= weight < math.inf for weight in samples) and any(weight > 0 for weight in samples)):
            raise ConfigError("sample_weights must be finite, not negative, and some of them positive")
        if self.skip_bad or self.glue is not None:
            raise ConfigError("sample_weights stand for all rows of a table: leave out skip_bad and glue")

    @property
    def metric_name(self) -> str | None:
        """The name of the metric that selects the best model, if one was chosen."""
        return self.metric if self.metric is None or isinstance(self.metric, str) else metric_name(self.metric)

    def weights_by_label(self) -> dict[str, float] | None:
        """Return the weights of `class_weights` by label; None where they are balanced, or where there are none."""
        given = self.class_weights
        if given is None or given == "balanced":
            return None
        if not isinstance(given, str):
            return {str(name): float(weight) for name, weight in given.items()}
        weights = {}
        for part in given.split(","):
            name, equals, value = part.rpartition("=")
            try:
                weights[name.strip()] = float(value)
            except ValueError:
                equals = ""
            self._check("class_weights", bool(equals and name), "must be balanced, or A=2,B=0.5 with names of labels")
        return weights

    def _check_schedule(self) -> None:
        constant = self.schedule == "constant"
        self._check(
            "schedule",
            not constant or self.warmup_steps is not None,
            "needs --warmup-steps: the number of steps of a run that can be continued is not known",
        )
        self._check("decay_last", 0 <= self.decay_last <= 1, "must lie in [0, 1]")
        self._check("decay_last", constant or self.decay_last == 0, "needs --schedule constant")
        if self.decay_now is not None:
            self._check("decay_now", constant, "needs --schedule constant")
            self._check("decay_now", self.resume_from is not None, "needs --resume-from, the run whose rate decays")
            for name, unused in (("decay_last", 0.0), ("max_steps", None)):
                self._check(
                    name, getattr(self, name) == unused, "is not for --decay-now, which sets the number of steps"
                )


def refuse_push(options: FinetuneOptions) -> None:
    """Raise `ConfigError` where each of several runs would push its model under the same name."""
    if options.push is not None:
        raise ConfigError("--push is for a single run: after several, push the best one with `hf upload`")
