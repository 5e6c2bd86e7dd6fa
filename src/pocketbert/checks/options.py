"""Options of a check."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketbert.bundles import ENCODER
from pocketbert.errors import ConfigError
from pocketbert.options import Options, argument, option
from pocketbert.tasks.evaluate_options import LABEL_COLUMN, TEXT_COLUMN, TEXT_PAIR_COLUMN


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Options):
    """Options of `check`; the command's options have the same names.

    In Python, `data` and `eval_data` may be in memory; see `pocketbert.data.memory`.

    Raises `ConfigError` for values that make no sense.
    """

    data: Path | str | Any = field(metadata=argument("Table of labelled texts."))
    eval_data: Path | str | Any = field(
        default=None,
        metadata=option("Evaluation data, to be checked for texts that are also in DATA.", "FILE", default="none"),
    )
    model: str = field(
        default=ENCODER,
        metadata=option("Encoder of the texts: a folder or hub name.", "FOLDER|NAME", names=["--model", "-m"]),
    )
    text_column: str | None = field(default=None, metadata=TEXT_COLUMN)
    text_pair_column: str | None = field(default=None, metadata=TEXT_PAIR_COLUMN)
    label_column: str | None = field(default=None, metadata=LABEL_COLUMN)
    max_length: int | None = field(
        default=None, metadata=option("Maximum number of tokens per text.", "N", default="the encoder's maximum")
    )
    seed: int = field(default=42, metadata=option("Seed of the folds of cross-validation.", "N"))
    output: Path | str | None = field(
        default=None,
        metadata=option("CSV file for all findings.", "FILE", names=["--output", "-o"], default="none"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("max_length", self.max_length is None or self.max_length >= 4, "must be at least 4")
        self._check("seed", self.seed >= 0, "must be at least 0")
        if self.output is not None and Path(self.output).exists():
            raise ConfigError(f"--output {self.output} exists: choose another name")
