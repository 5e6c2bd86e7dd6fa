"""Base class of writers: what a format adds to an export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.source import Source
from pocketbert.exporters.verify import Outputs


class Writer(ABC):
    """Writes the files of one format.

    Args:
        source: the model.
        options: of the export.

    Raises:
        ConfigError: an option does not fit the model.
        InputError: an option does not fit the installed packages.
    """

    fixed_length: int | None = None
    """Tokens per input, if the files fix it."""

    def __init__(self, source: Source, options: ExportOptions) -> None:
        self.source, self.options = source, options

    @abstractmethod
    def write(self, path: Path, precision: str) -> None:
        """Write the model in one precision."""

    def comparable(self, outputs: Outputs) -> Outputs:
        """The part of a predictor's outputs that an exported file reproduces; all of them, unless overridden."""
        return outputs
