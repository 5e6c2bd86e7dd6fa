"""Tables, labels and tags in the forms in which other programs and people write them."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pocketbert.data.columns import Columns
from pocketbert.data.conll import Sentence, read_conll
from pocketbert.data.formats import row_format
from pocketbert.data.labels import Labels, tidied
from pocketbert.data.spellings import joined, merged, number, odd_among_numbers, truth
from pocketbert.data.tables import Example, Table, TableReader, read_table
from pocketbert.data.tagged import read_tagged
from pocketbert.errors import DataError
from pocketbert.tags import respelled

ROWS = [("A text, and more", "a"), ("another", "b"), ("a third", "a")]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def labelled(*labels: Any) -> Table:
    examples = [Example(f"text {i}", None, label, i + 2) for i, label in enumerate(labels)]
    return Table(Path("a.csv"), examples, Columns("text", None, "label"))


# ── tables ──


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", json.dumps([{"text": t, "label": y} for t, y in ROWS])),
        ("list.json", json.dumps([{"text": t, "label": y} for t, y in ROWS], indent=2)),
        ("list.jsonl", "[" + ",\n".join(json.dumps({"text": t, "label": y}) for t, y in ROWS) + "]\n\n"),
        ("later.jsonl", "\n".join(json.dumps({"n": 1} | {"text": t, "label": y}) for t, y in ROWS)),
        ("spaced.csv", 'text, label\n"A text, and more", "a"\nanother, "b"\na third, a\n'),
        ("spaced.csv", 'label, text\na, "A text, and more"\n"b", "another"\na, a third\n'),
        ("declared.csv", '"sep=;"\ntext;label\nA text, and more;a\nanother;b\na third;a\n'),
        ("joined.csv", 'text,label\n"A text, and more",a\ntext,label\nanother,b\na third,a\n'),
        ("empty cells.csv", 'text,label\n"A text, and more",a,,\nanother,b,\na third,a\n'),
        ("empty cells.tsv", "text\tlabel\nA text, and more\ta\t\nanother\tb\t\t\na third\ta\n"),
        ("formulas.csv", 'text,label\n"=""A text, and more""","=""a"""\nanother,"=""b"""\na third,a\n'),
        ("prefixed.csv", 'text,label\n"A text, and more",__label__a\nanother,__label__b\na third,__label__a\n'),
        ("model.train", "__label__a A text, and more\n\n__label__b another\n__label__a  a third\n"),
        ("model.csv", "__label__a , A text, and more\n__label__b another\n__label__a, a third\n"),
        ("other.csv", 'text,fruit\n"A text, and more",a\nanother,b\na third,a\n'),
        ("other.csv", ',words,label\n0,"A text, and more",a\n1,another,b\n2,a third,a\n'),
        ("other.csv", 'id,text,fruit\n7,"A text, and more",a\n8,another,b\n9,a third,a\n'),
        ("other.tab", "text\tfruit\nA text, and more\ta\nanother\tb\na third\ta\n"),
    ],
)  # fmt: skip
def test_forms_of_one_table(tmp_path: Path, name: str, content: str) -> None:
    table = read_table(write(tmp_path / name, content))
    assert [(one.text, one.label) for one in table.examples] == ROWS
    assert table.skipped == 0


def test_lines_of_a_list_of_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[\n{"text": "a\\nb", "label": 1},\n\n{"text": "c",\n"label": 2}\n]\n')
    assert [(one.text, one.line) for one in read_table(path).examples] == [("a\nb", 2), ("c", 4)]


