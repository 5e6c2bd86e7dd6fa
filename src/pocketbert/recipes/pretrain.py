"""Pretrain a model on a prepared corpus, from nothing to a checkpoint that can be fine-tuned.

The output folder is the newest model in Hugging Face layout. Beside it: `run.json`, `checkpoints/` (the newest states)
and `tensorboard/`. Under `torchrun`, the processes share every batch; the folder must be one that all of them see.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pocketbert.configs import PreTrainedConfig
from pocketbert.corpus.corpus import Corpus
from pocketbert.corpus.pretraining_batches import PretrainingBatches
from pocketbert.data.batches import Ahead, random_words
from pocketbert.errors import ConfigError, DataError, TrainingError
from pocketbert.models.auto import AutoModelForPreTraining
from pocketbert.models.device import choose_device
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.finetune import curves
from pocketbert.recipes.models import begin
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.pretraining_recipes import Phase
from pocketbert.recipes.record import Record, claim, held
from pocketbert.training.distributed import Ranks, copies, is_sharded, joined, local_device, shard
from pocketbert.training.loop import Plan, train
from pocketbert.training.objectives import Batch
from pocketbert.training.optim import build_optimizer, polynomial_schedule
from pocketbert.training.pretraining import Pretraining, measure
from pocketbert.training.progress import Progress, say
from pocketbert.training.state import State, latest_state


@dataclass(frozen=True)
class PretrainResult:
    """What came out of a run."""

    folder: Path
    """The model, ready to be fine-tuned."""
    metrics: dict[str, float]
    """Of the last evaluation, on what the corpus keeps back."""
    steps: int
    """How many steps there were."""
    seconds: float
    """How long the run took, before it was resumed included."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take."""

    parameters: int
    tokens_a_step: tuple[int, ...]
    """Of each phase, at most."""
    steps: tuple[int, ...]
    """Of each phase."""
    fixed_bytes: int
    """Weights, gradients and moments."""
    peak_bytes: int | None
    """All, at the largest micro-batch, where the device can tell."""
    tokens_a_second: tuple[float, ...]
    """Of each phase, as a short probe ran."""
    seconds: float
    """The whole run at that speed."""


