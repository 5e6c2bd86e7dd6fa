"""Options of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pocketbert.errors import ConfigError
from pocketbert.exporters.formats import FORMATS
from pocketbert.families.family import HEADS
from pocketbert.options import Options, argument, option


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Options of `export`; the command's options have the same names.

    Raises `ConfigError` for values that contradict each other or the format.
    """

    model: str | Path = field(metadata=argument("Model folder or hub name."))
    output: Path | str = field(metadata=argument("New output folder."))
    format: str = field(default="onnx", metadata=option("File format.", choices=tuple(FORMATS)))
    precisions: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "Precision of the weights; integer, for litert, is 8-bit integers throughout. Repeat it for several files.",
            names=["--precision"],
            default="fp32; int8 for web",
            choices=tuple(dict.fromkeys(name for format_ in FORMATS.values() for name in format_.files)),
            repeated=True,
        ),
    )
    opset: int | None = field(
        default=None, metadata=option("Version of the ONNX operator set.", metavar="N", default="17")
    )
    max_length: int | None = field(
        default=None,
        metadata=option("Tokens per input of a litert file.", metavar="N", default="128; 384 for question answering"),
    )
    calibration: Sequence[str] | None = None
    """Typical texts to calibrate the precision integer on; the first 100 are read."""
    texts: Sequence[str] | None = None
    """Texts to compare the outputs on [default: built-in sentences]."""
    eval_data: Path | str | None = field(
        default=None,
        metadata=option("Labelled data to evaluate the model and each file on.", names=["--eval"], metavar="DATA"),
    )
    glue: str | None = field(
        default=None,
        metadata=option("GLUE task whose official files the folder --eval holds: sst-2, mrpc, …", metavar="TASK"),
    )
    force: bool = field(
        default=False,
        metadata=option(
            "Accept any difference of 8-bit files, and a loss of more than one percentage point of the first metric."
        ),
    )
    head: str | None = field(
        default=None,
        metadata=option(
            f"Head of a model that has several: one of {', '.join(HEADS)}; Model is the encoder alone.",
            metavar="HEAD",
            choices=tuple(HEADS),
            default="its own",
        ),
    )
    revision: str | None = None
    """Branch, tag or commit on the hub."""

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = FORMATS[self.format]
        if not self.precisions:
            object.__setattr__(self, "precisions", (chosen.precision,))
        self._check(
            "precisions",
            set(self.precisions) <= chosen.files.keys(),
            f"does not fit --format {self.format}: choose from {', '.join(chosen.files)}",
        )
        for name in {name for other in FORMATS.values() for name in other.options} - {*chosen.options}:
            self._check(name, getattr(self, name) is None, f"is not for --format {self.format}; leave it out")
        self._check("max_length", self.max_length is None or self.max_length >= 4, "must be at least 4")
        if self.glue is not None and self.eval_data is None:
            raise ConfigError("--glue needs --eval, the folder with the task's files")
        if ("integer" in self.precisions) != (self.calibration is not None):
            raise ConfigError(
                "--precision integer needs typical texts to --calibrate on; other precisions do without them"
            )
