"""What the GLUE benchmark wants to be sent: one zip, with a table of predictions for each test set.

https://gluebenchmark.com/faq. Every table has the header `index`, `prediction` and a row for every row of the test set:
numbers of classes, or their names for MNLI, AX, QNLI and RTE, or for STS-B a similarity from 0 to 5. The diagnostic set
is answered by the model of MNLI.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints.files import atomic_write
from pocketbert.data.glue import GLUE, GlueTask, glue_task, read_glue
from pocketbert.data.tables import Table
from pocketbert.errors import ConfigError
from pocketbert.features import Predictor
from pocketbert.recipes.classification import TextEvaluation
from pocketbert.recipes.task import Advance, Evaluation

logger = logging.getLogger("pocketbert")

FILES = tuple(file for task in GLUE.values() for file, _ in task.submission)
_LARGEST_SIMILARITY = 5.0


def submit(
    evaluation: Evaluation[Any, Any],
    predictor: Predictor,
    data: str | Path,
    path: str | Path,
    advance: Advance | None = None,
) -> list[str]:
    """Predict the test set of a task, and put the table into the zip `path`, beside those of other tasks.

    Args:
        evaluation: of the model, on the development set of the task.
        predictor: the model.
        data: the folder of the task, or of all of them.
        path: the zip; made if it is not there.
        advance: called with the number of examples done, and the fraction of all that they are.

    Returns:
        The files that the zip still lacks.

    Raises:
        ConfigError: the evaluation is of no GLUE task, or `path` is there and no zip.
        DataError: the test set is missing, or damaged.
    """
    if not isinstance(evaluation, TextEvaluation) or evaluation.glue is None:
        raise ConfigError("a submission is for GLUE: say which task (--glue)")
    path, task = Path(path), glue_task(evaluation.glue)
    sets = [(task, read_glue(data, evaluation.glue, "test"))]
    if task is GLUE["mnli"]:
        sets += _diagnostics(Path(data))
    if path.exists() and not zipfile.is_zipfile(path):
        raise ConfigError(f"{path} is there and is no zip: choose another name")
    tables: dict[str, str] = {}
    total, done = sum(len(table) for _, found in sets for table in found.values()), 0
    for of, found in sets:
        for (file, rows), table in zip(of.submission, found.values(), strict=True):
            if len(table) != rows:
                logger.warning(
                    "%s has %s rows, GLUE's test set %s: the benchmark will refuse %s",
                    table.path, f"{len(table):,}", f"{rows:,}", file,
                )  # fmt: skip
            logits = []
            for one in evaluation.predict(predictor, table.examples):
                logits.append(one)
                done += 1
                if advance is not None:
                    advance(done, done / total)
            tables[file] = _table(table, of, evaluation.labels.names, np.stack(logits))
    there = _write(path, tables)
    return [file for file in FILES if file not in there]


def _diagnostics(data: Path) -> list[tuple[GlueTask, dict[str, Table]]]:
    folder = next((one for one in (data / "AX", data.parent / "AX") if one.is_dir()), None)
    if folder is None and data.exists():
        logger.warning("%s has no folder AX: the diagnostic set is left out", data)
        return []
    return [(GLUE["ax"], read_glue(folder or data, "ax", "test"))]


def _table(table: Table, task: GlueTask, names: Sequence[str], logits: npt.NDArray[Any]) -> str:
    """The predictions for a test set; `names` are the labels in the order of the model."""
    if not task.names:
        written = [f"{x:.3f}" for x in np.clip(logits.reshape(len(table)), 0.0, _LARGEST_SIMILARITY).tolist()]
    else:
        said = [names[i] for i in logits.argmax(axis=1)]
        written = [str(task.names.index(name)) for name in said] if task.numbers else said
    rows = (f"{index}\t{prediction}\n" for index, prediction in enumerate(written))
    return "index\tprediction\n" + "".join(rows)


def _write(path: Path, tables: dict[str, str]) -> set[str]:
    """Put `tables` into the zip; returns the names of all files in it."""
    contents: dict[str, bytes] = {}
    if path.exists():
        with zipfile.ZipFile(path) as before:
            contents = {name: before.read(name) for name in before.namelist()}
    contents |= {name: text.encode() for name, text in tables.items()}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(contents):
            # A date would make the same predictions another file.
            archive.writestr(zipfile.ZipInfo(name), contents[name], zipfile.ZIP_DEFLATED)
    return set(contents)
