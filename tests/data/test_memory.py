"""Data in memory: every form gives the examples of the same file, and what is no table is refused in one sentence."""

from __future__ import annotations

import contextlib
import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.labelled import write_csv
from pocketbert.data.choices import read_choices
from pocketbert.data.labels import Labels
from pocketbert.data.memory import Memory, as_source, in_memory
from pocketbert.data.squad import read_squad
from pocketbert.data.tables import read_table
from pocketbert.data.tagged import read_tagged
from pocketbert.errors import DataError

TEXTS, LABELS = ["one", "two", "three"], ["b", "a", "b"]
ROWS = list(zip(TEXTS, LABELS, strict=True))


def forms() -> dict[str, Any]:
    """The same table in all forms whose libraries are installed."""
    made: dict[str, Any] = {
        "columns": (TEXTS, LABELS),
        "arrays": (np.array(TEXTS), np.array(LABELS, dtype=object)),
        "rows": ROWS,
        "arrays as rows": np.array(ROWS),
        "dictionary": {"label": LABELS, "text": TEXTS},
        "dictionaries": [{"text": text, "label": label} for text, label in ROWS],
    }
    columns = {"text": TEXTS, "label": LABELS}
    for library, name in (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")):
        with contextlib.suppress(ImportError):
            made[library] = getattr(import_module(library), name)(columns)
    if "pandas" in made:
        frame = made["pandas"] = made["pandas"].set_index([[7, 7, 9]])
        made["series"] = (frame["text"], frame["label"].astype("category"))
    if "pyarrow" in made:
        made["chunked"] = (made["pyarrow"]["text"], made["pyarrow"]["label"])
    return made


@pytest.mark.parametrize("form", forms())
def test_all_forms_are_the_file(form: str, tmp_path: Path) -> None:
    table = read_table(in_memory(forms()[form]))
    file = read_table(write_csv(tmp_path / "data.csv", ROWS))
    assert [one[:3] for one in table.examples] == [one[:3] for one in file.examples]
    assert [one.line for one in table.examples] == [1, 2, 3]
    assert table.columns == file.columns
    assert Labels.of(table) == Labels.of(file)
    assert len(table.sha256()) == 64


def test_a_dataset_has_names_of_classes() -> None:
    datasets = pytest.importorskip("datasets")
    classes = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": classes})
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0, 1]}, features=features)
    assert [one.label for one in read_table(in_memory(data)).examples] == ["pos", "neg", "pos"]
    for library in ("numpy", "pandas"):
        pytest.importorskip(library)
        formatted = in_memory(data.with_format(library))
        assert [one.label for one in read_table(formatted).examples] == ["pos", "neg", "pos"]
    tags = datasets.Features({"tokens": datasets.List(datasets.Value("string")),
                              "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER"]))})  # fmt: skip
    tagged = datasets.Dataset.from_dict({"tokens": [["ann", "sings"]], "ner_tags": [[1, 0]]}, features=tags)
    assert read_tagged(in_memory(tagged)).examples[0].tags == ("B-PER", "O")
    with pytest.raises(DataError, match=r"several splits \(train\): choose one"):
        in_memory(datasets.DatasetDict({"train": data}))


def test_labels_of_all_kinds() -> None:
    """Numbers of NumPy, truth values, arrays of 0 and 1, sets, and what libraries write for a missing label."""
    several = read_table(in_memory((TEXTS, np.array([[1, 0], [0, 0], [1, 1]]))))
    labels = Labels.of(several, ("x", "y"))
    assert labels.encode(labels.named(several)).tolist() == [[1, 0], [0, 0], [1, 1]]
    assert [one.label for one in read_table(in_memory((TEXTS, np.array([2, 0, 1])))).examples] == ["2", "0", "1"]
    assert [one.label for one in read_table(in_memory((TEXTS, [{"b", "a"}, {"a"}, set()]))).examples] == [
        ("a", "b"), ("a",), (),
    ]  # fmt: skip
    assert Labels.of(read_table(in_memory((TEXTS, np.array([0.5, 1.25, 2.0], np.float32))))).regression
    with pytest.raises(DataError, match="data in memory, line 2: has no label in column 'label'"):
        read_table(in_memory((TEXTS, ["a", float("nan"), "b"])))
    skipped = read_table(in_memory((TEXTS, ["a", None, "b"])), skip_bad=True)
    assert [row.line for row in skipped.bad] == [2]


def test_pandas_missing_values() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": [*TEXTS, pandas.NA], "label": pandas.array([1, None, 3, 4], dtype="Int64")})
    table = read_table(in_memory(frame), skip_bad=True)
    assert [one.label for one in table.examples] == ["1", "3"]
    assert [row.problem for row in table.bad] == [
        "has no label in column 'label'", "column 'text' holds nothing instead of text",
    ]  # fmt: skip


def test_pairs_questions_choices_and_tags() -> None:
    pairs = read_table(in_memory((TEXTS, ["x", "y", "z"], LABELS)))
    assert pairs.examples[0][:3] == ("one", "x", "b")
    answers = {"text": ["ann"], "answer_start": [4]}
    row = {"id": "1", "question": "who ?", "context": "the ann", "answers": answers}
    assert read_squad(in_memory([row])).examples[0].answers == ((4, "ann"),)
    own = read_choices(in_memory([{"prompt": "p", "choices": ["x", "y"], "label": 1}]))
    swag = read_choices(in_memory({"sent1": ["p"], "sent2": ["so"], "ending0": ["x"], "ending1": ["y"], "label": [0]}))
    assert own.examples[0][:3] == ("p", ("x", "y"), 1)
    assert swag.examples[0][:3] == ("p", ("so x", "so y"), 0)
    tagged = in_memory({"tokens": [["ann", "sings"], ["x"]], "tags": [["B-PER", "O"], ["O", "O"]]})
    with pytest.raises(DataError, match="line 2: has 1 words in 'tokens' and 2 tags"):
        read_tagged(tagged)
    assert len(read_tagged(tagged, skip_bad=True)) == 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (7, "a int is not labelled data"),
        (["one", "two"], "a list is not labelled data"),
        ([], "has no rows"),
        (("one", "two"), "a tuple is not labelled data"),
        ((["one"], ["a", "b"]), "the columns differ in length: text 1, label 2"),
        ({"text": "one", "label": ["a"]}, "column 'text' is a str, not a list"),
        ([("one", "a"), ("two",)], "a list is not labelled data"),
    ],
)
def test_what_is_no_table(data: Any, problem: str) -> None:
    with pytest.raises(DataError, match=f"data in memory: {problem}"):
        as_source(data)


def test_rows_are_read_again_and_not_copied() -> None:
    memory = in_memory((TEXTS, LABELS))
    assert as_source(memory) is memory
    assert copy.deepcopy({"data": memory})["data"] is memory
    assert list(memory.rows()) == list(memory.rows())
    assert memory.sha256() != in_memory((TEXTS, LABELS[1:] + LABELS[:1])).sha256()
    assert isinstance(memory, Memory)
    assert isinstance(as_source("file.csv"), Path)
