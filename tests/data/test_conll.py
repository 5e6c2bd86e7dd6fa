import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.data.conll import Sentence, Sentences, is_entity, read_conll, to_iob2
from pocketbert.decode import chunks
from pocketbert.errors import DataError
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

    def count(tag: str) -> bool:
        nonlocal looked
        looked += 1
        return is_entity(tag)

    monkeypatch.setattr("pocketbert.data.conll.is_entity", count)
    rows = Sentences(Path("eng.train"), [Sentence(("EU",) * 50, ("B-ORG",) * 50, 1)] * 4)
    assert rows.tags() == ["B-ORG", "I-ORG"]
    check_tags(rows, ["O", "B-ORG", "I-ORG"])
    assert looked == 200


@pytest.mark.parametrize(
    ("tags", "iob2"),
    [
        ("I-A I-A O", "B-A I-A O"),
        ("I-A B-A I-A", "B-A B-A I-A"),
        ("I-A I-B O B-A", "B-A B-B O B-A"),
        ("B-A I-A", "B-A I-A"),
        ("S-A O B-A I-A E-A", "S-A O B-A I-A E-A"),
    ],
)
def test_to_iob2(tags: str, iob2: str) -> None:
    assert to_iob2(tags.split()) == iob2.split()


@given(st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"]), max_size=12))
def test_to_iob2_keeps_the_entities(tags: list[str]) -> None:
    written = to_iob2(tags)
    assert chunks(written) == chunks(tags)
    assert to_iob2(written) == written
    for kind, start, end in chunks(tags):
        assert written[start:end] == [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n\n-DOCSTART- O\n", "has no sentences"),
        ("EU I-ORG\nrejects\n", "line 2: has 1 columns, the first line has 2"),
        ("EU\n", "line 1: has 1 columns: the word should be in column 1"),
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
