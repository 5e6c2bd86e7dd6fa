"""Benchmarks: bench."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.bench.options import BenchOptions
from pocketbert.bundles import BUNDLED, ENCODER
from pocketbert.cli import console
from pocketbert.cli.commands import command
from pocketbert.cli.inputs import read_texts
from pocketbert.cli.options import build, options_of

if TYPE_CHECKING:
    from pocketbert.bench.measure import Bench
    from pocketbert.bench.peers import Peer
    from pocketbert.bench.subjects import Subject
    from pocketbert.cli.bench_display import Display
    from pocketbert.features import Features

SECONDS = 1.0  # per engine, model and shape; twice that in full runs


@command(
    examples=[
        "pocketbert bench",
        "pocketbert bench my-model --batch 1 --length 64 --picture bench.png",
        "pocketbert bench --full --text sentences.txt --json > bench.json",
    ]
)
@options_of(BenchOptions)
@console.json_option
def bench(json: bool | None, **values: Any) -> None:
    """Benchmark models on this machine, in comparison with other engines.

    Engines that need an exported model are measured only with --full.
    """
    options = build(BenchOptions, values)
    from pocketbert.bench.measure import Bench, exports
    from pocketbert.cli.bench_display import Display
    from pocketbert.errors import require

    if options.picture is not None:
        require("bench")
    texts = None if options.text is None else list(read_texts(options.text))
    as_json, run, display = console.use_json(json), None, Display(json=console.use_json(json), full=options.full)
    try:
        with ExitStack() as stack:
            try:
                with console.signals_blocked():  # between the making of a folder and its removal is no gap
                    folder = stack.enter_context(exports(None if options.exports is None else Path(options.exports)))
                stack.enter_context(display)
                log, quick = display.describe, not options.full
                run = stack.enter_context(Bench(folder, quick=quick, log=log, watch=display.watch))
                display.left = run.left.seconds
                _measure(run, display, options, texts)
                run.report.complete = True
            finally:
                with console.signals_blocked():  # a second Ctrl-C leaves nothing behind, either
                    stack.close()
    finally:
        if run is not None and (
            run.report.shapes or run.report.complete
        ):  # what was measured before an error or Ctrl-C
            display.show(run.report)
            display.finish(run.report)
            if as_json:
                console.print_json(run.report.as_dict())
    if options.picture is not None:
        from pocketbert.bench.picture import draw

        draw(run.report, Path(options.picture))


def _measure(run: Bench, display: Display, options: BenchOptions, texts: Sequence[str] | None) -> None:
    """Measure all models in all shapes, and on texts."""
    from pocketbert.bench.subjects import default_subjects

    batches, lengths = options.batch or ((1, 8) if options.full else (1,)), options.length or (32, 128)
    shapes = list(itertools.product(sorted(set(batches)), sorted(set(lengths))))
    names = options.models or default_subjects()
    seconds = 2 * SECONDS if options.full else SECONDS
    for place, name in enumerate(names):
        display.describe(f"{name}: reading")
        run.expect(len(names) - place, len(shapes), seconds, texts=texts is not None)
        with run.left.step("model"):
            subject, exported, limit = _subject(name)
            inputs = None if texts is None else [text for text in _encoded(subject, texts) if len(text) <= limit]
        peers = [*run.prepare(subject), *exported]
        for shape in shapes:
            if shape[1] <= limit:
                run.shape(subject, peers, shape, seconds)
                display.show(run.report)
        if inputs is not None:
            run.texts(subject, peers, inputs, str(options.text))


def _subject(name: str) -> tuple[Subject, list[Peer], int]:
    """A model, the engine of its exported file if `name` is one, and the number of tokens that both take."""
    from pocketbert.bench.peers import ExportedFile
    from pocketbert.bench.subjects import subject, with_random_weights
    from pocketbert.configs import AutoConfig
    from pocketbert.exporters.load import find_export, load_export, model_folder

    file = find_export(name)
    if file is None:
        made = subject(name)
        return made, [], made.config.max_tokens
    folder, exported = model_folder(file), load_export(file)
    made = replace(with_random_weights(folder.name, AutoConfig.from_pretrained(folder)), folder=folder)
    peer = ExportedFile(
        "int8" if exported.precision == "int8" else "fp32",
        engine=f"exported file in {exported.engine}",
        needs=exported.needs,
        path=file,
    )
    return made, [peer], exported.max_tokens or made.config.max_tokens


def _encoded(subject: Subject, texts: Sequence[str]) -> list[Features]:
    """Texts, tokenized by the model's own tokenizer or, for published sizes, by the bundled encoder's."""
    from pocketbert.features import encode_texts
    from pocketbert.tokenization import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(subject.folder or BUNDLED / ENCODER)
    return list(encode_texts(tokenizer, texts, max_length=subject.config.max_tokens))
