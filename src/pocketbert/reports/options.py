"""Options of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pocketbert.errors import ConfigError
from pocketbert.options import Options, argument, option


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    """Options of `compare`; the command's options have the same names.

    Raises `ConfigError` for an output that exists.
    """

    first: Path | str = field(
        metadata=argument("Output folder of finetune, distill or evaluate, or the report in it.", metavar="A")
    )
    second: Path | str = field(metadata=argument("Another one, on the same examples.", metavar="B"))
    output: Path | str | None = field(
        default=None,
        metadata=option("HTML file for the comparison.", "FILE", names=["--output", "-o"], default="none"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output is not None and Path(self.output).exists():
            raise ConfigError(f"--output {self.output} exists: choose another name")
