"""The nine tasks of GLUE and its diagnostic set, from the official files or the hub.

Wang et al. 2018, https://gluebenchmark.com. Quotes in these files are literal, CoLA has no header line in its labelled
files, MNLI has two dev sets, and a few lines of QQP are damaged in the official download. MRPC is also read from the
files that Microsoft distributes (Dolan and Brockett 2005, https://aclanthology.org/I05-5002), with a list of pairs of
ids of GLUE's dev set.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketbert.data.columns import Columns
from pocketbert.data.files import opened
from pocketbert.data.labels import Labels
from pocketbert.data.tables import Example, Table, read_table
from pocketbert.errors import DataError, require


@dataclass(frozen=True)
class GlueTask:
    """The files, columns and labels of a task."""

    folder: str
    columns: Columns
    #: Classes in the order of their numbers in the files, or of usual loaders for files of names; () in a regression.
    names: tuple[str, ...]
    train: str | None = "train.tsv"
    #: Name of the dev set in reports → file.
    dev: tuple[tuple[str, str], ...] = (("dev", "dev.tsv"),)
    test: tuple[str, ...] = ("test.tsv",)
    #: File and number of rows of a submission, per test set.
    submission: tuple[tuple[str, int], ...] = ()
    #: Whether files and submissions have numbers of classes, not names.
    numbers: bool = True
    header: tuple[str, ...] | None = None
    skip_ragged: bool = False

    @property
    def labels(self) -> Labels:
        """The labels of the task."""
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
        submission=(("CoLA.tsv", 1063),),
    ),
    "sst-2": GlueTask(
        "SST-2",
        Columns("sentence", None, "label"),
        ("negative", "positive"),
        submission=(("SST-2.tsv", 1821),),
    ),
    "mrpc": GlueTask(
        "MRPC",
        Columns("#1 String", "#2 String", "Quality"),
        ("not_equivalent", "equivalent"),
        submission=(("MRPC.tsv", 1725),),
    ),
    "sts-b": GlueTask("STS-B", Columns("sentence1", "sentence2", "score"), (), submission=(("STS-B.tsv", 1379),)),
    "qqp": GlueTask(
        "QQP",
        Columns("question1", "question2", "is_duplicate"),
        ("not_duplicate", "duplicate"),
        submission=(("QQP.tsv", 390_965),),
        skip_ragged=True,
    ),
    "mnli": GlueTask(
        "MNLI",
        Columns("sentence1", "sentence2", "gold_label"),
        _THREE_WAY,
        dev=(("matched", "dev_matched.tsv"), ("mismatched", "dev_mismatched.tsv")),
        test=("test_matched.tsv", "test_mismatched.tsv"),
        submission=(("MNLI-m.tsv", 9796), ("MNLI-mm.tsv", 9847)),
        numbers=False,
    ),
    "qnli": GlueTask(
        "QNLI",
        Columns("question", "sentence", "label"),
        _ENTAILMENT,
        submission=(("QNLI.tsv", 5463),),
        numbers=False,
    ),
    "rte": GlueTask("RTE", _SENTENCES, _ENTAILMENT, submission=(("RTE.tsv", 3000),), numbers=False),
    "wnli": GlueTask("WNLI", _SENTENCES, ("not_entailment", "entailment"), submission=(("WNLI.tsv", 146),)),
    # No labels and no training set: a model of MNLI predicts it.
    "ax": GlueTask(
        "AX",
        _SENTENCES,
        _THREE_WAY,
        train=None,
        dev=(),
        test=("diagnostic.tsv",),
        submission=(("AX.tsv", 1104),),
        numbers=False,
    ),
}


def glue_task(name: str) -> GlueTask:
    """Return the task of this name; "sst-2", "SST2" and "sst_2" are the same."""
    plain = {key.replace("-", ""): task for key, task in GLUE.items()}
    task = plain.get(name.lower().replace("-", "").replace("_", ""))
    if task is None:
        raise DataError(f"{name!r} is not a GLUE task; these are: {', '.join(GLUE)}")
    return task


def read_glue(folder: str | Path, name: str, split: str) -> dict[str, Table]:
    """Read a split of a task: "train", "dev" or "test" (without labels).

    Args:
        folder: the folder of the task, or of all tasks; or a data set on the hub in the layout of nyu-mll/glue, or a
            copy of one, which the library `datasets` reads.
        name: the task.
        split: the split.

    Returns:
        Name → table; one entry, except for the dev and test sets of MNLI.

    Raises:
        DataError: the task has no such split, a file is missing, or it is of another task.
        MissingExtraError: `datasets` is needed and not installed.
    """
    task, root = glue_task(name), Path(folder)
    folder = root / task.folder if (root / task.folder).is_dir() else root
    files = {
        "train": (("train", task.train),) if task.train else (),
        "dev": task.dev,
        "test": tuple((Path(name).stem, name) for name in task.test),
    }[split]
    if not files:
        hint = "; a model of MNLI predicts it: --glue mnli" if task.folder == "AX" else ""
        raise DataError(f"GLUE's {task.folder} has no {split} set{hint}")
    if _is_hub_data_set(root, task):
        return {name: _from_hub(str(root), task, name, file) for name, file in files}
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give {task.folder}, or the folder that holds it")
    if task.folder == "MRPC" and not (folder / files[0][1]).exists() and (folder / _MSR[split]).exists():
        return {files[0][0]: _from_microsoft(folder, split)}
    if not (folder / files[0][1]).exists():
        raise DataError(f"{folder}: holds neither a folder {task.folder} nor the file {files[0][1]} of that task")
    labelled = split != "test"
    for _, file in files if task.header is None or not labelled else ():
        _check_header(folder / file, task, labelled)
    tables = {
        name: read_table(
            folder / file,
            text=task.columns.text,
            text_pair=task.columns.text_pair,
            label=task.columns.label if labelled else None,
            labelled=labelled,
            header=task.header if labelled else None,
            skip_ragged=task.skip_ragged and labelled,  # a submission has a prediction for every row
        )
        for name, file in files
    }
    for table in tables.values() if labelled else ():
        _check_labels(table, task)
    return tables


def _check_header(path: Path, task: GlueTask, labelled: bool) -> None:
    with opened(path), path.open(encoding="utf-8-sig", newline="\n") as lines:
        columns = lines.readline().rstrip("\r\n").split("\t")
    expected = task.columns if labelled else task.columns[:2]
    if missing := [name for name in expected if name is not None and name not in columns]:
        raise DataError(
            f"{path}, line 1: has no column {missing[0]!r}, which GLUE's {task.folder} has; the columns are: "
            f"{', '.join(columns):.200}: is this a file of another task?"
        )


def _check_labels(table: Table, task: GlueTask) -> None:
    """Check the labels, which distinguish the files of tasks with the same columns."""
    known = tuple(map(str, range(len(task.names)))) if task.numbers else task.names
    for example in table.examples if known else ():
        if example.label not in known:
            raise DataError(
                f"{table.path}, line {example.line}: the label {example.label!r} is not a label in files of GLUE's "
                f"{task.folder} ({', '.join(known)}): is this a file of another task?"
            )


# ── MRPC as Microsoft distributes it ──

_MSR = {"train": "msr_paraphrase_train.txt", "dev": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}
_DEV_IDS = ("dev_ids.tsv", "mrpc_dev_ids.tsv")


def _from_microsoft(folder: Path, split: str) -> Table:
    """Read Microsoft's files; their test labels are public, and are not read."""
    path, task = folder / _MSR[split], GLUE["mrpc"]
    rows = list(_rows(path, ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")))
    if split != "test":
        ids = next((folder / name for name in _DEV_IDS if (folder / name).exists()), None)
        if ids is None:
            raise DataError(
                f"{folder}: lacks {_DEV_IDS[0]}, the list of pairs of ids of GLUE's dev set, which is needed to split "
                "these files as GLUE does"
            )
        dev = {(first, second) for _, (first, second) in _rows(ids, None, 2)}
        rows = [(line, row) for line, row in rows if ((row[1], row[2]) in dev) == (split == "dev")]
    label = None if split == "test" else 0
    examples = [Example(row[3], row[4], None if label is None else row[label], line) for line, row in rows]
    table = Table(path, examples, task.columns if split != "test" else task.columns._replace(label=None))
    if not examples:
        raise DataError(f"{path}: has no rows for the {split} set")
    if split != "test":
        _check_labels(table, task)
    return table


def _rows(path: Path, header: tuple[str, ...] | None, columns: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a tab-separated file with literal quotes."""
    with opened(path), path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            row = line.rstrip("\r\n").split("\t")
            if header is not None and number == 1:
                if tuple(row) != header:
                    raise DataError(f"{path}, line 1: is not the header of Microsoft's file ({', '.join(header)})")
            elif len(row) != len(header or ()) + columns:
                raise DataError(f"{path}, line {number}: has {len(row)} columns, not {len(header or ()) + columns}")
            else:
                yield number, row


# ── the hub ──

_PAIRS = {"MNLI": ("premise", "hypothesis"), "AX": ("premise", "hypothesis"), "MRPC": ("sentence1", "sentence2")}


class HubTable(Table):
    """A table of the hub, without a file: its hash is the hash of its rows."""

    def sha256(self) -> str:
        """Return the hash of all texts and labels."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(json.dumps([example.text, example.text_pair, example.label]).encode() + b"\n")
        return digest.hexdigest()


def _is_hub_data_set(path: Path, task: GlueTask) -> bool:
    """Return whether this is the name of a data set, or a copy of one: a folder of Parquet files per task."""
    if path.exists():
        return any((path / _hub_config(task)).glob("*.parquet"))
    return len(path.parts) == 2 and not path.is_absolute() and ".." not in path.parts


def _hub_config(task: GlueTask) -> str:
    return task.folder.lower().replace("-", "")


def _from_hub(name: str, task: GlueTask, table: str, file: str) -> Table:
    require("datasets")
    import datasets

    split = Path(file).stem.replace("dev", "validation").replace("diagnostic", "test")
    try:
        rows: Any = datasets.load_dataset(name, _hub_config(task), split=split)
    except Exception as error:  # of whatever type the many libraries below raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        local = "" if Path(name).exists() else "is not a local folder, and "
        raise DataError(
            f"{name}: {local}datasets cannot read {_hub_config(task)}, {split}, of that name: {first}. Without a "
            "network, give a folder with the official files"
        ) from error
    text, pair = _PAIRS.get(task.folder, task.columns[:2])
    labelled = not split.startswith("test")
    names = getattr(rows.features.get("label"), "names", None)
    examples = []
    for number, row in enumerate(rows, start=1):
        label = row.get("label") if labelled else None
        written = names[label] if names and label is not None and label >= 0 else label
        examples.append(
            Example(row[text], row[pair] if pair else None, None if label is None else str(written), number)
        )
    result = HubTable(Path(name) / _hub_config(task), examples, Columns(text, pair, "label" if labelled else None))
    if labelled and task.names:  # the hub may have another order of names
        task.labels.encode(result)
    return result
