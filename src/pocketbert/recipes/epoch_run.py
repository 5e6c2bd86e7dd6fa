"""Base of runs over epochs of training data that keep the best model: fine-tuning and distillation.

The output folder is the best model in Hugging Face layout. Beside it: `run.json`, `last/` (the model after the last
step), `evaluation/` (predictions of the best model, and its calibration), `README.md` (its card), `report.html`,
`curves.png`, `reliability.png`, `checkpoints/` (the newest training state, for resuming) and `tensorboard/`.
"""

from __future__ import annotations

import copy
import math
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pocketbert.calibration import in_words
from pocketbert.checkpoints.push import prepare_push, push
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.data.bad_rows import describe_bad_rows, write_bad_rows
from pocketbert.data.batches import Batches
from pocketbert.errors import ConfigError
from pocketbert.features import fit
from pocketbert.models.auto import model_class
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.calibrated import read_record
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.model_card import write_reports
from pocketbert.recipes.processes import SharedBatches, distributed
from pocketbert.recipes.run_length import ADJUSTABLE, RunLength, continue_run, progress_in
from pocketbert.recipes.training_run import RunResult, TrainingRun, metrics_of
from pocketbert.tasks.base import EncodedData, EncodedTask, TrainingData
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.training.callbacks import Callback
from pocketbert.training.distributed import SINGLE_PROCESS, ProcessGroup, copies, shard
from pocketbert.training.loop import TrainingSchedule
from pocketbert.training.objectives import Objective
from pocketbert.training.optim import adamw
from pocketbert.training.quantization import make_quantization_aware
from pocketbert.training.state import State, latest_state

