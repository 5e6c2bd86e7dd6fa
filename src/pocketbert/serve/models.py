"""The models of a service: found by name, answering through their queues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketbert.errors import ConfigError, InputError
from pocketbert.features import Features
from pocketbert.pipelines import TASKS, Pipeline, ZeroShotClassification
from pocketbert.runtime.engine import usable_threads
from pocketbert.runtime.stream import Job
from pocketbert.serve.batching import TOKENS, Queue, Worker
from pocketbert.serve.settings import Limits, Settings

AT_ONCE = 2000  # characters that are tokenised and read where they arrive; more, in a thread
GAPS = 32  # of a text: each takes the whole vocabulary


class TooMuch(Exception):
    """A request holds more than one may."""


@dataclass(frozen=True)
class Answers:
    """The answers to some inputs, and what they took."""

    values: list[Any]
    tokens: int
    cut: list[int]  # the inputs of which an end was not read
    wait: float = 0.0  # seconds in the queue
    compute: float = 0.0


class Model:
    """A pipeline with a queue."""

    def __init__(self, name: str, pipeline: Pipeline, worker: Worker, queue: Queue, limits: Limits) -> None:
        self.name, self.pipeline, self.queue = name, pipeline, queue
        self.task = pipeline.task
        self._worker, self._limits = worker, limits
        self.zero_shot = None  # what asks whether labels of your own follow
        if self.task == "text-classification":
            self.zero_shot = ZeroShotClassification(pipeline.predictor, pipeline.tokenizer, pipeline.config)
        self.pooling = "mean"

    @property
    def labels(self) -> list[str] | None:
        """What it tells apart, if it does."""
        named = self.task in ("text-classification", "token-classification")
        return list(self.pipeline.config.id2label.values()) if named else None

    async def answer(
        self,
        inputs: Sequence[Any],
        *,
        truncate: bool = True,
        zero_shot: bool = False,
        **options: Any,
    ) -> Answers:
        """Answer inputs of the pipeline, with the options of its `job`.

        Raises:
            InputError: an input or an option is wrong; `position` says which input, where it is one.
            TooMuch: there are more texts or tokens than a request may hold.
            Busy: there is no room in the queue.
        """
        pipeline = self.zero_shot if zero_shot else self.pipeline
        assert pipeline is not None
        _refuse_many(inputs, options, self._limits.texts)
        job = pipeline.job(**options)
        small = _characters(inputs) <= AT_ONCE
        if small:
            groups = self._encode(job, inputs, truncate)
        else:
            groups = await asyncio.to_thread(self._encode, job, inputs, truncate)
        tokens = sum(len(one) for group in groups for one in group)
        if tokens > self._limits.tokens:
            raise TooMuch(f"{tokens:,} tokens in one request: {self._limits.tokens:,} are allowed")
        flat = [one for group in groups for one in group]
        request = await self._worker.run(self.queue, flat, self._limits.wait)

        def read() -> list[Any]:
            rest = iter(request.outputs)
            return [
                job.decode(one, group, [next(rest) for _ in group]) for one, group in zip(inputs, groups, strict=True)
            ]

        values = read() if small else await asyncio.to_thread(read)
        cut = [i for i, group in enumerate(groups) if any(one.cut for one in group)]
        wait, compute = request.started - request.arrived, request.ended - request.started
        return Answers(values, tokens, cut, max(0.0, wait), compute)

    def _encode(self, job: Job, inputs: Sequence[Any], truncate: bool) -> Sequence[Sequence[Features]]:
        groups = job.encode(list(inputs)) if inputs else []
        for position, group in enumerate(groups):
            if not truncate and any(one.cut for one in group):
                limit = self.pipeline.max_length
                raise InputError(f"it is longer than the {limit} tokens that {self.name} reads", position)
            if any(one.rows is not None and len(one.rows) > GAPS for one in group):
                raise InputError(f"it has more than {GAPS} gaps", position)
        return groups

    def tokens(self, texts: list[str], special: bool) -> list[list[dict[str, Any]]]:
        """The tokens of texts as the model reads them, with their places."""
        tokenizer = self.pipeline.tokenizer
        encoded = tokenizer(
            texts, truncation=True, max_length=self.pipeline.max_length, add_special_tokens=special,
            return_offsets_mapping=True, return_special_tokens_mask=True,
        )  # fmt: skip
        found = []
        for row in range(len(texts)):
            ids = list(encoded["input_ids"][row])
            fields = zip(
                ids,
                tokenizer.convert_ids_to_tokens(ids),
                encoded["special_tokens_mask"][row],
                encoded["offset_mapping"][row],
                strict=True,
            )
            found.append(
                [
                    {"id": n, "text": text, "special": bool(mark), "start": place[0], "stop": place[1]}
                    for n, text, mark, place in fields
                ]
            )
        return found


def _refuse_many(inputs: Sequence[Any], options: Mapping[str, Any], limit: int) -> None:
    count = len(inputs) * max(1, len(options.get("candidate_labels") or ()))
    count += sum(len(one["choices"]) - 1 for one in inputs if isinstance(one, Mapping) and "choices" in one)
    if count > limit:
        raise TooMuch(f"{count:,} texts in one request: {limit:,} are allowed")


def _characters(one: Any) -> int:
    if isinstance(one, str):
        return len(one)
    parts = one.values() if isinstance(one, Mapping) else one
    return sum(map(_characters, parts)) + 32 * len(parts)


class Models(dict[str, Model]):
    """All of them by name; the first is the default."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        threads = max(1, usable_threads() // settings.workers)
        pipelines = [(name, load(where, threads), _pooling(where)) for name, where in settings.models]
        queues = [Queue(pipeline.predictor, TOKENS * threads) for _, pipeline, _ in pipelines]
        self.worker = Worker(queues)
        for (name, pipeline, pooling), queue in zip(pipelines, queues, strict=True):
            self[name] = Model(name, pipeline, self.worker, queue, settings.limits)
            self[name].pooling = pooling

    def of_task(self, task: str) -> Model | None:
        """The first model of a task."""
        return next((model for model in self.values() if model.task == task), None)


def load(where: str, threads: int) -> Pipeline:
    """A model folder or hub name as the pipeline of its own task."""
    from pocketbert.configs import AutoConfig
    from pocketbert.runtime.engine import Engine
    from pocketbert.tokenization import AutoTokenizer

    head = AutoConfig.from_pretrained(where).saved_head
    head = "ForMaskedLM" if head == "ForPreTraining" else head  # whose words are all that a task asks for
    kind = next((kind for kind in TASKS.values() if kind.head == head), None)
    if kind is None:
        raise ConfigError(f"{where} is a model {head}, which no task asks")
    engine = Engine.from_pretrained(where, head, threads=threads)
    assert engine.config is not None
    return kind(engine, AutoTokenizer.from_pretrained(where), engine.config)


def _pooling(where: str) -> str:
    """How a sentence encoder was trained to pool, where its folder says so (as sentence-transformers writes it)."""
    path = Path(where) / "1_Pooling" / "config.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "mean"
    return "cls" if isinstance(said, dict) and said.get("pooling_mode_cls_token") is True else "mean"
