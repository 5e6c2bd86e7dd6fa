"""Options of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketbert.errors import ConfigError
from pocketbert.options import Options, Panel, argument

DATA = Panel("Data")
RUN = Panel("Run")

# The options of labelled data, which evaluation and fine-tuning have in common.
GLUE = DATA.option("GLUE task whose official files DATA holds: sst-2, mrpc, …", "TASK")
TEXT_COLUMN = DATA.option(
    "Column of the text, or of the words for token classification; in CoNLL files, the column's number.",
    "NAME",
    default="detected",
)
TEXT_PAIR_COLUMN = DATA.option("Column of the second text, for text pairs.", "NAME", default="detected")
LABEL_COLUMN = DATA.option(
    "Column of the label or tags, or columns A,B,C of 0 and 1 for several labels per text; in CoNLL files, the "
    "column's number.", "NAME",
    default="detected",
)  # fmt: skip
SKIP_BAD = DATA.option("Skip bad rows; they are counted, listed, and written to a file.")
MERGE_LABELS = DATA.option("Merge labels that differ only in case or spaces.")


def metric_name(metric: Callable[..., Any]) -> str:
    """Return the name of a function that is a metric, also of one with arguments bound by `functools.partial`."""
    return str(getattr(getattr(metric, "func", metric), "__name__", type(metric).__name__))


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """Options of `evaluate`; the command's options have the same names.

    In Python, `data` may be in memory; see `pocketbert.data.memory`.

    Raises `ConfigError` for values that contradict each other, `DataError` for data in memory that is no table.
    """

    model: str | Path = field(metadata=argument("Model folder, hub name or exported file."))
    data: Path | str | Any = field(
        metadata=argument("Labelled data: a file in one of the formats of the model's task; with --glue a folder.")
    )

    glue: str | None = field(default=None, metadata=GLUE)
    text_column: str | None = field(default=None, metadata=TEXT_COLUMN)
    text_pair_column: str | None = field(default=None, metadata=TEXT_PAIR_COLUMN)
    label_column: str | None = field(default=None, metadata=LABEL_COLUMN)
    labels: tuple[str, ...] | None = field(
        default=None,
        metadata=DATA.option(
            "Names of the model's labels in the order of their ids.", "A,B,C", default="those in the model's config"
        ),
    )
    skip_bad: bool = field(default=False, metadata=SKIP_BAD)
    merge_labels: bool = field(default=False, metadata=MERGE_LABELS)
    max_length: int | None = field(
        default=None,
        metadata=DATA.option(
            "Maximum number of tokens per input; longer texts are truncated; tagged words and passages are read in "
            "windows.",
            "N",
            default="the model's maximum; 384 for question answering",
        ),
    )

    output: Path | str | None = field(
        default=None,
        metadata=RUN.option(
            "Folder for the predictions in the usual files of the task, and the report.",
            "FOLDER",
            names=["--output", "-o"],
        ),
    )
    submission: Path | str | None = field(
        default=None,
        metadata=RUN.option("With --glue: file for predictions on the test set, as the benchmark takes them.", "ZIP"),
    )
    device: str | None = field(
        default=None,
        metadata=RUN.option("PyTorch device: cpu, cuda, cuda:1, …", "NAME", default="the engine, without PyTorch"),
    )

    metric: str | Callable[[Any, Any], float] | None = field(
        default=None,
        metadata=RUN.option(
            "Additional metric: a scikit-learn name such as balanced_accuracy, f1_weighted or roc_auc; needs the "
            "extra sklearn.",
            "NAME",
            default="those of the task",
        ),
    )
    """In Python also a function of labels and predictions: for classes, lists of names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.data, str | Path):
            from pocketbert.data.memory import as_source

            object.__setattr__(self, "data", as_source(self.data))
            self._check("data", self.glue is None, "is in memory: --glue reads a folder")
        if self.submission is not None and self.glue is None:
            raise ConfigError("--submission needs --glue, the task")
