from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pocketbert.data.labels import Labels, hold_out
from pocketbert.data.tables import Columns, Example, Table, read_table
from pocketbert.errors import DataError


def table(*labels: str) -> Table:
    examples = [Example(f"text {i}", None, label, i + 2) for i, label in enumerate(labels)]
    return Table(Path("a.csv"), examples, Columns("text", None, "label"))


def test_names_in_alphabetical_order() -> None:
    labels = Labels.of(table("pos", "neg", "pos"))
    assert labels.names == ("neg", "pos")
    assert labels.encode(table("pos", "neg")).tolist() == [1, 0]


def test_whole_numbers_in_the_order_of_their_size() -> None:
    assert Labels.of(table("10", "9", "-1")).names == ("-1", "9", "10")


def test_decimal_points_mean_regression() -> None:
    labels = Labels.of(table("1.0", "2", "3.25"))
    assert labels.regression
    encoded = labels.encode(table("1.0", "2", "3.25"))
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [1.0, 2.0, 3.25]
    with pytest.raises(DataError, match=r"a\.csv, line 3: the label 'much' is not a number"):
        labels.encode(table("1.0", "much"))
    with pytest.raises(DataError, match="'inf' is not a number"):
        labels.encode(table("inf"))


def test_given_names_take_names_or_positions() -> None:
    labels = Labels.of(table("1", "0"), ("negative", "positive"))
    assert labels.encode(table("1", "0", "1")).tolist() == [1, 0, 1]
    assert labels.encode(table("positive", "negative")).tolist() == [1, 0]
    assert Labels.of(table("1", "0"), ("1", "0")).encode(table("1", "0")).tolist() == [0, 1]
    with pytest.raises(DataError, match="line 3: the label '2' is not one of negative, positive"):
        Labels.of(table("1", "2"), ("negative", "positive"))
    with pytest.raises(DataError, match="line 2: the label '0' is not one of no, yes"):
        Labels.of(table("yes", "no")).encode(table("0", "1"))


def test_a_label_unseen_in_training_is_named_with_its_line() -> None:
    labels = Labels.of(table("yes", "no"))
    with pytest.raises(DataError, match=r"line 4: the label 'maybe' is not one of no, yes \(and 1 more lines\)"):
        labels.encode(table("yes", "no", "maybe", "maybe"))


def test_one_class_only() -> None:
    with pytest.raises(DataError, match="all 2 rows have the label 'x'"):
        Labels.of(table("x", "x"))


def test_order_of_a_checkpoint() -> None:
    labels = Labels(("entailment", "neutral", "contradiction"))
    theirs = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
    reordered = labels.reordered(theirs)
    assert reordered is not None
    assert reordered.names == ("contradiction", "neutral", "entailment")
    assert reordered.encode(table("neutral", "entailment")).tolist() == [1, 2]
    assert labels.reordered({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}) is None
    assert labels.reordered({0: "entailment", 1: "neutral"}) is None


def test_held_out_part_is_deterministic_and_keeps_the_proportions() -> None:
    whole = table(*["a"] * 60, *["b"] * 40, "c")
    train, held = hold_out(whole, 0.1, seed=1)
    assert (train, held) == hold_out(whole, 0.1, seed=1)
    assert held != hold_out(whole, 0.1, seed=2)[1]
    assert Counter(e.label for e in held.examples) == {"a": 6, "b": 4}
    assert sorted(e.line for e in train.examples + held.examples) == [e.line for e in whole.examples]


def test_numbers_are_held_out_together() -> None:
    train, held = hold_out(table(*(f"{i}.5" for i in range(50))), 0.1, seed=1)
    assert (len(train), len(held)) == (45, 5)


def test_too_few_rows_to_hold_out() -> None:
    with pytest.raises(DataError, match="no label has two examples"):
        hold_out(table("a", "b"), 0.1, seed=1)


# ── several labels ──


def lists(*labels: object) -> Table:
    examples = [Example("text", None, label, line) for line, label in enumerate(labels, start=2)]  # type: ignore[arg-type]
    return Table(Path("lists.jsonl"), examples, Columns("text", None, "label"))


def test_lists_of_labels() -> None:
    table = lists(("b", "a"), (), ("c",))
    labels = Labels.of(table)
    assert (labels.names, labels.several) == (("a", "b", "c"), True)
    assert labels.encode(table).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert labels.encode(table).dtype == np.float32
    assert Labels.of(table, ["c", "b", "a"]).encode(table).tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    a, b = hold_out(lists(*[("a",)] * 8, *[("b",)] * 2), 0.2, seed=0)
    assert (len(a), len(b)) == (8, 2)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (lists(("a",), "b"), r"line 3: the label 'b' is not a list of some of a"),
        (lists((), ()), "all 2 rows have an empty list of labels"),
    ],
)
def test_what_is_no_list(table: Table, says: str) -> None:
    with pytest.raises(DataError, match=rf"lists\.jsonl.*{says}"):
        Labels.of(table)


def test_a_list_where_one_label_is_meant() -> None:
    with pytest.raises(DataError, match=r"line 2: the label \('a',\) is not one of a, b"):
        Labels(("a", "b")).encode(lists(("a",)))
    with pytest.raises(DataError, match=r"line 2: the label \('d',\) is not a list of some of a, b"):
        Labels(("a", "b"), several=True).encode(lists(("d",)))


def test_lists_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "labels": ["a", 1]}\n{"text": "y", "labels": []}\n')
    assert [one.label for one in read_table(path).examples] == [("a", "1"), ()]
    path.write_text('{"text": "x", "labels": ["a", null]}\n')
    with pytest.raises(DataError, match="line 1: has no label in column 'labels'"):
        read_table(path)
