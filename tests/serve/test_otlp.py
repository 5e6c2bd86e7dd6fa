"""Metrics for OpenTelemetry are those of Prometheus, sent to a collector."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from helpers.service import Inside

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from pocketbert.serve.otlp import OtlpSender


class Collector(HTTPServer):
    """Takes metrics."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, Any]] = []
        self.status = 200


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        content = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        self.server.received.append((self.path, ExportMetricsServiceRequest.FromString(content)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_collector_gets_what_prometheus_would_read(models: dict[str, Path], collector: Collector) -> None:
    with Inside(("one", models["classify"])) as service:
        for inputs in ("the film is great", ["dull"] * 40):
            assert asyncio.run(service.ask("/v1/classify", {"inputs": inputs})).status == 200
        sender = OtlpSender(service.guard.metrics, f"http://127.0.0.1:{collector.server_port}")
        sender.start()
        sender.stop()  # the last values are sent
        text = service.guard.metrics.text().decode()
    [(path, request)] = collector.received
    assert path == "/v1/metrics"
    [resource] = request.resource_metrics
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "pocketbert"
    sent = {one.name: one for one in resource.scope_metrics[0].metrics}
    families = text_string_to_metric_families(text)
    read = {one.name: one for one in families if one.samples and not one.name.endswith("_created")}
    assert sent.keys() == read.keys()
    for name, family in read.items():
        samples = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in family.samples}
        metric = sent[name]
        assert metric.description == family.documentation
        if name.endswith("memory_bytes"):
            continue  # it changes meanwhile
        if metric.HasField("histogram"):
            for point in metric.histogram.data_points:
                labels = sorted((one.key, one.value.string_value) for one in point.attributes)
                assert (point.count, point.sum) == (
                    samples[(f"{name}_count", *labels)], samples[(f"{name}_sum", *labels)]
                )  # fmt: skip
                assert not point.HasField("min")
                assert not point.HasField("max")
                below = 0
                for count, bound in zip(point.bucket_counts, [*point.explicit_bounds, float("inf")], strict=True):
                    below += count
                    written = "+Inf" if bound == float("inf") else str(bound)
                    assert samples[(f"{name}_bucket", *sorted([*labels, ("le", written)]))] == below
        else:
            points = metric.sum.data_points if metric.HasField("sum") else metric.gauge.data_points
            assert metric.HasField("sum") == (family.type == "counter")
            suffix = "_total" if family.type == "counter" else ""
            for point in points:
                labels = sorted((one.key, one.value.string_value) for one in point.attributes)
                assert samples[(name + suffix, *labels)] == point.as_double


def test_a_collector_that_fails_is_reported_once(
    models: dict[str, Path], collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    with Inside(("one", models["classify"])) as service:
        sender = OtlpSender(service.guard.metrics, f"http://127.0.0.1:{collector.server_port}/own/path")
        sender.send()
        sender.send()
    assert [path for path, _ in collector.received] == ["/own/path"] * 2
    assert sum("collector rejects the metrics" in record.getMessage() for record in caplog.records) == 1