def test_breaks_of_workbooks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\n"one_x000D_\ntwo",a\nthree_x000D_four,b\n')
    assert [one.text for one in read_table(path).examples] == ["one\ntwo", "three\nfour"]


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("a.csv", "text,good,bad\nx,1,0\ny,0,1\nz,1,1\nw,0,0\n", None),
        ("a.csv", "id,text,good,bad\n0,x,TRUE,FALSE\n1,y,false,true\n2,z,Yes,yes\n3,w,no,no\n", None),
        ("a.csv", "text,n,good,bad\nx,1,x,\ny,1,,x\nz,2,X,x\nw,3,,\n", "good, bad"),
        ("a.jsonl", "".join(json.dumps({"text": t, "good": a, "bad": b}) + "\n" for t, a, b in
                            (("x", True, False), ("y", 0, 1), ("z", 1.0, 1.0), ("w", False, False))), None),
        ("a.jsonl", "".join(json.dumps({"text": t, "labels": {"good": a, "bad": b}}) + "\n" for t, a, b in
                            (("x", 1, 0), ("y", 0, 1), ("z", True, True), ("w", 0, 0))), None),
    ],
)  # fmt: skip
def test_a_truth_value_for_each_label(tmp_path: Path, name: str, content: str, column: str | None) -> None:
    table = read_table(write(tmp_path / name, content), label=column)
    assert [one.label for one in table.examples] == [("good",), ("bad",), ("good", "bad"), ()]
    labels = Labels.of(table)
    columns = {label: row for label, row in zip(labels.names, labels.encode(table).T.tolist(), strict=True)}
    assert columns == {"good": [1, 0, 1, 0], "bad": [0, 1, 1, 0]}
    if table.classes:
        assert (labels.names, table.columns.label) == (("good", "bad"), "good, bad")


def test_labels_with_columns_of_their_own_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,one,two\nx,1,0\n")
    with pytest.raises(DataError, match=r"has no column 'three' \(--label-column\)"):
        read_table(path, label="one,three")
    # Numbers that are no truth values, or another column: nothing is guessed.
    for content in ("text,one,two\nx,1,5\n", "text,one,two,other\nx,1,0,word\n"):
        with pytest.raises(DataError, match="no column was recognized as the label"):
            read_table(write(path, content))


def test_several_labels_of_fasttext(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "__label__a __label__b one\n__label__c two\nthree __label__a\n")
    assert [(one.text, one.label) for one in read_table(path).examples] == [
        ("one", ("a", "b")), ("two", ("c",)), ("three", ("a",))
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"a\.txt, line 2: has no label"):
        read_table(write(path, "__label__a one\ntwo\n"))


def test_what_a_first_line_tells() -> None:
    known = {
        '{"text": "a film"}': ".jsonl", '{"n": 1, "inputs": "x"}': ".jsonl", "text,label": ".csv", "Text;Label": ".csv",
        '"id","review"': ".csv", "text\tlabel": ".tsv", "premise|hypothesis": ".csv", "__label__a a film": ".fasttext",
        '{"tokens": ["a", "film"]}': ".jsonl", '[{"text": "a film"}, {"text": "b"}]': ".json", "[": ".json",
        '[{"text": "a film"},': ".json",
    }  # fmt: skip
    for line, suffix in known.items():
        assert (row_format(line) or ("", ""))[1] == suffix, line
    for line in ("a film, and a text", "{x}", "{}", '{"n": 1}', "text", "A title; a sentence.", "[1]", "", "5|6"):
        assert row_format(line) is None, line


# ── labels ──


def test_numbers_as_people_write_them() -> None:
    for text, value in {
        "50%": 50, "12,5 %": 12.5, "1.000,5": 1000.5, "1,234,567.25": 1234567.25, "\N{MINUS SIGN}2,5": -2.5, "+3": 3,
    }.items():  # fmt: skip
        assert number(text) == value
    for text in ("4/5", "5 stars", "1.000.5", "1,00,5", "%", "1_000", ""):
        assert number(text) is None
    for text, expected in {
        "٣٫٥": 3.5, "٣،٥": 3.5, "١٬٢٣٤٫٥": 1234.5, "١٬٢٣٤": 1234, "۴٫۲": 4.2, "٪٥٠": None, "٥٠٪": 50,
        "３．５": 3.5, "３，５": 3.5, "５０％": 50, "－２": -2, "१२": 12, "三": None,
    }.items():  # fmt: skip
        assert number(text) == expected
    assert Labels.of(labelled("٣", "٤")).encode(labelled("4", "３")).tolist() == [1, 0]
    labels = Labels.of(labelled("\N{MINUS SIGN}1", "+1", "\N{MINUS SIGN}1"))
    assert labels.names == ("\N{MINUS SIGN}1", "+1")
    assert labels.encode(labelled("-1", "1")).tolist() == [0, 1]


