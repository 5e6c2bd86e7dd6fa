"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pocketbert.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `evaluate`; the command's options have the same names.

    Raises `ConfigError` for values that contradict each other.
    """

    model: str | Path
    """The model: a folder, a name on the hub, or an exported file."""
    data: str | Path
    """Labelled data of the model's task: a file, or with `glue` a folder."""

    glue: str | None = None
    """The GLUE task whose official files `data` holds, such as sst-2."""
    text_column: str | None = None
    """Column of the text [default: recognised by name]; for tagging, the number of the column of words."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str | None = None
    """Column of the label [default: recognised by name]; for tagging, the number of the column of tags."""
    labels: tuple[str, ...] | None = None
    """Names of the model's labels, in the order of its outputs [default: those of its configuration]."""
    max_length: int | None = None
    """Maximum tokens per input [default: 512; question answering: 384]."""

    output: str | Path | None = None
    """A folder for the predictions, in the usual files of the task."""
    submission: str | Path | None = None
    """A zip file for predictions on the GLUE test set, in the format of the benchmark."""
    device: str | None = None
    """Run in PyTorch on this device: cpu, cuda or cuda:1 [default: the engine, without PyTorch]."""

    def __post_init__(self) -> None:
        if self.submission is not None and self.glue is None:
            raise ConfigError("--submission is for GLUE: name the task with --glue")
