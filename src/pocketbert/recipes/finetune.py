"""Fine-tuning of a model for a task on labelled data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pocketbert.errors import PocketBertError
from pocketbert.frozen.few_shot import proposal
from pocketbert.models.predict import TorchPredictor
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.calibrated import save_calibrated
from pocketbert.recipes.epoch_run import EpochRun, FinetuneResult, MeasureLatency, carry_out
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.frozen_start import begins_frozen, fit_frozen_head
from pocketbert.recipes.models import prepare_model
from pocketbert.tasks import find_task
from pocketbert.tasks.base import EncodedTask, Task
from pocketbert.tasks.classification import TextClassification, TextEvaluation
from pocketbert.tasks.evaluation import Scores
from pocketbert.tokenization import BertTokenizer
from pocketbert.training.callbacks import Callback
from pocketbert.training.objectives import ExampleLoss, Objective, TokenLoss, WeightedLoss


def finetune(
    options: FinetuneOptions,
    *,
    console: Console | None = None,
    argv: Sequence[str] = (),
    measure_latency: MeasureLatency | None = None,
    callback: Callback | None = None,
) -> FinetuneResult:
    """Fine-tune a model for a task on labelled data, or resume such a run; alone or under `torchrun`.

    Args:
        options: model, data, task and hyperparameters.
        console: where to show progress: a bar on a terminal, lines otherwise; without a console lines go to the log.
        argv: the command, for `run.json`.
        measure_latency: measures the latency of the model folder, for the model card.
        callback: receives steps and evaluations, and may end the run.

    Raises:
        DataError: the data is invalid.
        ConfigError: options contradict each other, the model, or the run to resume.
        CheckpointError: a model or training state cannot be read or written, or the output folder is in use.
        TrainingInterrupted: SIGINT or SIGTERM arrived; the training state is saved.
        TrainingError: the loss is not finite.
    """
    return carry_out(
        FinetuneRun, options, console=console, argv=argv, measure_latency=measure_latency, callback=callback
    )


class FinetuneRun(EpochRun):
    """A run on labelled data: the labels are the targets, and the model is evaluated on the dev sets."""

    data: Task[Any]
    encoded: EncodedTask[Any]

    def read(self) -> None:
        """Read the data of the task."""
        self.data = find_task(self.options.task)(self.options)

    def facts(self) -> dict[str, Any]:
        """Return the files by hash."""
        return {"data": self.data.facts()}

    def prepare(self) -> tuple[BertTokenizer, PreTrainedModel]:
        """Return the tokenizer and the model of the options."""
        return prepare_model(self.folder, self.options, self.data, self.log)

    def begin(self, model: PreTrainedModel) -> None:
        """Fit the head of a classifier to the vectors of the encoder as it is, where a run on a small table starts."""
        fresh = model.config.classifier_input is not None and model.config.tuned_for is None
        if self.progress.step > 0 or not fresh or not begins_frozen(self.options, self.data):
            return
        head = fit_frozen_head(model.to(self.device), self.encoded, self.options.seed)
        if isinstance(self.data, TextClassification) and (line := proposal(self.data)) is not None:
            self.log(line)
        self.log(f"step 0 is a linear head on frozen vectors (regularization C = {head.strength:g})")
        self.evaluate_first = frozenset({0})

    def end(self, best: Mapping[str, float]) -> None:
        """Log that training did not beat the first step, or that nothing was learned."""
        if best["step"] == 0:
            self.log(
                "fine-tuning did not improve on the linear head on frozen vectors, which is the saved model; "
                "more steps may help"
            )
        evaluation = self.encoded.evaluation
        if not isinstance(evaluation, TextEvaluation):
            return
        if (note := evaluation.chance_note(best)) is not None:
            self.log(note)
        if self.options.baseline and isinstance(self.data, TextClassification):
            scores = evaluation.score_baseline(self.data.train, self.options.seed)
            self.record(baseline=scores)
            metric = next(iter(scores))
            better = best[metric] > scores[metric]
            self.log(
                f"TF-IDF with logistic regression: {metric} {scores[metric]:.4f}; the model {best[metric]:.4f}"
                + ("" if better else ": fine-tuning is not worth its time on this data")
            )

    def objective(self, model: PreTrainedModel) -> Objective:
        """Return the model's own loss on the labels, or that with weights."""
        if self.options.label_smoothing > 0 or "weights" in self.encoded.targets:
            return WeightedLoss(model, self.options.label_smoothing)
        return (TokenLoss if self.data.per_token else ExampleLoss)(model)

    def evaluate(self, objective: Objective) -> Scores:
        """Return the metrics on the dev sets."""
        return self.encoded.evaluation(TorchPredictor(self.evaluated(objective)))

    def metrics(self) -> list[str]:
        """Return the names of the metrics, the main metric first."""
        return self.encoded.evaluation.metrics()

    def save_best(self, model: PreTrainedModel) -> None:
        """Save the model; a classifier with the temperatures that calibrate it on the dev sets."""
        evaluation = self.encoded.evaluation
        if isinstance(evaluation, TextEvaluation) and (calibration := evaluation.calibrate()) is not None:
            evaluation.divide(calibration.temperatures)
            goal = self.options.thresholds
            thresholds = None if goal is None else evaluation.fit_thresholds(goal)
            metrics, levels = evaluation.rescored(), evaluation.levels()
            save_calibrated(model, self.folder, calibration, metrics, levels, thresholds)
        else:
            super().save_best(model)

    def write_predictions(self, folder: Path) -> None:
        """Write the predictions of the latest evaluation to `folder`."""
        self.encoded.evaluation.write(folder)

    def report(self, latency: Mapping[str, float] | None) -> None:
        """Write the report on the best model."""
        from pocketbert.reports.report import write_run_report

        evaluation = self.encoded.evaluation
        notes = self.data.text_facts() if isinstance(self.data, TextClassification) else {}
        if evaluation.cut_note is not None:
            notes["cut"] = evaluation.cut_note
        try:
            write_run_report(self.folder, latency, notes)
        except PocketBertError as error:  # the best model is of a version that wrote no outcomes, for example
            self.log(f"there is no report.html: {error}")