def test_truth_values() -> None:
    assert [truth(value) for value in (1, "0", 0.0, "True", False, "no", "YES")] == [
        True,
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert [truth(value) for value in ("是", "否", "１", "نعم", "لا", "٠")] == [True, False, True, True, False, False]
    assert [truth(value) for value in ("x", "", None, 2, "maybe")] == [None] * 5
    assert [truth(value, marked=True) for value in ("x", "", None, "\N{CHECK MARK}", "y")] == [
        True,
        False,
        False,
        True,
        None,
    ]


def test_spellings_of_one_label() -> None:
    counts = {
        "billing": 7,
        "Billing": 2,
        "BILLING": 2,
        "sign  up": 3,
        "sign\u00a0up": 3,
        "sign up": 3,
        "cafe\u0301": 1,
        "café": 1,
    }
    assert merged(counts) == {
        "Billing": "billing", "BILLING": "billing", "sign  up": "sign up", "sign\u00a0up": "sign up",
        "cafe\u0301": "café",
    }  # fmt: skip
    assert merged({"退款": 2, "退款 ": 1, "ＶＩＰ": 1, "VIP": 3, "٣": 1, "3": 2}) == {
        "退款 ": "退款",
        "ＶＩＰ": "VIP",
        "٣": "3",
    }
    named = merged(counts, ["Billing"])
    assert (named["billing"], named["BILLING"], "Billing" in named) == ("Billing", "Billing", False)
    assert merged({"a": 1, "b": 2}) == {}


def test_labels_that_differ_in_case_are_noted_or_merged(caplog: pytest.LogCaptureFixture) -> None:
    rows = labelled("Billing", "billing", "billing ".strip(), "refund", ("refund", "Refund"))
    assert tidied(rows) == rows
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "'Billing' (1) beside 'billing'" in record.getMessage()
    assert "--merge-labels merges them" in record.getMessage()
    caplog.clear()
    found = tidied(rows, merge=True)
    assert [one.label for one in found.examples] == ["billing", "billing", "billing", "refund", ("refund",)]
    assert "merged" in caplog.text
    assert [one.label for one in tidied(rows, ["BILLING", "refund"], merge=True).examples][:2] == ["BILLING"] * 2
    caplog.clear()
    assert tidied(labelled("a", "b")) == labelled("a", "b")
    assert not caplog.records


def test_labels_that_join_others_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    for written in ("a;b", "a | b", "b,a"):
        assert joined(["a", "b", written]) == written
    assert joined(["a", "b;c", "c"]) is None
    for truths in (["0,1,1", "1,0,0"], ["0 1 1", "0 0 1"]):
        assert joined(truths) == min(truths)
    for other in (["0,1", "1,0"], ["0,1,1", "1,0"], ["0,1,1", "2,0,0"]):
        assert joined(other) is None
    tidied(labelled("a", "b", "a;b"))
    assert "the label 'a;b' joins other labels" in caplog.text


def test_what_is_no_number_among_numbers(caplog: pytest.LogCaptureFixture) -> None:
    scores = [f"{i}.5" for i in range(18)]
    assert odd_among_numbers([*scores, "unknown"]) == ["unknown"]
    assert odd_among_numbers(["1.5", "nan", "N/A"]) == ["N/A", "nan"]
    for others in (["1", "2", "nan"], ["1.5", "good"], ["good", "bad"], scores):
        assert odd_among_numbers(others) == []
    rows = labelled(*scores, "unknown", "3,25")
    with pytest.raises(DataError, match=r"a\.csv, line 20: the label 'unknown' is not a number, and 19 others are"):
        Labels.of(rows)
    kept = tidied(rows, skip_bad=True)
    assert (len(kept), kept.skipped) == (19, 1)
    assert [(bad.line, bad.problem) for bad in kept.bad] == [(20, "the label 'unknown' is not a number")]
    assert Labels.of(kept).regression
    assert not caplog.records
    assert Labels.of(labelled("0.0", "1.0", "0.0")).regression
    assert "name them in the order of their ids with --labels" in caplog.text


def test_probabilities_are_no_labels() -> None:
    with pytest.raises(DataError, match=r"\['0\.9', '0\.1'\] holds numbers with decimals, which are not labels"):
        Labels.of(labelled(("0.9", "0.1"), ("0.2", "0.8")))


# ── rows that cannot be used ──


def test_bad_rows_are_listed(tmp_path: Path) -> None:
    good = "".join(f"good {i},{'ab'[i % 2]}\n" for i in range(10))
    path = tmp_path / "a.csv"
    path.write_bytes(
        f'text,label\n{good},a\nno label,\none,two,three\n#N/A,a\n"he said \\"hi\\", or",b\n'.encode()
        + b"caf\xe9,a\nlast,b\n"
    )
    with pytest.raises(DataError, match="line 12: the text in column 'text' is empty"):
        read_table(path)
    table = read_table(path, skip_bad=True)
    assert [one.text for one in table.examples] == [*(f"good {i}" for i in range(10)), "last"]
    assert [(bad.line, bad.problem[:20]) for bad in table.bad] == [
        (12, "the text in column '"), (13, "has no label in colu"), (14, "has 3 columns, the h"),
        (15, "column 'text' holds "), (16, "',' expected after '"), (17, "byte 0xE9 is not UTF"),
    ]  # fmt: skip
    assert table.skipped == 6
    assert table.bad[1].row == {"text": "no label", "label": ""}


def test_bad_lines_of_json(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": 1}',
        "{oops",
        "[1]",
        '{"text": 5, "label": 1}',
        '{"text": "b", "label": 2}',
        '{"label": 1}',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines * 2 + ['{"text": "c", "label": 1}'] * 9))
    table = read_table(path, skip_bad=True)
    assert len(table) == 13
    assert [bad.line for bad in table.bad] == [2, 3, 4, 6, 8, 9, 10, 12]
    with pytest.raises(
        DataError, match=r"8 of 12 rows are bad, too many to be skipped; the first is line 2: is not JSON"
    ):
        read_table(write(path, "\n".join(lines * 2)), skip_bad=True)
    with pytest.raises(DataError, match="1 of 1 rows are bad"):
        list(TableReader(write(tmp_path / "b.csv", "text,label\n,a\n"), skip_bad=True))
    # What was taken for one cell may be any number of rows.
    with pytest.raises(DataError, match="line 3: unexpected end of data"):
        read_table(write(tmp_path / "c.csv", 'text,label\nx,a\n"y,b\nz,c\n'), skip_bad=True)


