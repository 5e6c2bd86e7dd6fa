"""Schemes of tags: what marks an entity, compared with seqeval where it knows the scheme."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from pocketbert.metrics import entity_f1
from pocketbert.tags import are_entities, chunks, runs, to_iob2, type_of, vocabulary

SCHEMES = {
    "IOB": ["O", "B-A", "I-A", "B-B", "I-B"],
    "IOB without types": ["O", "B", "I"],
    "a type called O": ["O", "B-O", "I-O", "B-A", "I-A"],
    "BIOES": ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "AB")],
    "BIOES without types": ["O", *"BIES"],
}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-X I-X O B-X B-X", [("X", 0, 2), ("X", 3, 4), ("X", 4, 5)]),  # IOB2
        ("I-X I-X O I-X B-X I-Y", [("X", 0, 2), ("X", 3, 4), ("X", 4, 5), ("Y", 5, 6)]),  # IOB1
        ("B-X I-X E-X S-X O S-Y S-Y", [("X", 0, 3), ("X", 3, 4), ("Y", 5, 6), ("Y", 6, 7)]),  # BIOES
        ("B-X L-X U-X I-X", [("X", 0, 2), ("X", 2, 3), ("X", 3, 4)]),  # BILOU, and what follows a closed one
        ("B-X M-X E-X S-X", [("X", 0, 3), ("X", 3, 4)]),  # BMES
        ("B M E S B E", [("", 0, 3), ("", 3, 4), ("", 4, 6)]),
        ("B I O I B", [("", 0, 2), ("", 3, 4), ("", 4, 5)]),
        ("B-X E-X E-X", [("X", 0, 2), ("X", 2, 3)]),
        ("B-O I-O O O B-O", [("O", 0, 2), ("O", 4, 5)]),
        ("X X O Y", [("X", 0, 2), ("Y", 3, 4)]),  # no scheme: neighbours of one type belong together
        ("O O", []),
        ("", []),
        ("B-a-b I-a-b I-c", [("a-b", 0, 2), ("c", 2, 3)]),
    ],
)
def test_chunks(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert chunks(tags.split()) == expected


def _pairs(tags: list[str]) -> st.SearchStrategy[list[list[tuple[str, str]]]]:
    tag = st.sampled_from(tags)
    return st.lists(st.lists(st.tuples(tag, tag), min_size=1, max_size=9), min_size=1, max_size=4)


@given(st.sampled_from(list(SCHEMES.values())).flatmap(_pairs))
def test_entities_as_seqeval_counts_them(pairs: list[list[tuple[str, str]]]) -> None:
    gold, found = ([[pair[side] for pair in sentence] for sentence in pairs] for side in (0, 1))
    expected = {
        "precision": precision_score(gold, found, zero_division=0),
        "recall": recall_score(gold, found, zero_division=0),
        "f1": f1_score(gold, found, zero_division=0),
    }
    for one, other in ((gold, found), ([to_iob2(tags) for tags in gold], [to_iob2(tags) for tags in found])):
        assert entity_f1(other, one) == pytest.approx(expected)
    for tags in gold:
        assert [(kind or "_", start, end - 1) for kind, start, end in chunks(tags)] == get_entities(tags)


@pytest.mark.parametrize(
    ("tags", "iob2"),
    [
        ("I-A I-A O", "B-A I-A O"),
        ("I-A B-A I-A", "B-A B-A I-A"),
        ("I-A I-B O B-A", "B-A B-B O B-A"),
        ("B-A I-A", "B-A I-A"),
        ("I I O B", "B I O B"),
        ("I-O O I-O", "B-O O B-O"),
        ("S-A O B-A I-A E-A", "S-A O B-A I-A E-A"),
    ],
)
def test_to_iob2(tags: str, iob2: str) -> None:
    assert to_iob2(tags.split()) == iob2.split()


@given(
    st.sampled_from([SCHEMES["IOB"], SCHEMES["IOB without types"]]).flatmap(
        lambda tags: st.lists(st.sampled_from(tags))
    )
)
def test_to_iob2_keeps_the_entities(tags: list[str]) -> None:
    written = to_iob2(tags)
    assert chunks(written) == chunks(tags)
    assert to_iob2(written) == written
    for kind, start, end in chunks(tags):
        suffix = f"-{kind}" if kind else ""
        assert written[start:end] == [f"B{suffix}", *[f"I{suffix}"] * (end - start - 1)]


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("O B-A I-A", True),
        ("O B I", True),
        ("B M E S", True),
        ("O", True),
        ("NN VB I", False),
        ("O PER", False),
        ("O B-A I", False),
    ],
)
def test_what_marks_entities(tags: str, entities: bool) -> None:
    assert are_entities(tags.split()) is entities


def test_the_tags_that_a_model_needs() -> None:
    assert vocabulary([["I-B", "O"], ["I-A"]], entities=True) == ["O", "B-A", "I-A", "B-B", "I-B"]
    assert vocabulary([["I", "O"]], entities=True) == ["O", "B", "I"]
    assert vocabulary([["B-O", "O", "B-A"]], entities=True) == ["O", "B-A", "I-A", "B-O", "I-O"]
    assert vocabulary([["VB", "O", "NN"]], entities=False) == ["O", "NN", "VB"]
    assert [type_of(tag) for tag in ("O", "B-O", "B", "NN")] == [None, "O", "", "NN"]


def test_a_letter_is_a_type_where_tags_are_no_prefixes() -> None:
    """Among parts of speech, "S" is a type like others, and two neighbours are one run."""
    assert [run[0] for run in runs(["S", "S", "NN"], untyped=False)] == ["S", "NN"]
