"""Options of bulk inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pocketbert.errors import ConfigError
from pocketbert.options import Options, Panel

if TYPE_CHECKING:
    from pocketbert.data.executors import ExecutorName

FILES = Panel("Large files")
Format = Literal["jsonl", "csv", "parquet"]


@dataclass(frozen=True, kw_only=True)
class BulkOptions(Options):
    """Options of `answer_files`; those of commands with `--output` have the same names.

    Raises `ConfigError` for values that are out of range or contradict each other.
    """

    file: str | Path
    """The input: a name, a pattern such as `reviews/*.parquet`, or a URL of either (`s3://…`)."""
    task: str = "text-classification"
    """One of `pipelines.TASKS`."""
    model: str | Path | None = None
    """A model folder, which all machines must see, or a hub name; by default as of `pipeline`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the pipeline's calls; with `top_k` a row has a list of results."""
    questions: tuple[str, ...] = ()
    """Questions of question-answering about every text; the rows of one text are in this order."""
    text_column: str | None = None
    text_pair_column: str | None = None
    text_pair: str | None = None
    """Second text for every line of a file without columns."""

    output: str | None = field(
        default=None,
        metadata=FILES.option(
            "Write the results of --file to shards in this folder, or under this URL; the same command continues "
            "after an interruption.",
            "FOLDER|URL",
            names=["--output", "-o"],
        ),
    )
    format: Format = field(
        default="jsonl", metadata=FILES.option("File format of the shards.", choices=("jsonl", "csv", "parquet"))
    )
    keep: tuple[str, ...] = field(
        default=(), metadata=FILES.option("Input columns to copy to the results.", "A,B", default="none")
    )
    shard_rows: int = field(default=8192, metadata=FILES.option("Input rows per shard.", "N"))
    workers: int | None = field(
        default=None,
        metadata=FILES.option(
            "Worker processes, each with a model and one thread.",
            "N",
            default="this process with all threads; with --engine ray one per processor",
        ),
    )
    engine: ExecutorName = field(
        default="local",
        metadata=FILES.option(
            "Processes of this machine, or a Ray cluster; the result is the same.", choices=("local", "ray")
        ),
    )
    address: str | None = field(
        default=None,
        metadata=FILES.option("Address of a Ray cluster, or auto.", "HOST:PORT", default="this machine only"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("shard_rows", self.shard_rows >= 1, "must be at least 1")
        self._check("workers", self.workers is None or self.workers >= 1, "must be at least 1")
        self._check("address", self.address is None or self.engine == "ray", "needs --engine ray")
        if self.output is None:
            raise ConfigError("bulk inference needs --output, the folder of its shards")
        if (self.task == "question-answering") != bool(self.questions):
            raise ConfigError("questions are for question-answering, which needs one or more")