def test_labels_that_are_not_named_are_bad_rows() -> None:
    labels = Labels(("good", "bad"), numbered=("good", "bad"))
    kept = labels.without_unusable(labelled("1", "unknown", "0", ("good",), "7"))
    assert labels.encode(kept).tolist() == [1, 0]
    assert [bad.line for bad in kept.bad] == [3, 5, 6]
    several = Labels(("a", "b"), several=True)
    assert len(several.without_unusable(labelled(("a",), ("c",), (), "a"))) == 2


# ── tags ──


@pytest.mark.parametrize(
    "tags",
    [
        ("B_PER", "I_PER", "O"), ("B:PER", "I:PER", "O"), ("B/PER", "I/PER", "O"), ("PER-B", "PER-I", "O"),
        ("PER_B", "PER_I", "O"), ("b-PER", "i-PER", "o"),
    ],
)  # fmt: skip
def test_other_spellings_of_tags(tmp_path: Path, tags: tuple[str, ...]) -> None:
    words = ("marie", "curie", "was")
    path = write(tmp_path / "a.txt", "\n".join(f"{w}\t{t}" for w, t in zip(words, tags, strict=True)) * 1 + "\n")
    assert read_tagged(path).examples == [Sentence(words, ("B-PER", "I-PER", "O"), 1)]
    assert read_tagged(path, known=tags).examples[0].tags == tags  # a model has them so
    assert read_tagged(path, names=tags).examples[0].tags == tags
    path = write(tmp_path / "a.json", json.dumps([{"tokens": words, "ner_tags": tags}]))
    assert read_tagged(path).examples[0].tags == ("B-PER", "I-PER", "O")


