"""The figures of all processors side by side, from the files in results: a CSV, and the table in docs/results.md.

    python benchmarks/processors.py            # writes both
    python benchmarks/processors.py --check    # whether both are up to date; status 1 if not

Of several runs on a processor, the latest that has a figure counts. results/processors.csv has a row per processor and
figure, with the file that it is from. benchmarks/all.py calls this at its end.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare import renamed

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
BEGIN, END = "<!-- processors: written by benchmarks/processors.py -->\n", "<!-- /processors -->\n"
# File names contain the processor's own name, family and model. Older ones lack the latter two: virtual machines call
# all of these "AMD EPYC", and docs/results.md states which one a run was on.
NAMES = {"AMD-EPYC-25-17": "AMD EPYC (Zen 4)", "Intel-Xeon-Processor-6-167": "Intel Xeon (AMX)"}
OLD = {
    "AMD-EPYC_2026-11-21": "AMD EPYC (Zen 5)", "AMD-EPYC_2026-11-30": "AMD EPYC (Zen 4)",
    "bundled_AMD-EPYC_2026-11-30": "AMD EPYC (Zen 3)", "soak_AMD-EPYC_2026-11-30": "AMD EPYC (Zen 3)",
}  # fmt: skip
Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Figure:
    """One figure of a benchmark.

    Attributes:
        measure: in words.
        unit: of the value.
        benchmark: whose files have it.
        value: the figure, given the rows of a file; None where it lacks it.
        digits: after the point.
    """

    measure: str
    unit: str
    benchmark: str
    value: Callable[[Rows], float | None]
    digits: int = 1


def cell(*columns: str, **wanted: str) -> Callable[[Rows], float | None]:
    """The median over all rows that have the wanted values, of the first of the columns that a row has."""

    def value(rows: Rows) -> float | None:
        found = [row for row in rows if all(row.get(name) == text for name, text in wanted.items())]
        values = [next((float(row[name]) for name in columns if row.get(name)), None) for row in found]
        return statistics.median(known) if (known := [value for value in values if value is not None]) else None

    return value


def either(*figures: Callable[[Rows], float | None]) -> Callable[[Rows], float | None]:
    """The first of these figures that a file has: older files have other columns."""
    return lambda rows: next((value for figure in figures if (value := figure(rows)) is not None), None)


def peak(arithmetic: str) -> Callable[[Rows], float | None]:
    """The roofline in billions of operations per second; `read` makes the report of a run a row."""
    found = cell(arithmetic, report="roofline")
    return lambda rows: None if (rate := found(rows)) is None else rate / 1e9


def best_other(model: str, batch: str, length: str) -> Callable[[Rows], float | None]:
    """The least median of all other engines."""

    def value(rows: Rows) -> float | None:
        others = [
            float(row.get("median_ms") or row["ms"]) for row in rows
            if (row.get("model"), row.get("batch"), row.get("length")) == (model, batch, length)
            and not row["engine"].startswith("PocketBERT")
        ]  # fmt: skip
        return min(others, default=None)

    return value


def engine_figures() -> Iterable[Figure]:
    """Of benchmarks/engines.py."""
    for arithmetic in ("int8", "bf16", "fp32"):
        yield Figure(f"roofline, {arithmetic}", "GOP/s", "engines", peak(arithmetic), 0)
    for model in ("SqueezeBERT", "MobileBERT", "BERT-base"):
        for batch, length in (("1", "128"), ("8", "128")):
            shape = f"{model} {batch}×{length}"
            for precision in ("int8", "fp32"):
                wanted = {"model": model, "engine": f"PocketBERT {precision}", "batch": batch, "length": length}
                yield Figure(f"{shape}, {precision}", "ms", "engines", cell("median_ms", "ms", **wanted))
            yield Figure(f"{shape}, best other engine", "ms", "engines", best_other(model, batch, length))


FIGURES = (
    *engine_figures(),
    Figure("bundled model, one sentence", "ms", "bundled", cell("ms per text alone, median")),
    Figure("bundled model, one call", "texts/s", "bundled", cell("texts per second in one call"), 0),
    Figure("process start to the bundled model's output", "s", "startup",
           cell("value", measure="bundled model, process start to first answer and end"), 2),
    Figure("peak memory, SqueezeBERT int8", "MB", "startup",
           cell("value", measure="SqueezeBERT int8 1×128, PocketBERT, peak memory"), 0),
    Figure("SqueezeBERT 1×128, int8, beside a busy process", "ms", "neighbour",
           either(cell("p50_ms", engine="PocketBERT int8", state="one processor taken"),
                  cell("stolen_p50_ms", engine="PocketBERT int8"))),
    Figure("SqueezeBERT 1×128, int8, before and after that", "ms", "neighbour",
           either(cell("p50_ms", engine="PocketBERT int8", state="alone"),
                  cell("quiet_p50_ms", engine="PocketBERT int8"))),
    Figure("service at a p99 of 100 ms", "responses/s", "serving-summary",
           cell("value", measure="responses per second at p99 ≤ 100 ms, PocketBERT int8"), 0),
    Figure("fine-tuning MiniLM on SST-2", "examples/s", "finetune-speed",
           cell("examples_per_second", model="minilm", task="sst-2", loop="pocketbert"), 0),
    Figure("fine-tuning SqueezeBERT on SST-2", "examples/s", "finetune-speed",
           cell("examples_per_second", model="squeezebert-uncased", task="sst-2", loop="pocketbert"), 0),
    Figure("pretraining the miniature SqueezeBERT", "tokens/s", "pretrain-speed",
           cell("tokens_per_second", how="PocketBERT", processes="1", threads="2"), 0),
)  # fmt: skip


def read(path: Path) -> Rows:
    """The rows of a result file, its columns and measures as they are called today."""
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [{renamed(k): renamed(v) for k, v in row.items()} for row in csv.DictReader(file)]
    report = path.with_suffix(".json")
    if report.exists():
        content = json.loads(report.read_text(encoding="utf-8"))
        rows.append({"report": "roofline", **(content.get("roofline") or content["limit"])})
    return rows


def processor(path: Path) -> str:
    """The processor of a result file."""
    machine = path.stem.split("_")[1]
    old = OLD.get(path.stem) or OLD.get(path.stem.partition("_")[2])
    return old or NAMES.get(machine) or machine.replace("-", " ")


def collect(folder: Path) -> list[dict[str, str]]:
    """A row per processor and figure."""
    values: dict[tuple[str, Figure], dict[str, str]] = {}
    for path in sorted(folder.glob("*_*_*.csv"), key=lambda path: path.stem.rpartition("_")[2]):
        rows = read(path)
        for figure in FIGURES:
            if path.stem.split("_")[0] == figure.benchmark and (value := figure.value(rows)) is not None:
                name, date = processor(path), path.stem.rpartition("_")[2]
                values[name, figure] = {
                    "processor": name, "measure": figure.measure, "value": f"{value:.{figure.digits}f}",
                    "unit": figure.unit, "date": date, "file": path.name,
                }  # fmt: skip
    order = {figure: place for place, figure in enumerate(FIGURES)}
    return [values[key] for key in sorted(values, key=lambda key: (key[0], order[key[1]]))]


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """The content of processors.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in Markdown: figures by processors."""
    processors = list(dict.fromkeys(row["processor"] for row in rows))
    values = {(row["measure"], row["processor"]): row["value"] for row in rows}
    lines = [f"| Figure | Unit | {' | '.join(processors)} |", f"|---|---|{'---:|' * len(processors)}"]
    for figure in FIGURES:
        cells = [values.get((figure.measure, name), "") for name in processors]
        if any(cells):
            cells = [re.sub(r"(?<=\d)(?=(\d{3})+$)", ",", text) for text in cells]
            lines.append(f"| {figure.measure} | {figure.unit} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page_with(table: str, page: str) -> str:
    """The page with its table replaced."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + table + "\n" + END + rest.partition(END)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args()
    rows, page = collect(RESULTS), PAGE.read_text(encoding="utf-8")
    contents = {RESULTS / "processors.csv": as_csv(rows), PAGE: page_with(as_table(rows), page)}
    stale = [path for path, text in contents.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is not up to date' if given.check else 'written'}")
        if not given.check:
            path.write_text(contents[path], encoding="utf-8")
    sys.exit(1 if given.check and stale else 0)


if __name__ == "__main__":
    main()
