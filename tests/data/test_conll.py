import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from pocketbert.data.conll import Sentence, Sentences, read_conll
from pocketbert.data.tagged import read_tagged
from pocketbert.errors import ConfigError, DataError
from pocketbert.tags import are_entities, chunks
from pocketbert.tasks.tagging import check_tags

IOB1 = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\nBonn NNP I-NP I-LOC\nRome NNP I-NP B-LOC\n"


def test_columns_and_schemes(tmp_path: Path) -> None:
    path = tmp_path / "eng.train"
    path.write_text(IOB1)
    found = read_conll(path)
    assert found.examples == [
        Sentence(("EU", "rejects"), ("I-ORG", "O"), 3),
        Sentence(("Bonn", "Rome"), ("I-LOC", "B-LOC"), 6),
    ]
    assert found.entities
    assert found.tags() == ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
    speech = read_conll(path, word_column=1, tag_column=2)
    assert not speech.entities
    assert speech.tags() == ["NNP", "VBZ"]


def test_every_tag_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to know what kind they are, however often that is asked; a real file has 200,000."""
    looked = 0

    def count(tags: Iterable[str]) -> bool:
        nonlocal looked
        tags = list(tags)
        looked += len(tags)
        return are_entities(tags)

    monkeypatch.setattr("pocketbert.data.conll.are_entities", count)
    rows = Sentences(Path("eng.train"), [Sentence(("EU",) * 50, ("B-ORG",) * 50, 1)] * 4)
    assert rows.tags() == ["B-ORG", "I-ORG"]
    check_tags(rows, ["O", "B-ORG", "I-ORG"])
    assert looked == 200


@pytest.mark.parametrize(
    ("text", "words", "tags"),
    [
        ("10\u00a0000\tB-NUM\nkm\tO\n", ("10\u00a0000", "km"), ("B-NUM", "O")),
        ("5\u202fkm B-NUM\nfar O\n", ("5\u202fkm", "far"), ("B-NUM", "O")),
        ("new york\tB-LOC\nis\tO\n", ("new york", "is"), ("B-LOC", "O")),
        ("new york \t B-LOC\r\nis\tO\r\n", ("new york", "is"), ("B-LOC", "O")),
        ("#\tsource [2001-01-01]\n1\tAnn\tB-PER\tO\n2\tran\tO\tO\n", ("1", "2"), ("O", "O")),
        ("# text = Ann ran\nAnn B-PER\nran O\n", ("Ann", "ran"), ("B-PER", "O")),
        ("Ann B-PER\n# O\n", ("Ann", "#"), ("B-PER", "O")),  # within a sentence it is a word
        ("# O\nAnn B-PER\n", ("#", "Ann"), ("O", "B-PER")),  # as is whatever has a tag
    ],
)
def test_what_separates_columns_and_what_is_a_comment(
    tmp_path: Path, text: str, words: tuple[str, ...], tags: tuple[str, ...]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8", newline="")
    [sentence] = read_conll(path).examples
    assert (sentence.words, sentence.tags) == (words, tags)


def test_germeval_with_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("#\tnews [2010]\n1\tAnn\tB-PER\tO\n\n#\tnews [2011]\n1\tran\tO\tB-X\n")
    found = read_tagged(path, "2", "3")
    assert [(one.words, one.tags, one.line) for one in found.examples] == [
        (("Ann",), ("B-PER",), 2),
        (("ran",), ("O",), 5),
    ]


CONLLU = """# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tx\tx\tX\t_\t_\t_\t_\t_\t_