#: Measures the latency of a model folder: condition → milliseconds, for the model card.
MeasureLatency = Callable[[Path], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class FinetuneResult(RunResult):
    """Result of a fine-tuning or distillation run; its metrics are those of the best model."""

    best_step: int
    """The step of the best model."""
    task: str
    """The task of the model."""
    pairs: bool
    """Whether its inputs are pairs of texts."""
    model: PreTrainedModel | None = None
    """The best model, of a run that keeps nothing on disk."""
    tokenizer: BertTokenizer | None = None
    """Its tokenizer."""


class EpochRun(TrainingRun):
    """A run over epochs of training data that keeps the best model; see `TrainingRun`.

    Args:
        measure_latency: measures the best model, for its card.
        callback: receives steps and evaluations, and may end the run.
        processes: the processes that train together.

    Raises:
        ConfigError: the run is one that several processes cannot share.
    """

    data: TrainingData
    encoded: EncodedData
    _whole: PreTrainedModel | None = None  # of a model with sharded weights
    kept = True
    """Whether the folder is kept after the run."""
    evaluate_first: frozenset[int] = frozenset()
    """{0} where the model is evaluated before the first step."""

    def __init__(
        self,
        options: FinetuneOptions,
        *,
        console: Console | None = None,
        argv: Sequence[str] = (),
        measure_latency: MeasureLatency | None = None,
        callback: Callback | None = None,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        super().__init__(options, console=console, argv=argv, processes=processes)
        if processes.count > 1 and options.quantization_aware:
            raise ConfigError("--quantization-aware observes all activations in one process: run it without torchrun")
        if options.batch_size < processes.count:
            raise ConfigError(
                f"--batch-size {options.batch_size} is less than one example for each of {processes.count} processes"
            )
        self.options, self.measure_latency, self.callback = options, measure_latency, callback

    @abstractmethod
    def metrics(self) -> list[str]:
        """Return the names of the metrics, the main metric first."""

    @property
    def parts(self) -> int:
        """The micro-batches per step: so many that all processes have the same number."""
        count = self.processes.count
        return math.ceil(self.options.accumulation / count) * count

    def evaluated(self, objective: Objective) -> PreTrainedModel:
        """Return the model to evaluate: of sharded weights a whole copy, for which all processes call this."""
        model = objective.model
        assert isinstance(model, PreTrainedModel)
        if self._whole is None:
            return model
        self._whole.load_state_dict(copies(model.state_dict().items(), kept=True))
        return self._whole.eval()

    def save_best(self, model: PreTrainedModel) -> None:
        """Save the model that the latest evaluation found to be the best."""
        model.save_pretrained(self.folder)

    @abstractmethod
    def write_predictions(self, folder: Path) -> None:
        """Write the predictions of the latest evaluation to `folder`."""

    def encode(self, tokenizer: BertTokenizer, config: PreTrainedConfig) -> EncodedData:
        """Return the encoded data."""
        return self.data.encode(tokenizer, config, self.max_length(config))

    def batches(self) -> Batches:
        """Return the training batches."""
        options = self.options
        return self.encoded.batches(batch_size=options.batch_size, parts=self.parts, seed=options.seed)

    def run(self) -> FinetuneResult:
        """Train the model, or resume."""
        previous = self.open_folder()
        self.read()
        if self.options.push is not None and self.processes.first:
            prepare_push(self.options.push)
        with self.recording(previous):
            self.log(self.data.describe())
            self._report_bad_rows()
            self.progress = self._progress()
            with self.seeded():
                tokenizer, model = self.prepare()
                self.write_companions(tokenizer, model)
                self.encoded = self.encode(tokenizer, model.config)
                self._note_lengths(fit(tokenizer, self.max_length(model.config)))
                batches = self.batches()
                if self.options.freeze == "embeddings":
                    model.base_model.embeddings.requires_grad_(False)
                objective = self.objective(model)
            self.begin(model)
            return self.train_epochs(tokenizer, model, objective, batches, previous or {})

    def begin(self, model: PreTrainedModel) -> None:
        """Prepare the weights of a run that starts, where the data is needed for that."""

    def report(self, latency: Mapping[str, float] | None) -> None:
        """Write the report on the best model, where it answers examples with labels."""

    def end(self, best: Mapping[str, float]) -> None:
        """Log what the metrics of the best model say about the run."""

    def adjustable(self) -> Collection[str]:
        """Return the options that decide how long a run with a constant rate lasts."""
        return ADJUSTABLE if self.options.schedule == "constant" else ()

    def _progress(self) -> State:
        """Return the progress of the run so far; a new run may continue another one."""
        source = self.options.resume_from
        if source is None or latest_state(self.folder / "checkpoints") is not None:
            return progress_in(self.folder)
        self.log(f"continuing the run in {source}")
        if self.processes.first:
            continue_run(Path(source), self.folder)
        self.processes.wait()
        return progress_in(self.folder)

    def max_length(self, config: PreTrainedConfig) -> int:
        """Return the maximum tokens per input."""
        return min(self.options.max_length or self.data.usual_length, config.max_tokens)

    def _report_bad_rows(self) -> None:
        """Log the rows that were skipped, and write them to a file of the run."""
        files = self.data.bad_rows()
        for name, bad in files:
            self.log(f"{name}: {describe_bad_rows(bad)}")
        if files and self.processes.first:
            path = self.folder / "bad-rows.jsonl"
            write_bad_rows(path, files)
            self.log(f"all of them are in {path}")

    def _note_lengths(self, read: int) -> None:
        """Log what `read`, the maximum tokens per input, leaves of the options and of the training examples."""
        wanted = self.options.max_length
        if wanted is not None and read < wanted:
            self.log(f"--max-length {wanted}: the model reads at most {read} tokens")
        if isinstance(self.encoded, EncodedTask) and (note := self.encoded.cut_note(read)) is not None:
            self.log(note)

    def train_epochs(
        self,
        tokenizer: BertTokenizer,
        model: PreTrainedModel,
        objective: Objective,
        batches: Batches,
        previous: Mapping[str, Any],
    ) -> FinetuneResult:
        """Train, keep the best model, and write the reports."""
        options = self.options
        if options.quantization_aware:
            objective.ranges = make_quantization_aware(model)
        objective.to(self.device)
        if self.processes.count > 1:
            batches = SharedBatches(batches, self.processes)
        if options.sharded and self.processes.count > 1:
            self._whole = copy.deepcopy(model)
            shard(objective, model.base_model.layers, self.device)
        metric = self._choose_metric()
        peak = options.learning_rate or (5e-5 if options.from_scratch is None else 5e-4)
        length = RunLength.of(options, batches, self.progress.start)
        length.check_resumed(self.progress.step, previous)
        schedule = TrainingSchedule(
            steps=length.steps,
            evaluate_at=length.evaluations(options, batches) | self.evaluate_first,
            metric=metric,
            patience=options.patience,
            seed=options.seed,
            clip=options.clip,
            bf16=self.bf16,
        )
        self.log(
            f"{type(model).__name__} of {model.num_parameters():,} parameters on {self.device}{self._together()} in "
            f"{self.described_precision}; {schedule.steps:,} steps of {options.batch_size} examples, peak learning "
            f"rate {peak:g}"
        )
        self.record(
            labels=model.config.id2label,
            metric=metric,
            steps=length.steps,
            decay_begins=length.decay_begins,
            started_at_step=self.progress.start,
            parameters=model.num_parameters(),
        )

        def on_evaluation(state: State) -> None:
            best = state.best(metric)
            assert best is not None
            if not self.processes.first:
                return
            if best is state.history[-1]:
                self.save_best(self._whole or model)
                self.write_predictions(self.folder / "evaluation")
            self.record(best=self._as_saved(best), history=state.history)

        state = self.train(
            objective,
            adamw(objective, learning_rate=peak, weight_decay=options.weight_decay),
            batches,
            schedule,
            rate=length.rate,
            on_evaluation=on_evaluation,
            callback=self.callback,
        )
        found = state.best(metric)
        assert found is not None  # the last step is always followed by an evaluation
        best, seconds = found, self.seconds
        if self.processes.first:
            (self._whole or model).save_pretrained(self.folder / "last")
            tokenizer.save_pretrained(self.folder / "last")
            best, calibration = self._as_saved(found), read_record(self.folder)
            facts = {} if calibration is None else {"calibration": calibration}
            self.record(finished=True, best=best, history=state.history, **facts)
            if calibration is not None:
                self.log(in_words(calibration))
            self.end(best)
            seconds = self.seconds
            latency = None if self.measure_latency is None else self.measure_latency(self.folder)
            if self.kept:
                write_reports(self.folder, self.log, latency)
                self.report(latency)
            if self.options.push is not None:
                self.log(f"pushed to {push(self.folder, self.options.push)}")
        return FinetuneResult(
            folder=self.folder,
            metrics=metrics_of(best),
            steps=state.step,
            history=state.history,
            seconds=seconds,
            best_step=int(best["step"]),
            task=self.data.name,
            pairs=self.data.pairs,
        )

    def _together(self) -> str:
        """What the log says of the processes."""
        sharded = " with sharded weights" if self._whole is not None else ""
        return f" in {self.processes.count} processes{sharded}" if self.processes.count > 1 else ""

    def _as_saved(self, best: dict[str, float]) -> dict[str, float]:
        """Return the entry of the best model with the metrics of the weights in the folder, which are calibrated."""
        record = read_record(self.folder)
        return best if record is None else {**best, **record["metrics"]}

    def _choose_metric(self) -> str:
        """Return the metric that selects the best model. Raises `ConfigError` for an unknown metric."""
        wanted, known = self.options.metric, self.metrics()
        if callable(wanted) or (isinstance(self.encoded, EncodedTask) and self.encoded.evaluation.custom is not None):
            return known[0]
        if wanted is not None and wanted not in known:
            raise ConfigError(f"--metric {wanted} must be one of {', '.join(known)}")
        return wanted or known[0]


def carry_out(run: type[EpochRun], options: FinetuneOptions, **context: Any) -> FinetuneResult:
    """Carry out a run, alone or as one of the processes that `torchrun` started.

    Without an output folder it is carried out in one that is gone afterwards, so the result has the model.

    Args:
        run: the class of the run.
        options: its options.
        **context: its other arguments.
    """
    if options.few_shot:
        raise ConfigError("few_shot trains no encoder: call pocketbert.few_shot")
    if options.output is not None:
        with distributed() as processes:
            return run(options, processes=processes, **context).run()
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as folder:
        in_memory = run(replace(options, output=folder, tensorboard=False), **context)
        in_memory.kept = False
        result = in_memory.run()
        tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
        model = model_class(config, config.saved_head).from_pretrained(folder)
    return replace(result, model=model, tokenizer=tokenizer)
