"""Texts through a pipeline: load it, stream texts through it, report what was skipped or truncated."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pocketbert.cli import console
from pocketbert.cli.inputs import Item, TextSource
from pocketbert.errors import InputError

if TYPE_CHECKING:
    from pocketbert.pipelines import Pipeline
    from pocketbert.sentences.rank import Ranker


def spare_numpy_threads() -> None:
    """Where the core computes, start no threads of NumPy's own: they would take a quarter of the time to import it."""
    if find_spec("pocketbert._core") is not None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def load_pipeline(task: str, model: str | None, device: str | None) -> Pipeline:
    """Load the pipeline of a task."""
    if device is None:
        spare_numpy_threads()
    with console.busy("loading the model"):
        from pocketbert.pipelines import pipeline

        return pipeline(task, model, device=device)


def predictions(
    pipe: Pipeline | Ranker, source: TextSource, to_input: Callable[[Item], Any], json: bool, **options: Any
) -> Iterator[tuple[Item, Any]]:
    """Every text with its result, in order and as soon as it is computed; then notes on texts not read in full.

    Args:
        pipe: the pipeline.
        source: the texts.
        to_input: makes an input of the pipeline from an item.
        json: whether results are written as JSON lines.
        **options: of the pipeline's call.

    Raises:
        InputError: a text cannot be read; names its location.
    """
    from pocketbert.features import all_unknown
    from pocketbert.pipelines.base import unknown_note
    from pocketbert.runtime.stream import PAUSE

    tokenizer = pipe.tokenizer
    pending: deque[tuple[Item, float | None]] = deque()  # read, and not computed yet

    def inputs() -> Iterator[Any]:
        for item in source.items():
            if item is None:
                yield PAUSE
            else:
                pending.append((item, source.fraction))
                yield to_input(item)

    count, truncated, first, unknown = 0, 0, "", 0
    with console.progress("texts", hidden=json and sys.stdout.isatty()) as advance:
        try:
            for result in pipe.stream(inputs(), **options):
                item, fraction = pending.popleft()
                count += 1
                if any(features.cut for features in result.features):
                    truncated, first = truncated + 1, first or item.location
                unknown += all_unknown(result.features, tokenizer)
                yield item, result.value
                advance(count, fraction)
        except InputError as error:
            if error.position is None or not pending:
                raise
            location = pending[0][0].location
            raise InputError(f"{source.name}, {location}: {error.message}" if location else error.message) from None
    if source.skipped:
        console.print_line(f"skipped lines without text: {source.skipped:,}", "note")
    note_truncated(pipe, truncated, count, first)
    if unknown:
        console.print_line(unknown_note(unknown, count), "note")


def text_of(item: Item) -> str:
    """The input of a pipeline of single texts."""
    return item.text


def note_truncated(pipe: Pipeline | Ranker, truncated: int, count: int, first: str) -> None:
    """Note that `truncated` of `count` texts were not read to their end, the first of them at `first`."""
    if truncated:
        remedy = f"--{pipe.whole_texts}" if pipe.whole_texts else ""
        location = f" (the first at {first})" if first and count > 1 else ""
        console.print_line(f"{pipe.cut_note(truncated, count, remedy)}{location}", "note")
