import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pocketbert.data.columns import Columns
from pocketbert.data.labels import Labels, hold_out
from pocketbert.data.tables import Example, Table, read_table
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
    assert Labels.of(table("10", "9", "\N{MINUS SIGN}1")).names == ("\N{MINUS SIGN}1", "9", "10")


@pytest.mark.parametrize("written", [("B2", "A10", "A9"), ("x5", "x40"), ("é1", "e2")])
def test_names_that_end_with_numbers_are_names(written: tuple[str, ...]) -> None:
    assert Labels.of(table(*written)).names == tuple(sorted(written))
    labels = Labels.of(table(*written), sorted(written))
    assert labels.encode(table("1", "0")).tolist() == [1, 0]
    assert labels.encode(table(*sorted(written)[:2])).tolist() == [0, 1]


def test_numbers_without_a_leading_zero_are_predicted() -> None:
    """As R and SAS write them."""
    labels = Labels.of(table(".5", ".25", "-.75"))
    assert labels.regression
    assert labels.encode(table(".5", "\N{MINUS SIGN}.75")).tolist() == [0.5, -0.75]


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
    with pytest.raises(DataError, match="the only row has the label 'x'"):
        Labels.of(table("x"))
    with pytest.raises(DataError, match=r"all 2 rows have the number 1\.5; two are needed"):
        Labels.of(table("1.5", "1.50"))


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


# ── spellings ──


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (("3,5", "2,25", "4,0"), [3.5, 2.25, 4.0]),
        (("3,5", "2", "-1,25"), [3.5, 2.0, -1.25]),
        (("3,5", "2,125", "3"), [3.5, 2.125, 3.0]),
        (("1e-1", "2.5"), [0.1, 2.5]),
    ],
)
def test_decimal_commas(labels: tuple[str, ...], numbers: list[float]) -> None:
    found = Labels.of(table(*labels))
    assert found.regression
    np.testing.assert_allclose(found.encode(table(*labels)), numbers)


def test_a_comma_before_three_digits_is_not_guessed() -> None:
    for others in (("3", "2,125"), ("1.5", "3")):
        with pytest.raises(DataError, match=r"a\.csv: the label '1,250' may be .* decimal comma or .* thousands"):
            Labels.of(table("1,250", *others))


def test_signs() -> None:
    labels = Labels.of(table("+1", "-1", "+1"))
    assert labels.names == ("-1", "+1")
    assert labels.encode(table("+1", "-1")).tolist() == [1, 0]
    assert labels.encode(table("1", "-1", "1")).tolist() == [1, 0, 1]  # a dev set of another program


@pytest.mark.parametrize("written", [("0.0", "1.0"), ("0", "1"), ("+0", "+1")])
def test_numbers_of_named_classes(written: tuple[str, str]) -> None:
    labels = Labels.of(table(*written), ("bad", "good"))
    assert labels.encode(table(*written)).tolist() == [0, 1]
    with pytest.raises(DataError, match=r"line 3: the label '2\.0' is not one of bad, good"):
        labels.encode(table("1.0", "2.0"))
    with pytest.raises(DataError, match=r"line 2: the label '0\.5' is not one of bad, good"):
        labels.encode(table("0.5", "1.0"))


@pytest.mark.parametrize(
    "rows",
    [
        [(1, 0, 0), (0, 1, 0), (0, 1, 1)],
        [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 1.0)],
        [(True, False, False), (False, True, False), (False, True, True)],
    ],
)
@pytest.mark.parametrize("names", [None, ("a", "b", "c")])
def test_a_number_for_each_class(tmp_path: Path, rows: list[tuple[object, ...]], names: tuple[str, ...] | None) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x", "labels": row}) + "\n" for row in rows))
    found = read_table(path)
    labels = Labels.of(found, names)
    assert labels.several
    assert labels.names == (names or ("0", "1", "2"))
    assert labels.encode(labels.named(found)).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert labels.named(found).examples[2].label == labels.names[1:]
    if names is not None:  # a checkpoint has another order; the columns keep their names
        reordered = labels.reordered({0: "c", 1: "b", 2: "a"})
        assert reordered is not None
        assert reordered.encode(reordered.named(found)).tolist() == [[0, 0, 1], [0, 1, 0], [1, 1, 0]]
        with pytest.raises(DataError, match="is not a list of some of a, b"):
            Labels.of(found, ("a", "b"))


def test_lists_of_ids_are_no_numbers_for_each_class() -> None:
    rows = lists(("0",), ("2",), ("1", "2"))
    labels = Labels.of(rows)
    assert labels.names == ("0", "1", "2")
    assert labels.encode(labels.named(rows)).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]


@pytest.mark.parametrize(
    "cells",
    [
        ["['billing', 'refund']", "[]", "['refund']"],
        ['["billing", "refund"]', "[]", '["refund"]'],
        ["['billing' 'refund']", "[]", "['refund']"],
        ["['billing'\n 'refund']", "[]", "['refund']"],
        ["('billing', 'refund')", "()", "('refund',)"],
        ["{'refund', 'billing'}", "set()", "{'refund'}"],
    ],
)
def test_lists_that_a_csv_holds_as_text(tmp_path: Path, cells: list[str]) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "labels"), *(("x", cell) for cell in cells)])
    rows = [one.label for one in read_table(path).examples]
    assert rows == [("billing", "refund"), (), ("refund",)]


def test_texts_in_brackets_that_are_no_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,[spam]\ny,[not spam]\n")
    assert [one.label for one in read_table(path).examples] == ["[spam]", "[not spam]"]
