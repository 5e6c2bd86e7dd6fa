"""Measure this machine: bench."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, argument, command, option

if TYPE_CHECKING:
    from pocketbert.bench.measure import Bench, Report, Row
    from pocketbert.bench.peers import Shape
    from pocketbert.bench.subjects import Subject
    from pocketbert.features import Features

SECONDS = 10.0  # a model and shape


@command(
    examples=[
        "pocketbert bench",
        "pocketbert bench my-model --batch 1 --length 64 --picture bench.png",
        "pocketbert bench --text sentences.txt --json > bench.json",
    ]
)
@argument("models", metavar="[MODEL]...", nargs=-1, help="Folders, hub names, exported files; else all three.")
@option("--batch", type=click.IntRange(1, 1024), multiple=True, default=(1, 8), help="Texts in a batch; give several.")
@option("--length", type=click.IntRange(2, 512), multiple=True, default=(32, 128), help="Tokens a text; give several.")
@option("--text", type=PATH, metavar="FILE", help="Also measure the texts of this file, one a line, with true lengths.")
@option("--picture", type=PATH, metavar="FILE", help="Draw the results: a .png or .svg.")
@option("--exports", type=PATH, metavar="FOLDER", help="Keep the other engines' files here for the next time.")
@console.json_option
def bench(
    models: tuple[str, ...],
    batch: tuple[int, ...],
    length: tuple[int, ...],
    text: Path | None,
    picture: Path | None,
    exports: Path | None,
    json: bool | None,
) -> None:
    """Benchmark models on this machine, in PocketBERT and other engines."""
    from pocketbert.bench import measure
    from pocketbert.bench.subjects import PUBLISHED, from_folder, published, with_random_weights
    from pocketbert.configs import AutoConfig
    from pocketbert.errors import require
    from pocketbert.exporters.load import exported_file, model_folder

    if picture is not None:
        require("bench")
        if picture.suffix.lower() not in (".png", ".svg"):
            raise click.UsageError(f"--picture {picture}: the name must end in .png or .svg")
    lines = None if text is None else _lines(text)
    shapes = list(itertools.product(sorted(set(batch)), sorted(set(length))))
    names: Sequence[str] = models or tuple(PUBLISHED)
    with measure.exports(exports) as folder, _progress(len(names) * (len(shapes) + (text is not None))) as bar:
        run = measure.Bench(folder, bar.say)
        for name in names:
            bar.say(f"{name}: reading")
            file = exported_file(name) if models else None
            if file is not None:
                name = str(model_folder(file))
                subject = with_random_weights(Path(name).name, AutoConfig.from_pretrained(name))
            else:
                subject = from_folder(name) if models else published(name)
            inputs = None if lines is None else (_encoded(name if models else None, subject, lines), str(text))
            _measure(run, bar, subject, shapes, inputs, file)
    if picture is not None:
        from pocketbert.bench.picture import draw

        draw(run.report, picture)
    if not console.use_json(json):
        _show(run.report)
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
        inputs = None if inputs is None else ([one for one in inputs[0] if len(one) <= limit], inputs[1])
    for shape in shapes:
        if shape[1] <= limit:
            run.shape(subject, peers, shape, SECONDS)
        bar.advance()
    if inputs is not None:
        run.texts(subject, peers, inputs[0], inputs[1])
        bar.advance()


def _lines(path: Path) -> list[str]:
    from pocketbert.cli.inputs import text_source

    return [item.text for item in text_source((), str(path)).items() if item is not None]


def _encoded(name: str | None, subject: Subject, lines: Sequence[str]) -> list[Features]:
    """By the model's own tokenizer, or, with random weights, by that of the bundled model."""
    from pocketbert.features import encode_texts
    from pocketbert.pipelines import BUNDLED
    from pocketbert.tokenization import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name or BUNDLED / "sst2")
    return list(encode_texts(tokenizer, lines, max_length=subject.config.max_position_embeddings))


class _Bar:
    """Says what is measured now, and how much is left."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        where = console.rich_console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=where, transient=True, disable=not where.is_terminal)
        self.task = self.bar.add_task("", total=total)

    def say(self, what: str) -> None:
        self.bar.update(self.task, description=what)

    def advance(self) -> None:
        self.bar.advance(self.task)


@contextmanager
def _progress(total: int) -> Iterator[_Bar]:
    bar = _Bar(total)
    with bar.bar:
        yield bar


# ── for people ──


def _show(report: Report) -> None:
    columns = ["Model", "Tokens", "Engine", "ms", "Tokens/s", "Share of limit", ""]
    rows = []
    for shape in dict.fromkeys((row.model, row.batch, row.length) for row in report.shapes):
        alike = [row for row in report.shapes if (row.model, row.batch, row.length) == shape]
        rows += [_cells(row, best=i == 0) for i, row in enumerate(sorted(alike, key=lambda row: row.ms))]
    console.print_table(columns, rows, numbers=["ms", "Tokens/s", "Share of limit"])
    if report.texts:
        console.print_table(
            ["Model", "Texts", "Engine", "At a time", "Tokens/s"],
            [
                (row.model, f"{row.texts:,}", row.engine, f"{row.batch}, padded" if row.batch else "all, not padded",
                 f"{row.tokens_a_second:,.0f}")
                for row in report.texts
            ],
            numbers=["Texts", "Tokens/s"],
        )  # fmt: skip
    limits = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in report.limit.items())
    console.print_facts(
        [
            ("machine", f"{report.machine}, {report.threads} threads"),
            ("limit", f"{limits} billion operations a second" if limits else "unknown: the native core was not built"),
            *((f"without {name}", how) for name, how in report.missing.items()),
        ]
    )


def _cells(row: Row, *, best: bool) -> tuple[str, ...]:
    tokens = 1e3 * row.batch * row.length / row.ms
    share = "" if row.share is None else f"{100 * row.share:.0f} %"
    return (row.model, f"{row.batch}×{row.length}", row.engine, f"{row.ms:.2f}", f"{tokens:,.0f}", share,
            "fastest" if best else "")  # fmt: skip