"""


def test_conllu(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    path.write_text(CONLLU, encoding="utf-8")
    [sentence] = read_conll(path).examples
    assert sentence == Sentence(("vamos", "nos"), ("VERB", "PRON"), 4)
    [lemmas] = read_conll(path, word_column=2, tag_column=3).examples
    assert lemmas.tags == ("ir", "nosotros")


# ── JSON lines and Parquet ──

ROWS = [{"tokens": ["Marie", "was"], "ner_tags": ["B-PER", "O"]}, {"tokens": [], "ner_tags": []}]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"tokens": ["Bonn"], "ner_tags": ["B-LOC"]}]))
    found = read_tagged(path)
    assert found.examples == [Sentence(("Marie", "was"), ("B-PER", "O"), 1), Sentence(("Bonn",), ("B-LOC",), 3)]
    assert found.tags() == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_numbers_of_tags_and_names_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"w": ["Marie", "was"], "t": [1, 0]}\n')
    with pytest.raises(
        DataError, match=r"a\.jsonl, line 1: has none of the columns tokens, words; .*--text-column.*w, t"
    ):
        read_tagged(path)
    with pytest.raises(DataError, match=r"line 1: tag 1 is a number; name the tags .*--labels"):
        read_tagged(path, "w", "t")
    [sentence] = read_tagged(path, "w", "t", ["O", "B-PER"]).examples
    assert sentence.tags == ("B-PER", "O")
    with pytest.raises(DataError, match="tag 1 is 1, and there are 1 tags: O"):
        read_tagged(path, "w", "t", ["O"])


def test_parquet_as_datasets_writes_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"]))
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": tags})
    rows = datasets.Dataset.from_list([{"tokens": ["Marie", "was"], "ner_tags": [1, 0]}], features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    [sentence] = read_tagged(tmp_path / "a.parquet").examples
    assert sentence == Sentence(("Marie", "was"), ("B-PER", "O"), 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"tokens": ["a"], "ner_tags": "O"}', "column 'ner_tags' holds a str, 'O' instead of a list"),
        ('{"tokens": ["a"], "ner_tags": []}', "has 1 words in 'tokens' and 0 tags in 'ner_tags'"),
        ('{"tokens": ["a", null], "ner_tags": ["O", "O"]}', "word 2 holds nothing instead of text"),
        ('{"tokens": ["a"], "ner_tags": [0.5]}', "tag 1 holds a float"),
        ('{"tokens": [], "ner_tags": []}', "has no sentences"),
        ("{", "is not JSON"),
    ],
)
def test_broken_json_lines(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl.*{re.escape(says)}"):
        read_tagged(path)


def test_other_formats_are_called_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(DataError, match=r"a\.txt: holds JSON; rename it to end in \.jsonl"):
        read_tagged(tmp_path / "a.txt")
    (tmp_path / "b.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"b\.parquet: is not a Parquet file"):
        read_tagged(tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match="word: columns of CoNLL files are numbers"):
        read_tagged(tmp_path / "a.conll", "word")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n\n-DOCSTART- O\n", "has no sentences"),
        ("EU I-ORG\nrejects\n", "line 2: has 1 column, line 1 has 2 columns separated by spaces"),
        ("EU\n", "line 1: has 1 columns: the word should be in column 1"),
        ("EU\tB-ORG\nrejects O\n", "line 2: has 2 columns separated by spaces, line 1 has 2 columns separated by tabs"),
        ("EU\tB-ORG\n\tO\n", "line 2: column 1 is empty"),
        ("EU B-ORG\nMarie I\n", r"line 1 has 'B-ORG' and line 2 has 'I': either all tags"),
        ("EU B-ORG\nMarie PER\n", r"line 1 has 'B-ORG' and line 2 has 'PER': either all tags"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.txt.*{says}"):
        read_conll(path)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(IOB1)
    with pytest.raises(DataError, match="has 4 columns: the word should be in column 1 and the tag in column 9"):
        read_conll(path, tag_column=9)


def test_tags_of_bioes() -> None:
    tags = ("S-A", "O", "B-B", "I-B", "E-B")
    found = Sentences(Path("x"), [Sentence(("a", "b", "c", "d", "e"), tags, 1)])
    assert found.tags()[0] == "O"
    assert set(tags) <= set(found.tags())


@pytest.mark.data
def test_official_counts() -> None:
    folder = Path(os.environ["POCKETBERT_DATA"]) / "ner" / "conll2003"
    counts = {"eng.train": (203_621, 14_041, 23_499), "eng.testa": (51_362, 3_250, 5_942)}
    counts["eng.testb"] = (46_435, 3_453, 5_648)
    for name, (words, sentences, entities) in counts.items():
        found = read_conll(folder / name)
        assert sum(len(one.words) for one in found.examples) == words
        assert len(found) == sentences
        assert sum(len(chunks(one.tags)) for one in found.examples) == entities
