"""Options of benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pocketbert.options import Options, argument, option


@dataclass(frozen=True, kw_only=True)
class BenchOptions(Options):
    """Options of `bench`; the command's options have the same names.

    Raises `ConfigError` for values that are out of range.
    """

    models: tuple[str, ...] = field(
        default=(),
        metadata=argument(
            "Model folders, hub names, exported files, bundled models or presets.",
            metavar="[MODEL]...",
            repeated=True,
            default="the bundled models, and the presets of all families with random weights",
        ),
    )
    full: bool = field(
        default=False,
        metadata=option("Measure more shapes and all engines, for which models are exported. Takes many minutes."),
    )
    batch: tuple[int, ...] = field(
        default=(),
        metadata=option(
            "Texts per batch; repeat it to measure several.", "N", repeated=True, default="1, with --full 1 and 8"
        ),
    )
    length: tuple[int, ...] = field(
        default=(),
        metadata=option("Tokens per text; repeat it to measure several.", "N", repeated=True, default="32 and 128"),
    )
    text: Path | str | None = field(
        default=None, metadata=option("File of texts, one per line, to measure at their true lengths as well.", "FILE")
    )
    picture: Path | str | None = field(
        default=None, metadata=option("File for a plot of the results: .png or .svg.", "FILE")
    )
    exports: Path | str | None = field(
        default=None,
        metadata=option(
            "Folder in which to keep exported models for later runs.",
            "FOLDER",
            default="a temporary folder",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("batch", all(1 <= batch <= 1024 for batch in self.batch), "must lie in [1, 1024]")
        self._check("length", all(2 <= length <= 512 for length in self.length), "must lie in [2, 512]")
        picture = self.picture is None or Path(self.picture).suffix.lower() in (".png", ".svg")
        self._check("picture", picture, "must end in .png or .svg")