def test_lists_of_words_and_tags_in_cells(tmp_path: Path) -> None:
    header, words = "tokens;ner_tags\n", "['marie', 'curie,', 'was']"
    for tags in ("['B-PER', 'I-PER', 'O']", "['B-PER' 'I-PER' 'O']"):
        found = read_tagged(write(tmp_path / "a.csv", f"{header}{words};{tags}\n"))
        assert found.examples == [Sentence(("marie", "curie,", "was"), ("B-PER", "I-PER", "O"), 2)]
    quoted = f'id,words,tags\n0,"{words}","[1, 2, 0]"\n1,"{words}",\n'
    path = write(tmp_path / "b.csv", quoted)
    with pytest.raises(DataError, match=r"line 3: column 'tags' holds a str, '' instead of a list"):
        read_tagged(path, names=("O", "B-PER", "I-PER"))
    found = read_tagged(path, names=("O", "B-PER", "I-PER"), skip_bad=True)
    assert [one.tags for one in found.examples] == [("B-PER", "I-PER", "O")]
    assert read_tagged(write(tmp_path / "c.csv", "words\tB-X\nmarie\tO\n")).examples[0].words == ("words", "marie")


def test_tags_that_are_no_entities_stay() -> None:
    for tags in (["NOUN", "VERB", "O"], ["B-PER", "I-PER", "O"], ["B_PER", "NOUN", "O"], ["I_PER", "O"], ["B_X", "I_X"],
                 ["B", "I", "O"], ["N-sg", "N-pl"]):  # fmt: skip
        assert respelled(tags) == {}


def test_a_header_of_columns_is_no_word(tmp_path: Path) -> None:
    text = "word\tpos\ntag\tNOUN\nruns\tVERB\n\nit\tPRON\n"
    found = read_conll(write(tmp_path / "a.tsv", text))
    assert [(one.words, one.line) for one in found.examples] == [(("tag", "runs"), 2), (("it",), 5)]


def test_numbers_and_pairs_instead_of_tags(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "marie 1\ncurie 2\nwas 0\n")
    with pytest.raises(DataError, match=r"line 1: tag 1 is 1, a number; name the tags in the order of their numbers"):
        read_tagged(path)
    assert read_tagged(path, names=("O", "B-PER", "I-PER")).examples[0].tags == ("B-PER", "I-PER", "O")
    with pytest.raises(DataError, match=r"tag 2 is 2, and there are 2 tags: O, B-PER"):
        read_tagged(path, names=("O", "B-PER"))
    with pytest.raises(DataError, match=r"holds words with their tags, 'was/O'; expected one word per line"):
        read_tagged(write(path, "marie/B-PER was/O\n\nmarie/B-PER was/O\n"))
    with pytest.raises(DataError, match=r"holds words with their tags, 'was\|O'"):
        read_tagged(write(path, "marie|B-PER was|O\n\nmarie|B-PER was|O\n"))
    with pytest.raises(DataError, match="tabs or spaces separate columns, not commas"):
        read_tagged(write(path, "marie,B-PER\nwas,O\n"))
    with pytest.raises(DataError, match="line 3: seems to have columns separated by commas: save it with tabs, or"):
        read_tagged(write(path, "Sentence #,Word,Tag\nSentence: 1,new,B-geo\n,york,I-geo\n"))
    with pytest.raises(DataError, match="is XML"):
        read_tagged(write(path, "<?xml version='1.0'?>\n<w>marie</w>\n"))
    with pytest.raises(DataError, match="if its entities are given by their characters, write the words and a tag"):
        read_tagged(write(tmp_path / "a.jsonl", '{"text": "marie", "label": [[0, 5, "PER"]]}\n'))


def test_bad_sentences_are_listed(tmp_path: Path) -> None:
    text = "marie B-PER\nwas O\n\ncurie I-PER I-PER\nhere O\n\nradium O\n\nlone\n\nit O\n"
    path = write(tmp_path / "a.txt", text)
    with pytest.raises(DataError, match="line 4: has 3 columns"):
        read_tagged(path)
    found = read_tagged(path, skip_bad=True)
    assert [one.words for one in found.examples] == [("marie", "was"), ("radium",), ("it",)]
    assert [bad.line for bad in found.bad] == [4, 9]
    rows = [
        {"tokens": ["a", "b"], "tags": ["X", "Y"]},
        {"tokens": ["a"], "tags": []},
        {"tokens": [], "tags": []},
        {"other": 1},
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows + rows[:1])))
    found = read_tagged(path, skip_bad=True)
    assert (len(found), [(bad.line, bad.problem[:20]) for bad in found.bad]) == (
        2, [(2, "has 1 words in 'toke"), (4, "has none of the colu")]
    )  # fmt: skip
