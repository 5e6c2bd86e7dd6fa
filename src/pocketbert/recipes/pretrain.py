"""Pretraining of a model on a prepared corpus, from scratch or from a checkpoint.

The output folder is the newest model in Hugging Face layout. Beside it: `run.json`, `checkpoints/` (the newest training
states) and `tensorboard/`. Under `torchrun`, the processes share every batch; the folder must be visible to all.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from rich.console import Console

from pocketbert.configs import PreTrainedConfig
from pocketbert.corpus.corpus import Corpus
from pocketbert.corpus.pretraining_batches import PretrainingBatches
from pocketbert.data.batches import Ahead
from pocketbert.errors import ConfigError, DataError
from pocketbert.models.auto import AutoModelForPreTraining
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.pretraining_recipes import Phase
from pocketbert.recipes.processes import distributed
from pocketbert.recipes.training_run import RunResult, TrainingRun, metrics_of
from pocketbert.tasks.evaluation import Scores
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.training.distributed import SINGLE_PROCESS, ProcessGroup, copies, is_sharded, shard
from pocketbert.training.loop import TrainingSchedule
from pocketbert.training.objectives import Batch, Objective
from pocketbert.training.optim import build_optimizer, polynomial_schedule
from pocketbert.training.pretraining import Pretraining, evaluate_pretraining
from pocketbert.training.state import State, latest_state


@dataclass(frozen=True, kw_only=True)
class PretrainResult(RunResult):
    """Result of a pretraining or transfer run; its metrics are those of the last evaluation."""


def pretrain(options: PretrainOptions, *, console: Console | None = None, argv: Sequence[str] = ()) -> PretrainResult:
    """Pretrain a model, or resume such a run; alone, or as one of the processes that `torchrun` started.

    Args:
        options: corpus, recipe and hyperparameters.
        console: where to show progress: a bar on a terminal, lines otherwise; without a console lines go to the log.
        argv: the command, for `run.json`.

    Raises:
        DataError: the corpus is damaged, or too small for the batch.
        ConfigError: options contradict each other, the model, or the run to resume.
        CheckpointError: a training state cannot be read or written, or the output folder is in use.
        TrainingInterrupted: SIGINT or SIGTERM arrived; the training state is saved.
        TrainingError: the loss is not finite.
    """
    with distributed() as processes:
        return PretrainRun(options, console=console, argv=argv, processes=processes).run()


class PretrainRun(TrainingRun):
    """A run on a prepared corpus, in phases: masked words and, in most recipes, sentence pairs; see `TrainingRun`."""

    def __init__(
        self,
        options: PretrainOptions,
        *,
        console: Console | None = None,
        argv: Sequence[str] = (),
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        super().__init__(options, console=console, argv=argv, processes=processes)
        self.options, self.recipe = options, options.recipe
        self.phases: list[Phase] = list(self.recipe.phases)

    def read(self) -> None:
        """Open the corpus."""
        self.corpus = Corpus(self.options.corpus, verify=self.processes.first)
        self.tokenizer: BertTokenizer = self.corpus.tokenizer

    def facts(self) -> dict[str, Any]:
        """Return the corpus by hash."""
        shards = [entry["sha256"] for entry in self.corpus.manifest["train"]]
        return {"corpus": {"vocabulary": self.corpus.vocabulary_sha256, "shards": shards}}

    def config(self) -> PreTrainedConfig:
        """Return the configuration for the vocabulary of the corpus.

        Raises:
            ConfigError: examples are longer than the model can read.
            DataError: the checkpoint to go on from has another vocabulary.
        """
        config, tokens = self.recipe.config, len(self.tokenizer)
        if self.options.model is not None:
            self.corpus.check_vocabulary(AutoTokenizer.from_pretrained(self.options.model))
        elif not tokens <= config.vocab_size < tokens + 64:  # up to 63 rows of padding are customary
            config = config.replace(vocab_size=tokens)
        if (longest := max(phase.length for phase in self.phases)) > config.max_tokens:
            raise ConfigError(f"--length {longest} is more than the model reads, {config.max_tokens}")
        return config.replace(pad_token_id=self.tokenizer.pad_token_id)

    def prepare(self) -> tuple[BertTokenizer, PreTrainedModel]:
        """Return the tokenizer of the corpus, and a model with random weights or those of a checkpoint."""
        config, name = self.config(), self.options.model
        if name is None:
            model: PreTrainedModel = AutoModelForPreTraining.from_config(config)
            return self.tokenizer, model
        model, info = AutoModelForPreTraining.from_pretrained(name, config=config, output_loading_info=True)
        # Pooler and pair head are not trained without pairs.
        words = () if model.family.words is None else model.family.words.names
        if missing := [key for key in info["missing_keys"] if self.recipe.pairs or key.startswith(words)]:
            self.log(f"{name}: {', '.join(missing)} are missing and were initialised randomly")
        return self.tokenizer, model

    def objective(self, model: PreTrainedModel) -> Pretraining:
        """Return the losses of pretraining."""
        return Pretraining(model, pairs=self.recipe.pairs is not None)

    def optimizer(self, objective: Objective) -> torch.optim.Optimizer:
        """Return the optimizer; the rates of the phases are absolute, so that its own is 1."""
        return build_optimizer(
            self.recipe.optimizer, objective, learning_rate=1.0, weight_decay=self.recipe.weight_decay
        )

    def evaluate(self, objective: Objective) -> Scores:
        """Return losses and accuracies on the held-out split."""
        assert isinstance(objective, Pretraining)
        # Layers compiled for training would be compiled again for evaluation, which takes longer than the evaluation.
        eager = torch.compiler.set_stance("force_eager") if self.options.compile else contextlib.nullcontext()
        with eager:
            return evaluate_pretraining(objective, self.held_out, self.processes, bf16=self.bf16)

    def run(self) -> PretrainResult:
        """Pretrain, or resume."""
        options, previous = self.options, self.open_folder()
        self.read()
        with self.recording(previous):
            if (newest := latest_state(self.folder / "checkpoints")) is not None:
                self.log(f"resuming from {newest}")
            objective = self.prepared_objective()
            model: Any = objective.model
            self.write_companions(self.tokenizer, model)
            batches, self.held_out = self.batches(), self.read_held_out()
            self.log(self._announcement(model))
            every = options.eval_every or max(1, self.steps // 50)
            schedule = TrainingSchedule(
                steps=self.steps,
                # A checkpoint is evaluated before it goes on.
                evaluate_at={*range(0 if options.model else every, self.steps, every), self.steps},
                metric="loss",
                seed=options.seed,
                clip=options.clip,
                bf16=self.bf16,
                save_seconds=60 * options.save_minutes,
                keep=2,
            )

            def record(state: State, **facts: Any) -> None:
                self.record(history=state.history, steps=self.steps, parameters=model.num_parameters(), **facts)

            def on_evaluation(state: State) -> None:
                tensors = copies(model.state_dict().items(), kept=self.processes.first)
                if self.processes.first:
                    model.save_pretrained(self.folder, state_dict=tensors)
                    record(state)

            with Ahead(batches) as ahead:
                state = self.train(
                    objective,
                    self.optimizer(objective),
                    ahead,
                    schedule,
                    rate=self.rate,
                    on_evaluation=on_evaluation,
                    describe=batches.describe,
                    title="pretraining",
                )
            record(state, finished=True)
            return PretrainResult(
                folder=self.folder,
                metrics=metrics_of(state.history[-1]),
                steps=state.step,
                history=state.history,
                seconds=self.seconds,
            )

    def prepared_objective(self) -> Pretraining:
        """Return the objective with initial weights on its device, compiled and sharded as the options say."""
        with self.seeded():
            _, model = self.prepare()
        objective = self.objective(model).to(self.device)
        if self.options.compile:
            for layer in model.base_model.layers:
                layer.compile(dynamic=True)  # hardly two batches have the same number of tokens
        if self.options.sharded and self.processes.count > 1:
            shard(objective, model.base_model.layers, self.device, methods=["shares"])
        return objective

    # ── phases ──

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def position(self, step: int) -> tuple[int, int]:
        """Return the phase of `step`, and the number of earlier steps in that phase."""
        ends = list(accumulate(phase.steps for phase in self.phases))
        phase = next((i for i, end in enumerate(ends) if step < end), len(ends) - 1)
        return phase, step - (ends[phase] - self.phases[phase].steps)

    def rate(self, step: int) -> float:
        """Return the learning rate at `step`."""
        number, inside = self.position(step)
        phase = self.phases[number]
        return phase.learning_rate * polynomial_schedule(
            inside, steps=phase.steps, warmup=phase.warmup, power=phase.power, end=phase.end
        )

    def parts(self, phase: Phase) -> int:
        """Return the number of micro-batches of each process per step.

        Raises:
            ConfigError: a batch has fewer examples than there are processes.
        """
        count = self.processes.count
        if phase.batch < count:
            raise ConfigError(f"--batch-size {phase.batch} is less than one example for each of {count} processes")
        needed = math.ceil(phase.batch * phase.length / self.options.tokens)
        shares = 1 << (needed - 1).bit_length()  # a power of two: the same for 1, 2, 4, … processes, dropout included
        return max(1, min(math.ceil(shares / count), phase.batch // count))

    # ── batches ──

    def batches(self) -> PhaseBatches:
        """Return the batches of this process."""
        return PhaseBatches(self)

    def reader(self, corpus: Corpus, length: int, batch: int) -> PretrainingBatches:
        """Return batches of a corpus."""
        options, recipe = self.options, self.recipe
        return PretrainingBatches(
            corpus, length, batch, pairs=recipe.pairs, whole_words=options.whole_words, masked=recipe.masked,
            seed=options.seed,
        )  # fmt: skip

    def read_held_out(self) -> list[Batch]:
        """Return this process's share of each batch of the held-out split: always the same examples and masks.

        Raises:
            DataError: there is not even one example per process.
        """
        corpus, length = Corpus(self.options.corpus, "held-out", verify=False), self.phases[0].length
        rank, count = self.processes.rank, self.processes.count
        size = min(64, self.reader(corpus, length, 1).examples)
        if size < count:
            raise DataError(
                f"{corpus.folder}: the held-out split has {size} examples, and there are {count} processes: prepare "
                "the corpus with a larger --held-out, or use fewer processes"
            )
        batches = self.reader(corpus, length, size)
        whole = min(self.options.eval_batches, batches.examples // size)
        shares: list[Batch] = [{**batches.batch(t, rank, count)} for t in range(whole)]
        return shares

    def _announcement(self, model: PreTrainedModel) -> str:
        count = self.processes.count
        phases = "; then ".join(
            f"{f'{repeats} times ' if repeats > 1 else ''}{phase.steps:,} steps of {phase.batch:,} examples "
            f"of {phase.length} tokens in {self.parts(phase) * count:,} micro-batches, peak learning rate "
            f"{phase.learning_rate:g}"
            for phase, repeats in ((phase, len(list(same))) for phase, same in groupby(self.phases))
        )
        processes = f" in {count} processes" if count > 1 else ""
        processes += " with sharded weights" if is_sharded(model) else ""
        return (
            f"{type(model).__name__} of {model.num_parameters():,} parameters on {self.device}{processes} in "
            f"{self.described_precision}, {self.recipe.optimizer}, {self.corpus.tokens:,} tokens of text: {phases}"
        )


class PhaseBatches:
    """step → micro-batches of one process; phases of the same shape continue each other's order."""

    def __init__(self, run: PretrainRun) -> None:
        self.run = run
        shapes = {(phase.length, phase.batch) for phase in run.phases}
        self._readers = {shape: run.reader(run.corpus, *shape) for shape in sorted(shapes)}

    def __call__(self, step: int) -> list[Batch]:
        """Return the micro-batches of `step`."""
        reader, t, number = self._find(step)
        parts, processes = self.run.parts(self.run.phases[number]), self.run.processes
        count, rank = processes.count, processes.rank
        return [{**reader.batch(t, part * count + rank, parts * count)} for part in range(parts)]

    def describe(self, step: int) -> str:
        """Return the name of the batch of `step` and its examples, for error messages."""
        reader, t, number = self._find(step)
        members = reader.members(t)
        more = f" and {len(members) - 8:,} more" if len(members) > 8 else ""
        listed = ", ".join(map(str, members[:8].tolist()))
        return f"batch {t:,} of {reader.length} tokens in phase {number + 1} (its examples {listed}{more})"

    def _find(self, step: int) -> tuple[PretrainingBatches, int, int]:
        """Return the reader, the number of its batch, and the phase."""
        phases = self.run.phases
        number, inside = self.run.position(step)
        shape = (phases[number].length, phases[number].batch)
        before = sum(phase.steps for phase in phases[:number] if (phase.length, phase.batch) == shape)
        return self._readers[shape], before + inside, number
