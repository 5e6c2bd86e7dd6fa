import os
from pathlib import Path
from typing import Any

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
    with pytest.raises(DataError, match="'imdb' is not a GLUE task; these are: cola, sst-2"):
        glue_task("imdb")


def test_wrong_folders(glue: Path) -> None:
    with pytest.raises(DataError, match="GLUE's AX has no train set"):
        read_glue(glue, "ax", "train")
    with pytest.raises(DataError, match=r"line 1: has no column 'sentence1', which GLUE's RTE has; .* another task"):
        read_glue(glue / "SST-2", "rte", "train")
    with pytest.raises(DataError, match="is not a folder"):
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


# ── files of another task, Microsoft's files, the hub ──


@pytest.mark.parametrize(
    ("task", "file", "label"), [("wnli", "RTE", "not_entailment"), ("rte", "WNLI", "1"), ("sst-2", "CoLA", None)]
)
def test_files_of_another_task(glue: Path, task: str, file: str, label: str | None) -> None:
    (glue / GLUE[task].folder / "train.tsv").write_bytes((glue / file / "train.tsv").read_bytes())
    says = (
        f"line 2: the label '{label}' is not a label in files .* is this a file of another task"
        if label
        else "no column"
    )
    with pytest.raises(DataError, match=rf"train\.tsv.*{says}"):
        read_glue(glue, task, "train")


MSR = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


@pytest.fixture
def microsoft(tmp_path: Path) -> Path:
    """The quotes are not closed, and there is a byte order mark."""
    rows = '1\t10\t11\tHe said " so .\tSo he said .\n0\t20\t21\tA " b .\tC .\n1\t30\t31\tD .\t" E .\n'
    (tmp_path / "msr_paraphrase_train.txt").write_text(f"\ufeff{MSR}{rows}", encoding="utf-8")
    (tmp_path / "msr_paraphrase_test.txt").write_text(f"\ufeff{MSR}{rows}", encoding="utf-8")
    (tmp_path / "dev_ids.tsv").write_text("20\t21\n99\t98\n")
    return tmp_path


def test_mrpc_as_microsoft_has_it(microsoft: Path) -> None:
    train, dev = (read_glue(microsoft, "mrpc", split)[split] for split in ("train", "dev"))
    assert [one[:3] for one in train.examples] == [
        ('He said " so .', "So he said .", "1"),
        ("D .", '" E .', "1"),
    ]
    assert [one.line for one in train.examples] == [2, 4]
    assert [one[:3] for one in dev.examples] == [('A " b .', "C .", "0")]
    test = read_glue(microsoft, "mrpc", "test")["test"]
    assert [one.label for one in test.examples] == [None] * 3


def test_broken_files_of_microsoft(microsoft: Path) -> None:
    path = microsoft / "msr_paraphrase_train.txt"
    text = path.read_text()
    for wrong, says in (
        (text.replace("\t#2 String", ""), "line 1: is not the header of Microsoft's file"),
        (text.replace("\tC .", ""), "line 3: has 4 columns, not 5"),
        (text.replace("0\t20", "2\t20"), "line 3: the label '2' is not a label in files"),
        ("", "is empty"),
    ):
        path.write_text(wrong)
        with pytest.raises(DataError, match=rf"msr_paraphrase_train\.txt.*{says}"):
            read_glue(microsoft, "mrpc", "dev")
    path.write_text(text)
    (microsoft / "dev_ids.tsv").write_text("20 21\n")
    with pytest.raises(DataError, match=r"dev_ids\.tsv, line 1: has 1 columns, not 2"):
        read_glue(microsoft, "mrpc", "train")
    (microsoft / "dev_ids.tsv").unlink()
    with pytest.raises(DataError, match=r"lacks dev_ids\.tsv, the list of pairs of ids"):
        read_glue(microsoft, "mrpc", "train")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a data set of the hub: Parquet files and a page that says which is what."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    folder, page = tmp_path / "glue", ["---", "configs:"]
    tables: dict[str, dict[str, list[Any]]] = {
        "mnli": {"premise": ["A.", "B."], "hypothesis": ["C.", "D."], "label": [0, 2]},
        "stsb": {"sentence1": ["A."], "sentence2": ["B."], "label": [2.5]},
    }
    splits = {"mnli": ["train", "validation_matched", "validation_mismatched"], "stsb": ["validation"]}
    for name, columns in tables.items():
        page += [f"- config_name: {name}", "  data_files:"]
        for split in splits[name]:
            path = folder / name / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = datasets.Dataset.from_dict(columns)
            if name == "mnli":
                classes = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
                rows = rows.cast_column("label", classes)
            rows.to_parquet(path)
            page += [f"  - split: {split}", f"    path: {name}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*page, "---", ""]))
    return folder


def test_the_hubs_layout(hub: Path) -> None:
    dev = read_glue(hub, "mnli", "dev")
    assert list(dev) == ["matched", "mismatched"]
    assert [one[:3] for one in dev["matched"].examples] == [
        ("A.", "C.", "entailment"),
        ("B.", "D.", "contradiction"),
    ]
    assert GLUE["mnli"].labels.encode(dev["mismatched"]).tolist() == [0, 2]
    assert len(dev["matched"].sha256()) == 64
    numbers = read_glue(hub, "sts-b", "dev")["dev"]
    assert GLUE["sts-b"].labels.encode(numbers).tolist() == [2.5]
    with pytest.raises(DataError, match=r"datasets cannot read stsb, train, of that name: .*official files"):
        read_glue(hub, "sts-b", "train")


def test_names_on_the_hub_need_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="no-such/glue: is not a local folder, and datasets cannot read rte, train"):
        read_glue("no-such/glue", "rte", "train")


@pytest.mark.data
def test_microsofts_files_are_glues(tmp_path: Path) -> None:
    folder = Path(os.environ["POCKETBERT_DATA"]) / "glue" / "MRPC"
    for name in ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    counts = {"train": 3668, "dev": 408, "test": 1725}
    for split, count in counts.items():
        (ours,) = read_glue(tmp_path, "mrpc", split).values()
        (theirs,) = read_glue(folder, "mrpc", split).values()
        assert len(ours) == count
        assert {one[:3] for one in theirs.examples} <= {one[:3] for one in ours.examples}
