"""Export a model to another format: read it, write each file, verify it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pocketbert.checkpoints.files import new_folder, refuse_existing
from pocketbert.errors import require
from pocketbert.exporters.formats import FORMATS
from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.source import read_source, write_companions
from pocketbert.exporters.verify import SENTENCES, Measure, VerifiedFile, Verifier


@dataclass(frozen=True)
class ExportResult:
    """A finished export.

    Attributes:
        folder: with the exported files, the configuration and the tokenizer.
        files: one per precision, in the order of the options.
    """

    folder: Path
    files: tuple[VerifiedFile, ...]


def export(
    options: ExportOptions, *, measure: Measure | None = None, advance: Callable[[int, float], None] | None = None
) -> ExportResult:
    """Write a model with its own head in another format; complete and verified, or not at all.

    Each file is run as soon as it is written, and its outputs are compared with the model's. Beside the files are the
    configuration, with the labels, and the tokenizer.

    Args:
        options: what to export.
        measure: maps a predictor to its metrics [default: evaluation on `options.eval_data`, if there is any].
        advance: called during evaluation with the number of examples done, and the fraction of all that they are.

    Raises:
        CheckpointError: the model cannot be read, or has a head that cannot be exported; the output folder is in use,
            or cannot be written.
        ConfigError: an option does not fit the model.
        DataError: the labelled data cannot be used.
        InputError: an exported file differs too much from the model; there are no texts to compare on.
        MissingExtraError: the packages that the format needs are not installed.
    """
    format_, output = FORMATS[options.format], Path(options.output)
    for extra in format_.extras:
        require(extra)
    refuse_existing(output)
    texts = SENTENCES if options.texts is None else options.texts
    writer = format_.load_writer()(
        read_source(options.model, texts, head=options.head, revision=options.revision), options
    )
    source = writer.source
    if measure is None and options.eval_data is not None:
        measure = _evaluation(options, writer.fixed_length, advance)
    verifier = Verifier(
        source.fp32_plan, source.inputs, measure=measure, force=options.force, comparable=writer.comparable
    )
    files = []
    with new_folder(output) as folder:
        write_companions(source, folder)
        for precision in dict.fromkeys(options.precisions):
            name = format_.files[precision]
            writer.write(folder / name, precision)
            verified = verifier(folder / name, format_.open(folder / name), precision)
            files.append(replace(verified, path=output / name))
    return ExportResult(output, tuple(files))


def _evaluation(options: ExportOptions, length: int | None, advance: Callable[[int, float], None] | None) -> Measure:
    """The measure of a predictor on `options.eval_data`, with at most `length` tokens per input."""
    from pocketbert.tasks.evaluate import read_evaluation

    assert options.eval_data is not None
    evaluation = read_evaluation(options.model, options.eval_data, glue=options.glue, max_length=length)
    return lambda predictor: evaluation(predictor, advance)
