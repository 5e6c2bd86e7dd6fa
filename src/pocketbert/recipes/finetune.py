"""Fine-tune a model on a table of texts or a GLUE task.

The output folder is the best model in Hugging Face layout. Beside it: `run.json`, `last/` (the model as it was at the
end), `evaluation/` (what the best one predicted), `README.md` (its card), `curves.png`, `checkpoints/` (the newest
state, from which the run can be resumed) and `tensorboard/`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pocketbert.data.batches import Batches, random_words
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.models.device import choose_device
from pocketbert.models.predict import TorchPredictor
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.models import prepare
from pocketbert.recipes.record import Record, claim, held
from pocketbert.recipes.report import write_reports
from pocketbert.tasks import find_task
from pocketbert.tasks.base import Task, TrainingData
from pocketbert.tasks.evaluation import Scores
from pocketbert.tokenization import BertTokenizer
from pocketbert.training.loop import Plan, train
from pocketbert.training.objectives import ExampleLoss, Objective, TokenLoss
from pocketbert.training.optim import adamw, linear_schedule
from pocketbert.training.progress import Progress, Writer, say
from pocketbert.training.quantization import make_quantization_aware
from pocketbert.training.state import State, latest_state


@dataclass(frozen=True)
class FinetuneResult:
    """What came out of a run."""

    folder: Path
    """The best model, ready to be loaded."""
    metrics: dict[str, float]
    """Of the best model, on the evaluation data."""
    best_step: int
    """After how many steps it was the best."""
    steps: int
    """How many steps there were."""
    history: list[dict[str, float]]
    """Step and metrics of every evaluation."""
    seconds: float
    """How long the run took, before it was resumed included."""


def finetune(options: FinetuneOptions, *, console: Console | None = None, argv: Sequence[str] = ()) -> FinetuneResult:
    """Fine-tune a model, or continue to.

    Args:
        options: what to do.
        console: where to show progress: a bar if it is a terminal, lines otherwise; the log gets the lines when None.
        argv: the command to note in `run.json`.

    Raises:
        DataError: something is wrong with the data.
        ConfigError: options contradict each other, the model, or the run that is to be resumed.
        CheckpointError: a model or state cannot be read or written, or the output folder is in use.
        TrainingInterrupted: SIGINT or SIGTERM came; the state is saved.
        TrainingError: the loss is not a number.
    """
    return learn(options, find_task(options.task), Lesson, console=console, argv=argv)


class Lesson:
    """What a run teaches its model, how the model begins and how it is measured: here by the data's own labels.

    Args:
        options: of the run.
        task: its data.
        device: where it computes.
        bf16: whether it does in bfloat16.
        console: where to show what takes long.
    """

    def __init__(
        self,
        options: FinetuneOptions,
        task: Task[Any],
        device: torch.device,
        bf16: bool,
        console: Console | None,
    ) -> None:
        self.options, self.task, self.device, self.bf16, self.console = options, task, device, bf16, console
        self.tell = partial(say, console)

    def facts(self) -> dict[str, Any]:
        """What decides the result besides options and data, for `run.json`."""
        return {}

    def prepare(self, folder: Path) -> tuple[BertTokenizer, PreTrainedModel]:
        """Tokenizer and model, both also written to `folder`."""
        self.tokenizer, model = prepare(folder, self.options, self.task, self.tell)
        return self.tokenizer, model

    def objective(self, model: PreTrainedModel, max_length: int) -> tuple[Objective, Batches]:
        """What is learned, and from which batches."""
        self.encoded: Any = self.task.encode(self.tokenizer, model.config, max_length)
        return (TokenLoss if self.task.per_token else ExampleLoss)(model), self.batches()

    def batches(self) -> Batches:
        """The training batches."""
        options = self.options
        return self.encoded.batches(batch_size=options.batch_size, parts=options.accumulation, seed=options.seed)

    # ── how it is measured ──

    def metrics(self) -> list[str]:
        """The names of the metrics, the deciding one first."""
        return self.encoded.evaluation.metrics()

    def evaluate(self, objective: Objective) -> Scores:
        """The metrics of the model as it is."""
        assert isinstance(objective.model, PreTrainedModel)
        return self.encoded.evaluation(TorchPredictor(objective.model))

    def write(self, folder: Path) -> None:
        """Write to `folder` what the model said when it was last measured."""
        self.encoded.evaluation.write(folder)


def learn(
    options: FinetuneOptions,
    task_class: type[TrainingData],
    lesson_class: type[Lesson],
    *,
    console: Console | None,
    argv: Sequence[str],
) -> FinetuneResult:
    """Run a lesson, or continue to: what `finetune` and `distill` have in common. Arguments and errors are theirs."""
    folder = Path(options.output)
    previous = claim(folder, resume=options.resume)
    device = choose_device(options.device)
    bf16 = options.precision == "bf16" or (
        options.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    task: Any = task_class(options)
    tell = partial(say, console)
    with held(folder):
        lesson = lesson_class(options, task, device, bf16, console)
        settled = {"data": task.facts(), "precision": "bf16" if bf16 else "fp32", **lesson.facts()}
        record = Record(folder, options, settled, list(argv), previous)
        tell(task.describe())
        with torch.random.fork_rng([]):
            torch.manual_seed(int(random_words(options.seed, "weights", 0, 1)[0]))
            tokenizer, model = lesson.prepare(folder)
            longest = min(options.max_length or task.usual_length, model.config.max_position_embeddings)
            objective, batches = lesson.objective(model, longest)
        if options.quantization_aware:
            objective.ranges = make_quantization_aware(model)
        objective.to(device)
        metric = _choose_metric(options.metric, lesson.metrics())

        peak = options.learning_rate or (5e-5 if options.from_scratch is None else 5e-4)
        plan = _plan(options, batches, metric, bf16=bf16)
        tell(
            f"{type(model).__name__} of {model.num_parameters():,} parameters on {device} in {settled['precision']}; "
            f"{plan.steps:,} steps of {options.batch_size} examples, peak rate {peak:g}"
        )
        record.write(labels=model.config.id2label, metric=metric, steps=plan.steps, parameters=model.num_parameters())

        def keep(state: State) -> None:
            best = state.best(metric)
            if best is state.history[-1]:
                model.save_pretrained(folder)
                lesson.write(folder / "evaluation")
            record.write(best=best, history=state.history)

        with Progress(plan.steps, console) as progress, curves(folder, options.tensorboard) as writer:
            state = train(
                objective,
                adamw(objective, learning_rate=peak, weight_decay=options.weight_decay),
                batches,
                plan,
                schedule=partial(linear_schedule, steps=plan.steps, warmup=options.warmup),
                evaluate=lambda: lesson.evaluate(objective),
                record=keep,
                folder=folder / "checkpoints",
                progress=progress,
                writer=writer,
            )
        model.save_pretrained(folder / "last")
        tokenizer.save_pretrained(folder / "last")
        best = state.best(metric)
        assert best is not None  # there is an evaluation after the last step
        record.write(finished=True, best=best, history=state.history)
        write_reports(folder, tell)
        metrics = {name: value for name, value in best.items() if name != "step"}
        return FinetuneResult(folder, metrics, int(best["step"]), state.step, state.history, record.seconds)


# ── what else the loop needs ──


def _plan(options: FinetuneOptions, batches: Batches, metric: str, *, bf16: bool) -> Plan:
    """Epochs in steps."""
    whole = math.floor(options.epochs)
    ends = [batches.batches_before(epoch) for epoch in range(whole + 2)]
    steps = max(1, ends[whole] + math.ceil((options.epochs - whole) * (ends[whole + 1] - ends[whole])))
    every = options.eval_every
    evaluate_at = ends[1 : whole + 1] if every is None else range(every, steps, every)
    return Plan(
        steps=steps,
        evaluate_at={*evaluate_at, steps},
        metric=metric,
        patience=options.patience,
        seed=options.seed,
        clip=options.clip,
        bf16=bf16,
    )


def _choose_metric(wanted: str | None, there: Sequence[str]) -> str:
    if wanted is not None and wanted not in there:
        raise ConfigError(f"--metric {wanted} is none of: {', '.join(there)}")
    return wanted or there[0]


@contextlib.contextmanager
def curves(folder: Path, wanted: bool) -> Iterator[Writer | None]:
    """Where learning curves go, if they are wanted; those of steps that are made again are cut off."""
    if not wanted:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    state = latest_state(folder / "checkpoints")
    options: dict[str, Any] = {"purge_step": int(state.name.removeprefix("step-")) + 1} if state else {}
    writer = SummaryWriter(folder / "tensorboard", **options)
    try:
        with contextlib.closing(writer):
            yield writer
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{folder / 'tensorboard'}: cannot be written: {error.strerror or error}") from error