class Course:
    """What a run learns, in which phases, on which processes. `recipes.transfer` has another.

    Args:
        options: of the run.
        ranks: the processes of the run.
        tell: says a line to a person.

    Raises:
        DataError: the corpus cannot be used.
        ConfigError: the phases do not fit the model.
    """

    def __init__(self, options: PretrainOptions, ranks: Ranks, device: torch.device, tell: Any) -> None:
        self.options, self.ranks, self.device, self.tell = options, ranks, device, tell
        self.recipe = options.recipe
        self.phases = list(self.recipe.phases)
        self.corpus = Corpus(options.corpus, verify=ranks.first)
        self.tokenizer = self.corpus.tokenizer
        self.bf16 = options.precision == "bf16" or (
            options.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
        )

    def facts(self) -> dict[str, Any]:
        """What decides the result besides the options, for `run.json`."""
        return {
            "corpus": {
                "vocabulary": self.corpus.vocabulary_sha256,
                "shards": [entry["sha256"] for entry in self.corpus.manifest["train"]],
            },
            "precision": "bf16" if self.bf16 else "fp32",
        }

    def config(self) -> PreTrainedConfig:
        """The model's, for the corpus's vocabulary. Raises `ConfigError` if examples are longer than it can read."""
        config, words = self.recipe.config, len(self.tokenizer)
        if not words <= config.vocab_size < words + 64:  # up to 63 rows of padding are customary
            config = config.replace(vocab_size=words)
        if (longest := max(phase.length for phase in self.phases)) > config.max_position_embeddings:
            raise ConfigError(f"--length {longest} is more than the model reads, {config.max_position_embeddings}")
        return config.replace(pad_token_id=self.tokenizer.pad_token_id)

    def model(self) -> PreTrainedModel:
        """A fresh one."""
        model: PreTrainedModel = AutoModelForPreTraining.from_config(self.config())
        return model

    def objective(self, model: PreTrainedModel) -> Pretraining:
        """What is learned."""
        return Pretraining(model, pairs=self.recipe.pairs is not None)

    def optimizer(self, objective: Pretraining) -> torch.optim.Optimizer:
        """Over the objective's parameters; the rates of the phases are absolute, and this one is 1."""
        return build_optimizer(
            self.recipe.optimizer, objective, learning_rate=1.0, weight_decay=self.recipe.weight_decay
        )

    # ── steps ──

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def place(self, step: int) -> tuple[int, int]:
        """The phase of `step`, and how many of its steps were before."""
        ends = list(accumulate(phase.steps for phase in self.phases))
        phase = next((i for i, end in enumerate(ends) if step < end), len(ends) - 1)
        return phase, step - (ends[phase] - self.phases[phase].steps)

    def rate(self, step: int) -> float:
        """The rate at `step`."""
        number, inside = self.place(step)
        phase = self.phases[number]
        return phase.learning_rate * polynomial_schedule(
            inside, steps=phase.steps, warmup=phase.warmup, power=phase.power, end=phase.end
        )

    def parts(self, phase: Phase) -> int:
        """Into how many micro-batches each process divides its share of a batch.

        Raises `ConfigError` where a batch has fewer examples than there are processes.
        """
        if phase.batch < self.ranks.count:
            raise ConfigError(f"--batch-size {phase.batch} is less than one example for each of {self.ranks.count}")
        needed = math.ceil(phase.batch * phase.length / self.options.tokens)
        shares = 1 << (needed - 1).bit_length()  # a power of two: the same for 1, 2, 4, … processes, dropout included
        return max(1, min(math.ceil(shares / self.ranks.count), phase.batch // self.ranks.count))

    def batches(self) -> _PhaseBatches:
        """Step → this process's micro-batches."""
        return _PhaseBatches(self)

    def held_out(self) -> list[Batch]:
        """Of what the corpus keeps back, this process's share of each batch: always the same examples and masks.

        Raises `DataError` where not even one example falls to each process.
        """
        corpus, length = Corpus(self.options.corpus, "held-out", verify=False), self.phases[0].length
        rank, ranks = self.ranks.rank, self.ranks.count
        size = min(64, self.reader(corpus, length, 1).examples)
        if size < ranks:
            raise DataError(
                f"{corpus.folder}: keeps back {size} examples, and there are {ranks} processes: prepare it with a "
                "larger --held-out, or use fewer"
            )
        batches = self.reader(corpus, length, size)
        whole = min(self.options.eval_batches, batches.examples // size)
        shares: list[Batch] = [{**batches.batch(t, rank, ranks)} for t in range(whole)]
        return shares

    def reader(self, corpus: Corpus, length: int, batch: int) -> PretrainingBatches:
        """Batches of a corpus, as this run wants them."""
        options, pairs = self.options, self.recipe.pairs
        return PretrainingBatches(
            corpus, length, batch, pairs=pairs, whole_words=options.whole_words, masked=self.recipe.masked,
            seed=options.seed,
        )  # fmt: skip


class _PhaseBatches:
    """step → micro-batches of one process; phases of the same shape continue each other's order."""

    def __init__(self, course: Course) -> None:
        self.course = course
        shapes = {(phase.length, phase.batch) for phase in course.phases}
        self._readers = {shape: course.reader(course.corpus, *shape) for shape in sorted(shapes)}

    def __call__(self, step: int) -> list[Batch]:
        course = self.course
        reader, t, number = self._of(step)
        parts, ranks = course.parts(course.phases[number]), course.ranks
        return [{**reader.batch(t, part * ranks.count + ranks.rank, parts * ranks.count)} for part in range(parts)]

    def describe(self, step: int) -> str:
        """Which examples the batch of `step` holds."""
        reader, t, number = self._of(step)
        members = reader.members(t)
        more = f" and {len(members) - 8:,} more" if len(members) > 8 else ""
        some = ", ".join(map(str, members[:8].tolist()))
        return f"batch {t:,} of {reader.length} tokens in phase {number + 1} (its examples {some}{more})"

    def _of(self, step: int) -> tuple[PretrainingBatches, int, int]:
        """The reader, the number of its batch, and the phase."""
        phases = self.course.phases
        number, inside = self.course.place(step)
        shape = (phases[number].length, phases[number].batch)
        before = sum(phase.steps for phase in phases[:number] if (phase.length, phase.batch) == shape)
        return self._readers[shape], before + inside, number


def pretrain(
    options: PretrainOptions,
    *,
    console: Console | None = None,
    argv: Sequence[str] = (),
    course_class: type[Course] = Course,
) -> PretrainResult:
    """Pretrain a model, or continue to; alone, or as one of the processes that `torchrun` started.

    Args:
        options: what to do.
        console: where to show progress: a bar if it is a terminal, lines otherwise; the log gets the lines when None.
        argv: the command to note in `run.json`.
        course_class: what the run learns.

    Raises:
        DataError: the corpus is damaged, or too small for the batch.
        ConfigError: options contradict each other, the model, or the run that is to be resumed.
        CheckpointError: a state cannot be read or written, or the output folder is in use.
        TrainingInterrupted: SIGINT or SIGTERM came; the state is saved.
        TrainingError: the loss is not a number.
    """
    with joined() as ranks:
        try:
            return _pretrain(options, course_class, ranks, console, argv)
        except RuntimeError as error:
            if ranks.count > 1 and re.search("gloo|nccl|connection", str(error), re.IGNORECASE):
                raise TrainingError(
                    f"process {ranks.rank} of {ranks.count} lost another, which says why; the last state is kept: run "
                    "the same command with --resume to go on"
                ) from error
            raise


def _pretrain(
    options: PretrainOptions, course_class: type[Course], ranks: Ranks, console: Console | None, argv: Sequence[str]
) -> PretrainResult:
    folder = Path(options.output)
    tell = partial(say, console) if ranks.first else partial(_silent)
    device = choose_device(options.device or local_device())
    previous = claim(folder, resume=options.resume) if ranks.first else None
    with held(folder) if ranks.first else contextlib.nullcontext():
        course = course_class(options, ranks, device, tell)
        record = Record(folder, options, course.facts(), list(argv), previous) if ranks.first else None
        ranks.wait()  # until it is known that the run may be
        if (newest := latest_state(folder / "checkpoints")) is not None:
            tell(f"resuming from {newest}")
        objective = _prepared(course)
        model: Any = objective.model
        if ranks.first:
            begin(folder, course.tokenizer, model)
        batches, held_out = course.batches(), course.held_out()
        tell(_announcement(course, model))
        every = options.eval_every or max(1, course.steps // 50)
        plan = Plan(
            steps=course.steps,
            evaluate_at={*range(every, course.steps, every), course.steps},
            metric="loss",
            seed=options.seed,
            clip=options.clip,
            bf16=course.bf16,
            save_seconds=60 * options.save_minutes,
            keep=2,
        )

        def written(state: State, **more: Any) -> None:
            if record is not None:
                record.write(history=state.history, steps=course.steps, parameters=model.num_parameters(), **more)

        def evaluate() -> dict[str, float]:
            # Layers that were compiled to learn would be compiled anew to be asked, which takes longer than asking.
            as_it_is = torch.compiler.set_stance("force_eager") if options.compile else contextlib.nullcontext()
            with as_it_is:
                return measure(objective, held_out, ranks, bf16=course.bf16)

        def keep(state: State) -> None:
            tensors = copies(model.state_dict().items(), kept=ranks.first)
            if record is not None:
                model.save_pretrained(folder, state_dict=tensors)
                written(state)

        with (
            Progress(plan.steps, console if ranks.first else None, "pretraining") as progress,
            curves(folder, options.tensorboard and ranks.first) as writer,
            Ahead(batches) as ahead,
        ):
            state = train(
                objective,
                course.optimizer(objective),
                ahead,
                plan,
                schedule=course.rate,
                evaluate=evaluate,
                record=keep,
                folder=folder / "checkpoints",
                progress=progress,
                writer=writer,
                ranks=ranks,
                describe=batches.describe,
            )
        written(state, finished=True)
        metrics = {name: value for name, value in state.history[-1].items() if name != "step"}
        return PretrainResult(folder, metrics, state.step, record.seconds if record is not None else 0.0)


def estimate(options: PretrainOptions, *, course_class: type[Course] = Course) -> Estimate:
    """What a run would take, from a probe of a few micro-batches of each phase; writes nothing.

    Raises:
        DataError: the corpus is damaged, or too small for the batch.
        ConfigError: options contradict each other or the model.
    """
    device = choose_device(options.device)
    course = course_class(options, Ranks(), device, _silent)
    objective = _prepared(course)
    optimizer, batches = course.optimizer(objective), course.batches()
    speeds, first, seconds = [], 0, 0.0
    objective.train()
    for phase in course.phases:
        objective.begin(first)
        took, tokens = _probe(objective, batches(first), course)
        speeds.append(tokens / took)
        seconds += phase.steps * phase.batch * phase.length * took / tokens
        first += phase.steps
    started = time.perf_counter()
    optimizer.step()
    _finish(device)
    seconds += course.steps * (time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in objective.parameters())
    return Estimate(
        parameters=parameters,
        tokens_a_step=tuple(phase.batch * phase.length for phase in course.phases),
        steps=tuple(phase.steps for phase in course.phases),
        fixed_bytes=16 * parameters,
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident(),
        tokens_a_second=tuple(speeds),
        seconds=seconds,
    )


def _probe(objective: Pretraining, batch: Sequence[Batch], course: Course) -> tuple[float, int]:
    """Seconds and tokens of a micro-batch, the first not counted."""
    best, tokens = math.inf, 1
    for _ in range(3):
        part = batch[0]
        units = objective.units(part)
        tensors = {name: torch.from_numpy(array).to(course.device) for name, array in part.items()}
        _finish(course.device)
        started = time.perf_counter()
        with torch.autocast(course.device.type, torch.bfloat16, enabled=course.bf16):
            loss = objective(tensors, units)["loss"]
        loss.backward()
        _finish(course.device)
        best, tokens = min(best, time.perf_counter() - started), units["tokens"]
    return best, tokens


def _prepared(course: Course) -> Pretraining:
    """The objective with fresh weights, on its device, compiled if so wished."""
    with torch.random.fork_rng([]):
        torch.manual_seed(int(random_words(course.options.seed, "weights", 0, 1)[0]))
        model = course.model()
    objective = course.objective(model).to(course.device)
    if course.options.compile:
        for layer in model.base_model.layers:
            layer.compile(dynamic=True)  # hardly two batches have the same number of tokens
    if course.options.sharded and course.ranks.count > 1:
        shard(objective, model.base_model.layers, course.device, methods=["shares"])
    return objective


def _announcement(course: Course, model: PreTrainedModel) -> str:
    counted = [(phase, len(list(same))) for phase, same in groupby(course.phases)]
    phases = "; then ".join(
        f"{f'{count} times ' if count > 1 else ''}{phase.steps:,} steps of {phase.batch:,} examples "
        f"of {phase.length} tokens in {course.parts(phase) * course.ranks.count:,} parts, peak rate "
        f"{phase.learning_rate:g}"
        for phase, count in counted
    )
    processes = f" in {course.ranks.count} processes" if course.ranks.count > 1 else ""
    processes += " that divide its weights" if is_sharded(model) else ""
    where = f"{course.device}{processes} in {'bf16' if course.bf16 else 'fp32'}"
    return (
        f"{type(model).__name__} of {model.num_parameters():,} parameters on {where}, "
        f"{course.recipe.optimizer}, {course.corpus.tokens:,} tokens of text: {phases}"
    )


def _resident() -> int | None:
    """The most memory that this process ever took, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _silent(_: str) -> None:
    pass
