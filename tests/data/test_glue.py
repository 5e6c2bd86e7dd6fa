import os
from pathlib import Path

import pytest

from pocketbert.data.glue import GLUE, glue_task, read_glue
from pocketbert.errors import DataError

# Made-up lines in each task's own layout.
FILES = {
    "CoLA/train.tsv": 'gj04\t1\t\tHe said "so.\ngj04\t0\t*\tSo he said.\n',
    "CoLA/test.tsv": "index\tsentence\n0\tOne.\n",
    "SST-2/train.tsv": 'sentence\tlabel\n" a fine film \t1\nno \t0\n',
    "MRPC/train.tsv": '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\t" One .\tOne .\n0\t3\t4\tA .\tB .\n',
    "STS-B/train.tsv": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    "0\ta\tb\tc\td\te\tf\tOne.\tTwo.\t5.000\n1\ta\tb\tc\td\te\tf\tOne.\tTwo.\t2.5\n",
    "QQP/train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWho?\tWhom?\t1\ndamaged\n"
    "1\t2\t3\tA?\tB?\t0\n",
    "MNLI/dev_matched.tsv": "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tA.\tB.\tneutral\tneutral\n",
    "MNLI/dev_mismatched.tsv": "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tC.\tD.\tentailment\tentailment\n",
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n1\tWho?\tNo.\tnot_entailment\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n1\tA.\tB.\tentailment\n",
    "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n1\tA.\tB.\t0\n",
    "AX/diagnostic.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
}


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("task", "text", "pair", "labels"),
    [
        ("cola", 'He said "so.', None, [1, 0]),
        ("sst-2", '" a fine film ', None, [1, 0]),
        ("mrpc", '" One .', "One .", [1, 0]),
        ("sts-b", "One.", "Two.", [5.0, 2.5]),
        ("qqp", "Who?", "Whom?", [1, 0]),
        ("qnli", "Who?", "He.", [0, 1]),
        ("rte", "A.", "B.", [1, 0]),
        ("wnli", "A.", "B.", [1, 0]),
    ],
)
def test_columns_quotes_and_labels(glue: Path, task: str, text: str, pair: str | None, labels: list[float]) -> None:
    table = read_glue(glue, task, "train")["train"]
    assert table.examples[0][:2] == (text, pair)
    assert GLUE[task].labels.encode(table).tolist() == labels
    assert read_glue(glue / GLUE[task].folder, task, "train")["train"] == table


def test_mnli_has_two_development_sets(glue: Path) -> None:
    tables = read_glue(glue, "MNLI", "dev")
    assert [(name, table.examples[0].label) for name, table in tables.items()] == [
        ("matched", "neutral"),
        ("mismatched", "entailment"),
    ]


def test_damaged_lines_of_qqp_are_counted(glue: Path) -> None:
    table = read_glue(glue, "qqp", "train")["train"]
    assert (len(table), table.skipped) == (2, 1)


def test_test_sets_have_no_labels(glue: Path) -> None:
    assert read_glue(glue, "ax", "test")["diagnostic"].examples[0][:3] == ("A.", "B.", None)
    assert read_glue(glue, "cola", "test")["test"].examples[0][:3] == ("One.", None, None)


def test_names_of_tasks() -> None:
    assert glue_task("SST2") is glue_task("sst_2") is GLUE["sst-2"]
    with pytest.raises(DataError, match="'imdb' is no GLUE task; these are: cola, sst-2"):
        glue_task("imdb")


def test_wrong_folders(glue: Path) -> None:
    with pytest.raises(DataError, match="GLUE's AX has no train set"):
        read_glue(glue, "ax", "train")
    with pytest.raises(DataError, match="has no column 'sentence1'"):
        read_glue(glue / "SST-2", "rte", "train")
    with pytest.raises(DataError, match="is no folder"):
        read_glue(glue / "nowhere", "rte", "train")
    with pytest.raises(DataError, match=r"holds neither a folder RTE nor the file dev\.tsv"):
        read_glue(glue, "rte", "dev")


@pytest.mark.data
def test_official_counts() -> None:
    folder = Path(os.environ["POCKETBERT_DATA"]) / "glue"
    counts = {
        "cola": (8551, 1043, 1063),
        "sst-2": (67349, 872, 1821),
        "mrpc": (3667, 408, 1725),  # this copy lacks one row of the official train set
        "rte": (2490, 277, 3000),
        "sts-b": (5749, 1500, 1379),
        "wnli": (635, 71, 146),
        "qnli": (None, 5463, 5463),
        "ax": (None, None, 1104),
    }
    for task, expected in counts.items():
        for split, count in zip(("train", "dev", "test"), expected, strict=True):
            if count is not None:
                (table,) = read_glue(folder, task, split).values()
                assert (len(table), table.skipped) == (count, 0), (task, split)
                if split != "test":
                    labels = GLUE[task].labels.encode(table)
                    assert len(set(labels.tolist())) == len(GLUE[task].names) or task == "sts-b"
