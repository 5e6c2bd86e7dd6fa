"""Metrics for OpenTelemetry: what Prometheus would read, sent to a collector every minute by a thread of its own.

Nothing is measured twice, so this costs requests nothing: the values of the Prometheus metrics are converted when they
are sent. Each of several workers sends its own, as an instance of the service.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from pocketbert.serve.metrics import Metrics

INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"  # milliseconds, as everywhere in OpenTelemetry
TIMEOUT = 5  # seconds of one attempt to send, so that a shutdown takes no longer
logger = logging.getLogger("pocketbert.serve")


class OtlpSender:
    """Sends the metrics of this process to a collector, over HTTP.

    Args:
        metrics: of the service.
        collector: its address, such as http://localhost:4318.
    """

    def __init__(self, metrics: Metrics, collector: str) -> None:
        self._metrics = metrics
        endpoint = collector if urlsplit(collector).path.strip("/") else f"{collector.rstrip('/')}/v1/metrics"
        self._exporter = OTLPMetricExporter(endpoint=endpoint, timeout=TIMEOUT)
        service = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "pocketbert")}
        self._resource = Resource.create({**service, "service.instance.id": f"{os.getpid()}"})
        self._interval = float(os.environ.get(INTERVAL, "60000")) / 1000
        self._started = time.time_ns()
        self._stop = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="pocketbert-otlp", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Send the last values, and end."""
        self._stop.set()
        self._thread.join()
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.send()
        self.send()

    def send(self) -> None:
        """Send the values as they are now; a collector that cannot be reached is reported once."""
        self._metrics.refresh()
        metrics = [self._convert(one) for one in self._metrics.registry.collect() if one.samples]
        scope = ScopeMetrics(InstrumentationScope("pocketbert"), metrics, "")
        result = self._exporter.export(MetricsData([ResourceMetrics(self._resource, [scope], "")]))
        failed = result is not MetricExportResult.SUCCESS
        if failed and not self._failing:
            logger.warning("the OpenTelemetry collector rejects the metrics; further failures are not logged")
        self._failing = failed

    def _convert(self, family: Any) -> Metric:
        """A family of Prometheus's metrics as a metric of OpenTelemetry."""
        now = time.time_ns()
        if family.type == "histogram":
            data: Any = Histogram(self._histogram(family.samples, now), AggregationTemporality.CUMULATIVE)
        else:
            samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            points = [NumberDataPoint(sample.labels, self._started, now, sample.value) for sample in samples]
            is_sum = family.type == "counter"
            data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True) if is_sum else Gauge(points)
        return Metric(family.name, family.documentation, "s" if family.name.endswith("_seconds") else "", data)

    def _histogram(self, samples: Sequence[Any], now: int) -> list[HistogramDataPoint]:
        """The points of a histogram: Prometheus counts what is at most a bound, OpenTelemetry what lies between two."""
        points: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
        for sample in samples:
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            point = points.setdefault(tuple(labels.items()), {"labels": labels, "bounds": [], "counts": []})
            if sample.name.endswith("_bucket"):
                point["bounds"].append(float(sample.labels["le"]))
                point["counts"].append(int(sample.value))
            elif sample.name.endswith("_sum"):
                point["sum"] = sample.value
        return [
            HistogramDataPoint(
                point["labels"],
                self._started,
                now,
                count=point["counts"][-1],
                sum=point["sum"],
                bucket_counts=[b - a for a, b in pairwise([0, *point["counts"]])],
                explicit_bounds=point["bounds"][:-1],
                min=None,  # type: ignore[arg-type]  # not known: left out of what is sent
                max=None,  # type: ignore[arg-type]
            )
            for point in points.values()
        ]
