"""The nine tasks of GLUE and its diagnostic set in their official TSV layout, as one table of facts.

Wang et al. 2018, https://gluebenchmark.com. The quotes in these files are literal, CoLA has no header line in its
labelled files, MNLI has two development sets, and a few lines of QQP are damaged in the official download.
"""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.data.labels import Labels
from pocketbert.data.tables import Columns, Table, read_table
from pocketbert.errors import DataError


@dataclass(frozen=True)
class GlueTask:
    """Where the files of a task are, and what their columns and labels mean."""

    folder: str
    columns: Columns
    #: In the order of the numbers that the files use, or of the usual loaders where they use names; empty: regression.
    names: tuple[str, ...]
    train: str | None = "train.tsv"
    #: Name of the development set in reports → file.
    dev: tuple[tuple[str, str], ...] = (("dev", "dev.tsv"),)
    test: tuple[str, ...] = ("test.tsv",)
    header: tuple[str, ...] | None = None
    skip_ragged: bool = False

    @property
    def labels(self) -> Labels:
        """Its labels."""
        return Labels(self.names, numbered=self.names)


_SENTENCES = Columns("sentence1", "sentence2", "label")
_ENTAILMENT = ("entailment", "not_entailment")
_THREE_WAY = ("entailment", "neutral", "contradiction")

GLUE: dict[str, GlueTask] = {
    "cola": GlueTask(
        "CoLA",
        Columns("sentence", None, "label"),
        ("unacceptable", "acceptable"),
        header=("source", "label", "star", "sentence"),
    ),
    "sst-2": GlueTask("SST-2", Columns("sentence", None, "label"), ("negative", "positive")),
    "mrpc": GlueTask(
        "MRPC",
        Columns("#1 String", "#2 String", "Quality"),
        ("not_equivalent", "equivalent"),
    ),
    "sts-b": GlueTask("STS-B", Columns("sentence1", "sentence2", "score"), ()),
    "qqp": GlueTask(
        "QQP",
        Columns("question1", "question2", "is_duplicate"),
        ("not_duplicate", "duplicate"),
        skip_ragged=True,
    ),
    "mnli": GlueTask(
        "MNLI",
        Columns("sentence1", "sentence2", "gold_label"),
        _THREE_WAY,
        dev=(("matched", "dev_matched.tsv"), ("mismatched", "dev_mismatched.tsv")),
        test=("test_matched.tsv", "test_mismatched.tsv"),
    ),
    "qnli": GlueTask("QNLI", Columns("question", "sentence", "label"), _ENTAILMENT),
    "rte": GlueTask("RTE", _SENTENCES, _ENTAILMENT),
    "wnli": GlueTask("WNLI", _SENTENCES, ("not_entailment", "entailment")),
    # No labels, and nothing to train on: an MNLI model answers it.
    "ax": GlueTask("AX", _SENTENCES, _THREE_WAY, train=None, dev=(), test=("diagnostic.tsv",)),
}


def glue_task(name: str) -> GlueTask:
    """The task of this name ("sst-2", "SST2" and "sst_2" are the same)."""
    plain = {key.replace("-", ""): task for key, task in GLUE.items()}
    task = plain.get(name.lower().replace("-", "").replace("_", ""))
    if task is None:
        raise DataError(f"{name!r} is no GLUE task; these are: {', '.join(GLUE)}")
    return task


def read_glue(folder: str | Path, name: str, split: str) -> dict[str, Table]:
    """Read a split of a task: "train", "dev" or "test" (which is read without labels).

    Args:
        folder: the task's own folder, or the one that holds all of them.
        name: the task.
        split: which files.

    Returns:
        Name → table; one entry, except for the development and test sets of MNLI.

    Raises:
        DataError: the task has no such split, a file is missing, or it is of another task.
    """
    task = glue_task(name)
    folder = Path(folder)
    folder = folder / task.folder if (folder / task.folder).is_dir() else folder
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; give {task.folder}, or the folder that holds it")
    files = {
        "train": (("train", task.train),) if task.train else (),
        "dev": task.dev,
        "test": tuple((Path(name).stem, name) for name in task.test),
    }[split]
    if not files:
        raise DataError(f"GLUE's {task.folder} has no {split} set")
    if not (folder / files[0][1]).exists():
        raise DataError(f"{folder}: holds neither a folder {task.folder} nor the file {files[0][1]} of that task")
    labelled = split != "test"
    return {
        name: read_table(
            folder / file,
            text=task.columns.text,
            text_pair=task.columns.text_pair,
            label=task.columns.label if labelled else None,
            labelled=labelled,
            header=task.header if labelled else None,
            skip_ragged=task.skip_ragged,
        )
        for name, file in files
    }
