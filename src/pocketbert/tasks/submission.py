"""Submissions to the GLUE benchmark: one zip file, with a table of predictions for each test set.

https://gluebenchmark.com/faq. Every table has the header `index`, `prediction` and a row for every row of the test set:
numbers of classes, or their names for MNLI, AX, QNLI and RTE, or for STS-B a similarity from 0 to 5. The model of MNLI
predicts the diagnostic set as well.
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
from pocketbert.tasks.classification import TextEvaluation
from pocketbert.tasks.evaluation import Advance, Evaluation

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
    """Predict the test set of a task, and add the table to the zip file `path`, beside those of other tasks.

    Args:
        evaluation: the evaluation of the model on the dev set of the task.
        predictor: the model.
        data: the folder of the task, or of all tasks.
        path: the zip file; created if it does not exist.
        advance: called with the number of finished examples, and their fraction of all examples.

    Returns:
        The files that the zip file still lacks.

    Raises:
        ConfigError: the evaluation is not of a GLUE task, or `path` exists and is not a zip file.
        DataError: the test set is missing or damaged.
    """
    if not isinstance(evaluation, TextEvaluation) or evaluation.glue is None:
        raise ConfigError("a submission is for GLUE: name the task (--glue)")
    path, task = Path(path), glue_task(evaluation.glue)
    sets = [(task, read_glue(data, evaluation.glue, "test"))]
    if task is GLUE["mnli"]:
        sets += _diagnostics(Path(data))
    if path.exists() and not zipfile.is_zipfile(path):
        raise ConfigError(f"{path} exists and is not a zip file: choose another name")
    files: dict[str, str] = {}
    total, done = sum(len(table) for _, tables in sets for table in tables.values()), 0
    for glue, test_sets in sets:
        for (file, rows), table in zip(glue.submission, test_sets.values(), strict=True):
            if len(table) != rows:
                logger.warning(
                    "%s has %s rows, GLUE's test set %s: the benchmark will reject %s",
                    table.path, f"{len(table):,}", f"{rows:,}", file,
                )  # fmt: skip
            logits = []
            for prediction in evaluation.predict(predictor, table.examples):
                logits.append(prediction)
                done += 1
                if advance is not None:
                    advance(done, done / total)
            files[file] = _table(table, glue, evaluation.labels.names, np.stack(logits))
    complete = _write(path, files)
    return [file for file in FILES if file not in complete]


def _diagnostics(data: Path) -> list[tuple[GlueTask, dict[str, Table]]]:
    folder = next((path for path in (data / "AX", data.parent / "AX") if path.is_dir()), None)
    if folder is None and data.exists():
        logger.warning("%s has no folder AX: skipping the diagnostic set", data)
        return []
    return [(GLUE["ax"], read_glue(folder or data, "ax", "test"))]


def _table(table: Table, task: GlueTask, names: Sequence[str], logits: npt.NDArray[Any]) -> str:
    """Return the table of predictions for a test set; `names` are the labels in the order of the model's outputs."""
    if not task.names:
        written = [f"{x:.3f}" for x in np.clip(logits.reshape(len(table)), 0.0, _LARGEST_SIMILARITY).tolist()]
    else:
        written = [names[i] for i in logits.argmax(axis=1)]
        if task.numbers:
            written = [str(task.names.index(name)) for name in written]
    rows = (f"{index}\t{prediction}\n" for index, prediction in enumerate(written))
    return "index\tprediction\n" + "".join(rows)


def _write(path: Path, tables: dict[str, str]) -> set[str]:
    """Add `tables` to the zip file; return the names of all files in it."""
    contents: dict[str, bytes] = {}
    if path.exists():
        with zipfile.ZipFile(path) as before:
            contents = {name: before.read(name) for name in before.namelist()}
    contents |= {name: text.encode() for name, text in tables.items()}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(contents):
            # Without a date, so that the same predictions give the same bytes.
            archive.writestr(zipfile.ZipInfo(name), contents[name], zipfile.ZIP_DEFLATED)
    return set(contents)
