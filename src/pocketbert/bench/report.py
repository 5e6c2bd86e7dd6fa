"""The figures of a run."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pocketbert.bench.noise import disturbance
from pocketbert.bench.peers import Shape, versions
from pocketbert.bench.roofline import peak, peaks, roofline
from pocketbert.bench.worker import Turn
from pocketbert.features import Features
from pocketbert.machine import processor_name
from pocketbert.runtime.engine import usable_threads


@dataclass(frozen=True)
class Row:
    """One engine, one model, one shape.

    Attributes:
        kernels: the instruction set or kernels that the engine chose, as it names them; empty where it does not tell.
        median_ms: of the passes that follow a pass of the same engine.
        least_ms: of the same.
        after_others_ms: the median of the first passes of turns, which find the caches full of other engines' data.
        passes: how many `median_ms` is of.
        disturbed: what disturbed the passes; empty for undisturbed ones. See `noise.disturbance`.
    """

    model: str
    engine: str
    precision: str
    kernels: str
    batch: int
    length: int
    median_ms: float
    least_ms: float
    after_others_ms: float
    passes: int
    disturbed: str

    @property
    def ours(self) -> bool:
        """Whether it is this package's."""
        return self.engine.startswith("PocketBERT")


@dataclass(frozen=True)
class TextRow:
    """One engine, one model, the texts of a file; `batch` is the texts that are padded to one length, 0 for none."""

    model: str
    source: str
    engine: str
    precision: str
    kernels: str
    batch: int
    texts: int
    tokens: int
    tokens_per_second: float

    @property
    def ours(self) -> bool:
        """Whether it is this package's."""
        return self.engine.startswith("PocketBERT")


@dataclass
class Report:
    """All figures of a run.

    Attributes:
        peaks: operations per second by arithmetic, of sets of kernels; see `roofline.peaks`.
        operations: of a pass, by model and shape as "batch×length".
        missing: engines that did not take part, each with the reason: the command that installs it, or the error.
        complete: whether the run was not interrupted.
    """

    machine: str = field(default_factory=processor_name)
    threads: int = field(default_factory=usable_threads)
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    versions: Mapping[str, str] = field(default_factory=versions)
    peaks: dict[str, dict[str, float]] = field(default_factory=peaks)
    operations: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    shapes: list[Row] = field(default_factory=list)
    texts: list[TextRow] = field(default_factory=list)
    complete: bool = False

    @property
    def roofline(self) -> dict[str, float]:
        """The most operations per second of this machine by arithmetic, with whichever kernels."""
        return roofline(self.peaks)

    @property
    def disturbed(self) -> list[Row]:
        """The rows that other work on the machine disturbed."""
        return [row for row in self.shapes if row.disturbed]

    def measure_peaks(self) -> None:
        """Measure the roofline again: the highest of all measurements counts, which other work disturbed the least."""
        for arithmetic, rate in self.roofline.items():
            kernels = next(name for name, rates in self.peaks.items() if rates.get(arithmetic) == rate)
            self.peaks[kernels][arithmetic] = max(rate, peak(kernels, arithmetic, self.threads) or 0.0)

    def share(self, row: Row) -> float | None:
        """How much of the roofline for its precision the fastest pass of a row reached, nought to one, if known."""
        limit = self.limit_ms(row.model, (row.batch, row.length), row.precision)
        return None if limit is None else round(limit / row.least_ms, 4)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of shapes, each with its share of the roofline."""
        return [{**asdict(row), "share": self.share(row)} for row in self.shapes]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        added = {"roofline": self.roofline, "shapes": self.rows(), "disturbed_rows": len(self.disturbed)}
        return {**asdict(self), **added}

    def best(
        self, model: str, shape: Shape, *, ours: bool, precisions: Sequence[str] = ("fp32", "bf16", "int8")
    ) -> Row | None:
        """The fastest engine for a model and a shape, at one of these precisions."""
        rows = [
            row for row in self.shapes
            if row.model == model and (row.batch, row.length) == shape
            and row.ours == ours and row.precision in precisions
        ]  # fmt: skip
        return min(rows, key=lambda row: row.median_ms, default=None)

    def limit_ms(self, model: str, shape: Shape, precision: str) -> float | None:
        """The time of a pass at the machine's roofline."""
        rate = self.roofline.get(precision)
        work = self.operations.get(model, {}).get(f"{shape[0]}×{shape[1]}")
        return None if rate is None or work is None else 1e3 * work / rate


def row_of(turns: Sequence[Turn], *, threads: int, **names: Any) -> Row:
    """The row of an engine's turns.

    Args:
        turns: at least one.
        threads: of the engine.
        names: the fields of the row that are not measured.
    """
    times = [seconds for turn in turns for seconds in turn.times]
    median, least = statistics.median(times), min(times)
    interrupted = [turn.interrupted for turn in turns if turn.interrupted is not None]
    stolen = [turn.stolen for turn in turns if turn.stolen is not None]
    return Row(
        **names,
        median_ms=round(1e3 * median, 3),
        least_ms=round(1e3 * least, 3),
        after_others_ms=round(1e3 * statistics.median(turn.first for turn in turns), 3),
        passes=len(times),
        disturbed=disturbance(
            median,
            least,
            sum(interrupted) / len(times) if interrupted else None,
            sum(stolen) / sum(times) / threads if stolen else None,
        ),
    )


def text_row_of(seconds: Sequence[float], inputs: Sequence[Features], **names: Any) -> TextRow:
    """The row of an engine that took `seconds` for all inputs; `names` as for `row_of`."""
    tokens = sum(map(len, inputs))
    return TextRow(
        **names, texts=len(inputs), tokens=tokens, tokens_per_second=round(tokens / statistics.median(seconds), 1)
    )
