"""The models of a service: by name, each with a queue."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketbert.errors import ConfigError, InputError
from pocketbert.features import Features, TokenIds, beginnings
from pocketbert.pipelines import TASKS, FeatureExtraction, Pipeline, ZeroShotClassification
from pocketbert.runtime.engine import usable_threads
from pocketbert.runtime.stream import Job
from pocketbert.sentences.declared import read_declared
from pocketbert.serve.batching import TOKENS, Queue, Worker
from pocketbert.serve.settings import Limits, Settings

SMALL = 2000  # characters that are tokenized and decoded on the event loop; larger requests use a thread
MAX_MASKS = 32  # per text: each needs scores of the whole vocabulary


class RequestTooLargeError(Exception):
    """A request exceeds a limit."""


@dataclass(frozen=True)
class Predictions:
    """The results of some inputs, and their cost."""

    values: list[Any]
    tokens: int
    truncated: list[int]  # indices of the inputs that were not read to their end
    wait: float = 0.0  # seconds in the queue
    compute: float = 0.0


class Model:
    """A pipeline with a queue."""

    def __init__(self, name: str, pipeline: Pipeline, worker: Worker, queue: Queue, limits: Limits) -> None:
        self.name, self.pipeline, self.queue = name, pipeline, queue
        self.task = pipeline.task
        self._worker, self._limits = worker, limits
        self.zero_shot = None  # the pipeline for labels of the request
        if self.task == "text-classification":
            self.zero_shot = ZeroShotClassification(pipeline.predictor, pipeline.tokenizer, pipeline.config)

    @property
    def labels(self) -> list[str] | None:
        """The labels of a classifier or tagger; None for other tasks."""
        labelled = self.task in ("text-classification", "token-classification")
        return list(self.pipeline.config.id2label.values()) if labelled else None

    async def predict(
        self,
        inputs: Sequence[Any],
        *,
        truncate: bool = True,
        left: bool = False,
        zero_shot: bool = False,
        limit: int | None = None,
        **options: Any,
    ) -> Predictions:
        """Run the pipeline on inputs, with the options of its `job`.

        Args:
            inputs: of the pipeline.
            truncate: cut texts that are too long; otherwise they are errors.
            left: cut them at their beginning.
            zero_shot: use the pipeline for labels of the request.
            limit: number of tokens, if fewer than the service's own.
            **options: of the job.

        Raises:
            InputError: an input or an option is wrong; `position` is the index of the input, if it is one.
            RequestTooLargeError: there are more texts or tokens than a request may have.
            ServerBusyError: the wait would be too long.
            TooSlowError: the request itself would take too long.
        """
        pipeline = self.zero_shot if zero_shot else self.pipeline
        assert pipeline is not None
        if left:
            pipeline = copy.copy(pipeline)
            pipeline.tokenizer = copy.copy(pipeline.tokenizer)
            pipeline.tokenizer.truncation_side = "left"
        _check_count(inputs, options, self._limits.texts)
        job = pipeline.job(**options)
        small = _size(inputs) <= SMALL
        if small:
            groups = self._encode(job, inputs, truncate)
        else:
            groups = await asyncio.to_thread(self._encode, job, inputs, truncate)
        tokens = sum(len(sequence) for group in groups for sequence in group)
        most = self._limits.tokens if limit is None else min(limit, self._limits.tokens)
        if tokens > most:
            raise RequestTooLargeError(f"{tokens:,} tokens in one request: the limit is {most:,}")
        sequences = [sequence for group in groups for sequence in group]
        request = await self._worker.run(self.queue, sequences, self._limits.wait, self._limits.time)

        def decode() -> list[Any]:
            outputs = iter(request.outputs)
            return [
                job.decode(one, group, [next(outputs) for _ in group])
                for one, group in zip(inputs, groups, strict=True)
            ]

        values = decode() if small else await asyncio.to_thread(decode)
        truncated = [i for i, group in enumerate(groups) if any(sequence.cut for sequence in group)]
        wait, compute = request.started - request.arrived, request.ended - request.started
        return Predictions(values, tokens, truncated, max(0.0, wait), compute)

    def _encode(self, job: Job, inputs: Sequence[Any], truncate: bool) -> Sequence[Sequence[Features]]:
        groups = job.encode(list(inputs)) if inputs else []
        for position, group in enumerate(groups):
            if not truncate and any(sequence.cut for sequence in group):
                limit = self.pipeline.max_length
                raise InputError(f"the text exceeds the {limit} tokens that {self.name} reads", position)
            if any(sequence.rows is not None and len(sequence.rows) > MAX_MASKS for sequence in group):
                raise InputError(f"the text has more than {MAX_MASKS} masks", position)
        return groups

    def tokens(self, texts: list[str], special: bool) -> tuple[list[list[dict[str, Any]]], int]:
        """The tokens of texts as the model reads them, with their positions; and how many of the texts were cut."""
        tokenizer = self.pipeline.tokenizer
        short = beginnings(tokenizer, texts, self.pipeline.max_length)
        encoded = tokenizer(
            [one.text for one in short],
            truncation=True, max_length=self.pipeline.max_length, add_special_tokens=special,
            return_offsets_mapping=True, return_special_tokens_mask=True,
        )  # fmt: skip
        tokens = []
        for row in range(len(texts)):
            ids = list(encoded["input_ids"][row])
            columns = zip(
                ids,
                tokenizer.convert_ids_to_tokens(ids),
                encoded["special_tokens_mask"][row],
                short[row].restored(np.array(encoded["offset_mapping"][row], np.int32).reshape(-1, 2)).tolist(),
                strict=True,
            )
            tokens.append(
                [
                    {"id": number, "text": text, "special": bool(mask), "start": start, "stop": stop}
                    for number, text, mask, (start, stop) in columns
                ]
            )
        return tokens, sum(bool(encoded[row].overflowing) for row in range(len(texts)))


def _check_count(inputs: Sequence[Any], options: Mapping[str, Any], limit: int) -> None:
    count = len(inputs) * max(1, len(options.get("candidate_labels") or ()))
    count += sum(len(one["choices"]) - 1 for one in inputs if isinstance(one, Mapping) and "choices" in one)
    if count > limit:
        raise RequestTooLargeError(f"{count:,} texts in one request: the limit is {limit:,}")


def _size(inputs: Any) -> int:
    """Characters of all texts, with 32 more per text for its fixed cost."""
    if isinstance(inputs, str | TokenIds):
        return len(inputs)
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs
    return sum(map(_size, parts)) + 32 * len(parts)


class Models(dict[str, Model]):
    """All models by name; the first is the default."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        threads = max(1, usable_threads() // settings.workers)
        pipelines = [(name, load(model, threads)) for name, model in settings.models]
        queues = [Queue(pipeline.predictor, TOKENS * threads) for _, pipeline in pipelines]
        self.worker = Worker(queues)
        for (name, pipeline), queue in zip(pipelines, queues, strict=True):
            self[name] = Model(name, pipeline, self.worker, queue, settings.limits)

    def of_task(self, task: str) -> Model | None:
        """The first model of a task."""
        return next((model for model in self.values() if model.task == task), None)


def load(model: str, threads: int) -> Pipeline:
    """Load a model folder or hub name as the pipeline of its own task.

    Raises:
        ConfigError: no task has its head.
    """
    from pocketbert.runtime.engine import Engine

    declared = read_declared(model)
    head = declared.read_config().saved_head
    head = "ForMaskedLM" if head == "ForPreTraining" else head  # the only one of its heads that a task uses
    kind = next((kind for kind in TASKS.values() if kind.head == head), None)
    if kind is None:
        heads = ", ".join(sorted({str(kind.head) for kind in TASKS.values()}))
        raise ConfigError(f"{model} has the head {head}, which no task uses; served are models with {heads}")
    engine = Engine.from_pretrained(declared.encoder, head, threads=threads)
    assert engine.config is not None
    options = {"declared": declared} if kind is FeatureExtraction else {}
    return kind(engine, declared.read_tokenizer(), engine.config, **options)
