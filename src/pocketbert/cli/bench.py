"""Benchmarks: bench."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.bench.options import BenchOptions
from pocketbert.cli import console
from pocketbert.cli.commands import command
from pocketbert.cli.inputs import read_texts
from pocketbert.cli.options import build, options_of

if TYPE_CHECKING:
    from pocketbert.bench.measure import Bench, Report, Row
    from pocketbert.bench.peers import Shape
    from pocketbert.bench.subjects import Subject
    from pocketbert.features import Features

SECONDS = 10.0  # per model and shape


@command(
    examples=[
        "pocketbert bench",
        "pocketbert bench my-model --batch 1 --length 64 --picture bench.png",
        "pocketbert bench --text sentences.txt --json > bench.json",
    ]
)
@options_of(BenchOptions)
@console.json_option
def bench(json: bool | None, **values: Any) -> None:
    """Benchmark models on this machine, beside other engines.

    All supported engines that are installed take part. The results are written as JSON, too.
    """
    options = build(BenchOptions, values)
    from pocketbert.bench import measure
    from pocketbert.bench.subjects import PUBLISHED, from_folder, published, with_random_weights
    from pocketbert.configs import AutoConfig
    from pocketbert.errors import require
    from pocketbert.exporters.load import find_export, model_folder

    if options.picture is not None:
        require("bench")
    texts = None if options.text is None else list(read_texts(options.text))
    shapes = list(itertools.product(sorted(set(options.batch)), sorted(set(options.length))))
    names: Sequence[str] = options.models or tuple(PUBLISHED)
    exports = None if options.exports is None else Path(options.exports)
    with measure.exports(exports) as folder, _progress(len(names) * (len(shapes) + (texts is not None))) as bar:
        run = measure.Bench(folder, bar.describe)
        for name in names:
            bar.describe(f"{name}: loading")
            file = find_export(name) if options.models else None
            if file is not None:
                name = str(model_folder(file))
                subject = with_random_weights(Path(name).name, AutoConfig.from_pretrained(name))
            else:
                subject = from_folder(name) if options.models else published(name)
            inputs = None
            if texts is not None:
                inputs = (_encoded(name if options.models else None, subject, texts), str(options.text))
            _measure(run, bar, subject, shapes, inputs, file)
    if options.picture is not None:
        from pocketbert.bench.picture import draw

        draw(run.report, Path(options.picture))
    if not console.use_json(json):
        _print(run.report)
    console.print_json(run.report.as_dict())


def _measure(
    run: Bench,
    bar: _Bar,
    subject: Subject,
    shapes: Sequence[Shape],
    inputs: tuple[Sequence[Features], str] | None,
    file: Path | None,
) -> None:
    peers, limit = run.prepare(subject), subject.config.max_position_embeddings
    if file is not None:
        from pocketbert.bench.peers import ExportedFile
        from pocketbert.exporters.load import load_export

        exported = load_export(file)
        limit = exported.max_tokens or limit
        peers.append(
            ExportedFile(
                "int8" if exported.precision == "int8" else "fp32",
                engine=f"exported file in {exported.engine}",
                needs=exported.needs,
                path=file,
            )
        )
        inputs = None if inputs is None else ([text for text in inputs[0] if len(text) <= limit], inputs[1])
    for shape in shapes:
        if shape[1] <= limit:
            run.shape(subject, peers, shape, SECONDS)
        bar.advance()
    if inputs is not None:
        run.texts(subject, peers, inputs[0], inputs[1])
        bar.advance()


def _encoded(name: str | None, subject: Subject, texts: Sequence[str]) -> list[Features]:
    """Texts, tokenized by the model's own tokenizer or, for random weights, by the bundled model's."""
    from pocketbert.features import encode_texts
    from pocketbert.pipelines import BUNDLED
    from pocketbert.tokenization import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name or BUNDLED / "sst2")
    return list(encode_texts(tokenizer, texts, max_length=subject.config.max_position_embeddings))


class _Bar:
    """A progress bar with a description of what is being measured."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        terminal = console.rich_console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal)
        self.task = self.bar.add_task("", total=total)

    def describe(self, activity: str) -> None:
        self.bar.update(self.task, description=activity)

    def advance(self) -> None:
        self.bar.advance(self.task)


@contextmanager
def _progress(total: int) -> Iterator[_Bar]:
    bar = _Bar(total)
    with bar.bar:
        yield bar


# ── tables ──


def _print(report: Report) -> None:
    columns = ["Model", "Tokens", "Engine", "ms", "Tokens/s", "Share of peak", ""]
    rows = []
    for shape in dict.fromkeys((row.model, row.batch, row.length) for row in report.shapes):
        of_shape = [row for row in report.shapes if (row.model, row.batch, row.length) == shape]
        rows += [_cells(row, best=i == 0) for i, row in enumerate(sorted(of_shape, key=lambda row: row.ms))]
    console.print_table(columns, rows, numbers=["ms", "Tokens/s", "Share of peak"])
    if report.texts:
        console.print_table(
            ["Model", "Texts", "Engine", "Batch", "Tokens/s"],
            [
                (row.model, f"{row.texts:,}", row.engine, f"{row.batch}, padded" if row.batch else "all, unpadded",
                 f"{row.tokens_a_second:,.0f}")
                for row in report.texts
            ],
            numbers=["Texts", "Tokens/s"],
        )  # fmt: skip
    peaks = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in report.limit.items())
    console.print_facts(
        [
            ("machine", f"{report.machine}, {report.threads} threads"),
            ("peak", f"{peaks} billion operations per second" if peaks else "unknown: the native core is not built"),
            *((f"without {name}", reason) for name, reason in report.missing.items()),
        ]
    )


def _cells(row: Row, *, best: bool) -> tuple[str, ...]:
    tokens = 1e3 * row.batch * row.length / row.ms
    share = "" if row.share is None else f"{100 * row.share:.0f} %"
    return (row.model, f"{row.batch}×{row.length}", row.engine, f"{row.ms:.2f}", f"{tokens:,.0f}", share,
            "fastest" if best else "")  # fmt: skip
