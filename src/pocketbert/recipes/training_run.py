"""Base of all training runs: device, precision, run folder, run manifest, log and learning curves.

A run is `FinetuneRun`, `DistillationRun`, `EncoderDistillationRun`, `PretrainRun` or `TransferRun`. All have the same
parts: `read` (data), `facts` (for the manifest), `prepare` (tokenizer and model), `objective` and `evaluate`. The
method `run` of each puts its parts together, from top to bottom, with the methods of this base.
"""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

from pocketbert import machine
from pocketbert.data.batches import random_words
from pocketbert.errors import CheckpointError
from pocketbert.models.cpu import keep_freed_memory
from pocketbert.models.device import choose_device
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.run_manifest import RunManifest, lock_folder, open_run_folder
from pocketbert.tasks.evaluation import Scores
from pocketbert.tokenization import BertTokenizer
from pocketbert.training.callbacks import Callback
from pocketbert.training.distributed import SINGLE_PROCESS, ProcessGroup, local_device
from pocketbert.training.loop import TrainingSchedule, train
from pocketbert.training.objectives import Batch, Objective
from pocketbert.training.progress import Progress, Writer, print_line
from pocketbert.training.state import State, latest_state


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a training run."""

    folder: Path
    """The model, ready to be loaded. Where a run was to keep nothing on disk there is no such folder any more."""
    metrics: dict[str, float]
    """Metrics of that model on the dev set, or the held-out split of a corpus."""
    steps: int
    """Number of optimizer steps."""
    history: list[dict[str, float]]
    """Step and metrics of every evaluation."""
    seconds: float
    """Duration of the run, including the time before it was resumed."""


class TrainingRun(ABC):
    """A run that trains a model.

    Args:
        options: options of the run.
        console: where to show progress: a bar on a terminal, lines otherwise; without a console lines go to the log.
        argv: the command, for `run.json`.
        processes: the processes that train together; the first one writes and logs.

    Raises:
        ConfigError: the device cannot be used.
    """

    def __init__(
        self,
        options: FinetuneOptions | PretrainOptions,
        *,
        console: Console | None = None,
        argv: Sequence[str] = (),
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._options, self.argv, self.processes = options, list(argv), processes
        self.console = console if processes.first else None
        assert options.output is not None, "a run has a folder, if only for its own time: `epoch_run.carry_out`"
        self.folder = Path(options.output)
        self.device = choose_device(options.device or local_device())
        units = _bf16_units(self.device) if options.precision == "auto" else None
        self.bf16 = options.precision == "bf16" or units is not None
        self._why = "" if units is None else f" ({units})"
        self.manifest: RunManifest | None = None

    # ── the parts of a run ──

    @abstractmethod
    def read(self) -> None:
        """Read the data. Raises `DataError`."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the facts that decide the result besides the options, for `run.json`."""

    @abstractmethod
    def prepare(self) -> tuple[BertTokenizer, PreTrainedModel]:
        """Return the tokenizer, and the model with its initial weights."""

    @abstractmethod
    def objective(self, model: PreTrainedModel) -> Objective:
        """Return the objective of the model."""

    @abstractmethod
    def evaluate(self, objective: Objective) -> Scores:
        """Return the metrics of the current model."""

    @abstractmethod
    def run(self) -> RunResult:
        """Train the model, or resume its training."""

    def adjustable(self) -> Collection[str]:
        """Return the names of the options that a resumed run may change."""
        return ()

    # ── what all runs have in common ──

    def log(self, text: str) -> None:
        """Print a line to the console or the log, in the first process."""
        if self.processes.first:
            print_line(self.console, text)

    def open_folder(self) -> dict[str, Any] | None:
        """Check that the run may use its folder; return the manifest of a run to resume. Raises `CheckpointError`.

        A resumed run keeps the precision that it had chosen, on whatever machine.
        """
        first = self.processes.first
        previous = open_run_folder(self.folder, resume=self._options.resume) if first else None
        if previous is not None and self._options.precision == "auto":
            before = previous.get("precision", "fp32")
            self._why = self._why if before == self.precision else " (as before)"
            self.bf16 = before == "bf16"
        self.bf16 = bool(self.processes.largest(int(self.bf16 and first)))
        return previous

    @property
    def precision(self) -> str:
        """The precision of the run."""
        return "bf16" if self.bf16 else "fp32"

    @property
    def described_precision(self) -> str:
        """The precision of the run, and why, for the log."""
        return self.precision + self._why

    @contextlib.contextmanager
    def recording(self, previous: Mapping[str, Any] | None) -> Iterator[None]:
        """Lock the folder and write the manifest of the run inside of a block.

        Args:
            previous: the manifest of the run to resume.

        Raises:
            ConfigError: that run had other options or data.
            CheckpointError: the folder is in use or cannot be written.
        """
        first = self.processes.first
        with lock_folder(self.folder) if first else contextlib.nullcontext():
            facts = {**self.facts(), "precision": self.precision}
            if first:
                self.manifest = RunManifest(self.folder, self._options, facts, self.argv, previous, self.adjustable())
            self.processes.wait()  # until the first process knows that the run may start
            yield

    def record(self, **facts: Any) -> None:
        """Add facts to the manifest."""
        if self.manifest is not None:
            self.manifest.write(**facts)

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """Draw initial weights in the block from the seed of the run, and restore PyTorch's generator afterwards."""
        with torch.random.fork_rng([]):
            torch.manual_seed(int(random_words(self._options.seed, "weights", 0, 1)[0]))
            yield

    def write_companions(self, tokenizer: BertTokenizer, model: PreTrainedModel) -> None:
        """Write tokenizer and configuration before training, unless a resumed run already has."""
        if self.processes.first and not (self.folder / "config.json").exists():
            tokenizer.save_pretrained(self.folder)
            model.config.save_pretrained(self.folder)

    def train(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        batches: Callable[[int], Sequence[Batch]],
        schedule: TrainingSchedule,
        *,
        rate: Callable[[int], float],
        on_evaluation: Callable[[State], None],
        describe: Callable[[int], str] = "batch {}".format,
        title: str = "training",
        callback: Callback | None = None,
    ) -> State:
        """Train with progress and learning curves; arguments and errors as of `training.loop.train`."""
        first = self.processes.first
        if self.device.type == "cpu":
            keep_freed_memory()
        with (
            Progress(schedule.steps, self.console, title) as progress,
            self._curves(first and self._options.tensorboard) as writer,
        ):
            return train(
                objective,
                optimizer,
                batches,
                schedule,
                rate=rate,
                evaluate=lambda: self.evaluate(objective),
                on_evaluation=on_evaluation,
                folder=self.folder / "checkpoints",
                progress=progress,
                writer=writer,
                processes=self.processes,
                describe=describe,
                callback=callback,
            )

    @contextlib.contextmanager
    def _curves(self, wanted: bool) -> Iterator[Writer | None]:
        """Write learning curves for TensorBoard, if wanted; those of repeated steps are cut off."""
        if not wanted:
            yield None
            return
        # TensorBoard's own switch to do without TensorFlow, which takes ten seconds to import and prints ten lines.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        from torch.utils.tensorboard import SummaryWriter

        state = latest_state(self.folder / "checkpoints")
        arguments: dict[str, Any] = {"purge_step": int(state.name.removeprefix("step-")) + 1} if state else {}
        writer = SummaryWriter(self.folder / "tensorboard", **arguments)
        try:
            with contextlib.closing(writer):
                yield writer
        except CheckpointError:
            raise
        except OSError as error:
            folder = self.folder / "tensorboard"
            raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from error

    @property
    def seconds(self) -> float:
        """Duration of the run so far, including the time before it was resumed."""
        return 0.0 if self.manifest is None else self.manifest.seconds


def _bf16_units(device: torch.device) -> str | None:
    """What makes bf16 faster than fp32 on this device, for the log; None where nothing does."""
    if device.type == "cuda":
        return "supported by the GPU" if torch.cuda.is_bf16_supported() else None
    units = machine.bf16_units() if device.type == "cpu" else None
    used = torch.backends.mkldnn.is_available() and "AVX512" in torch.backends.cpu.get_cpu_capability()
    return f"the processor has {units}; --precision fp32 disables it" if units and used else None


def metrics_of(entry: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an entry of the history, without its step."""
    return {name: value for name, value in entry.items() if name != "step"}
