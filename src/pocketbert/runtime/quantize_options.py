"""Options of quantization."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pocketbert.errors import ConfigError
from pocketbert.options import Options, argument, option


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(Options):
    """Options of `quantize`; the command's options have the same names.

    Raises `ConfigError` for values that contradict each other.
    """

    model: str | Path = field(metadata=argument("Model folder or hub name."))
    output: Path | str = field(metadata=argument("New output folder."))
    eval_data: Path | str | None = field(
        default=None,
        metadata=option("Labelled data to evaluate the model on before and after.", "DATA", names=["--eval"]),
    )
    glue: str | None = field(
        default=None, metadata=option("GLUE task whose official files the folder --eval holds: sst-2, mrpc, …", "TASK")
    )
    share: bool = field(
        default=False,
        metadata=option(
            "Omit tensors that equal those of a bundled model, such as frozen embeddings; the folder then needs "
            "this version of PocketBERT."
        ),
    )
    force: bool = field(
        default=False, metadata=option("Accept a loss of more than one percentage point of the first metric.")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.glue is not None and self.eval_data is None:
            raise ConfigError("--glue needs --eval, the folder with the task's files")
