"""Metrics for Prometheus. Each of several workers writes its own to files, and any of them reports those of all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from pocketbert.serve.batching import BatchReport
    from pocketbert.serve.models import Model, Models

FILES = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported
TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of a process."""

    def __init__(self, models: Models) -> None:
        self.registry = registry = CollectorRegistry()
        name = "pocketbert_{}".format
        self.requests = Counter(
            name("requests"), "Requests, by route and status.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            name("request_seconds"), "Time from the headers of a request to the end of its response.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._of_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.wait = Histogram(
            name("queue_seconds"), "Time of a request in the queue, until its first batch.", ["model"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.compute = Histogram(
            name("batch_seconds"), "Time of a batch in the engine.", ["model"], buckets=_SECONDS, registry=registry
        )
        self.fill = Histogram(
            name("batch_fill"), "Tokens of a batch, as a fraction of its budget.", ["model"],
            buckets=(0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 2.0), registry=registry,
        )  # fmt: skip
        self.sequences = Counter(
            name("sequences"), "Processed sequences: texts, pairs, windows and choices.", ["model"], registry=registry
        )
        self.tokens = Counter(name("tokens"), "Processed tokens.", ["model"], registry=registry)
        self.queue = Gauge(
            name("queue_tokens"), "Tokens in the queue and in the running batch.", ["model"],
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            name("requests_in_flight"), "Requests in progress.", multiprocess_mode="livesum", registry=registry
        )
        self.memory = Gauge(
            name("memory_bytes"), "Resident memory of the processes.", multiprocess_mode="livesum", registry=registry
        )
        self.keys = Counter(
            name("key_requests"), "Requests, by API key and status.", ["key", "status"], registry=registry
        )
        self.key_tokens = Counter(name("key_tokens"), "Processed tokens, by API key.", ["key"], registry=registry)
        self.reloads = Counter(name("reloads"), "Reloads, by outcome.", ["outcome"], registry=registry)
        for outcome in ("done", "failed"):
            self.reloads.labels(outcome)
        self.watch(models)

    def watch(self, models: Models) -> None:
        """Measure the batches of these models from now on."""
        self.models = models
        for model in models.values():
            self._observe_batches(model)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request. There are few routes and statuses, and looking labels up costs more than counting."""
        if (found := self._of_route.get((route, status))) is None:
            found = self._of_route[route, status] = self.requests.labels(route, str(status)), self.seconds.labels(route)
        requests, times = found
        requests.inc()
        times.observe(seconds)

    def count_reload(self, succeeded: bool) -> None:
        """Count a reload."""
        self.reloads.labels("done" if succeeded else "failed").inc()

    def count_key(self, key: str, status: int, tokens: int) -> None:
        """Count a request of an API key, and its tokens."""
        self.keys.labels(key, str(status)).inc()
        self.key_tokens.labels(key).inc(tokens)

    def _observe_batches(self, model: Model) -> None:
        """Measure every batch of a model; looking labels up only once saves most of the cost."""
        wait, compute, fill = (metric.labels(model.name) for metric in (self.wait, self.compute, self.fill))
        sequences, tokens = self.sequences.labels(model.name), self.tokens.labels(model.name)
        self.queue.labels(model.name)
        budget = model.queue.budget

        def observe(report: BatchReport) -> None:
            sequences.inc(report.sequences)
            tokens.inc(report.tokens)
            compute.observe(report.seconds)
            fill.observe(report.tokens / budget)
            for seconds in report.waits:
                wait.observe(max(0.0, seconds))

        model.queue.observe = observe

    def refresh(self) -> None:
        """Read whatever is not counted as it happens."""
        for model in self.models.values():
            self.queue.labels(model.name).set(model.queue.tokens)
        self.memory.set(resident_bytes())

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        self.refresh()
        registry = self.registry
        if FILES in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 where the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
