import itertools
import json
import os
import tracemalloc
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pocketbert.data.columns import Columns
from pocketbert.data.files import LONGEST_LINE
from pocketbert.data.tables import TableReader, read_table
from pocketbert.errors import DataError


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(path: Path, **options: str) -> list[tuple[str, str | None, str | tuple[str, ...] | None]]:
    return [(e.text, e.text_pair, e.label) for e in read_table(path, **options).examples]


def test_all_four_formats_give_the_same_examples(tmp_path: Path) -> None:
    data = [("a fine day", "good"), ('he said "no", twice', "bad"), ("déjà vu", "good")]
    paths = [
        write(tmp_path / "a.csv", 'text,label\na fine day,good\n"he said ""no"", twice",bad\n\ndéjà vu,good\n'),
        write(tmp_path / "a.tsv", 'text\tlabel\r\na fine day\tgood\r\nhe said "no", twice\tbad\r\ndéjà vu\tgood\r\n'),
        write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": t, "label": y, "n": 1}) for t, y in data)),
        tmp_path / "a.parquet",
    ]
    table = pyarrow.table({"label": [y for _, y in data], "text": [t for t, _ in data]})
    pyarrow.parquet.write_table(table, paths[-1])
    for path in paths:
        assert rows(path) == [(t, None, y) for t, y in data], path


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    for name, text in (("a.csv", "text,label\nx,1\n"), ("a.tsv", "text\tlabel\nx\t1\n")):
        assert rows(write(tmp_path / name, b"\xef\xbb\xbf" + text.encode())) == [("x", None, "1")]
    assert rows(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "x", "label": 1}')) == [("x", None, "1")]


def test_quotes_of_a_tsv_are_literal(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'sentence\tlabel\n" unbalanced\t1\nand "" so\t0\n')
    assert rows(path) == [('" unbalanced', None, "1"), ('and "" so', None, "0")]


def test_quoted_line_breaks_and_semicolons_of_a_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'review;stars\n"two\nlines; one";5\nplain;1\n')
    table = read_table(path)
    assert [(e.text, e.label, e.line) for e in table.examples] == [("two\nlines; one", "5", 2), ("plain", "1", 4)]


def test_line_separators_inside_a_text_do_not_end_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel\none\u2028two\rthree\t1\n")
    assert rows(path) == [("one\u2028two\rthree", None, "1")]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("id,Text,Label", Columns("Text", None, "Label")),
        ("label,sentence2,sentence1", Columns("sentence1", "sentence2", "label")),
        ("premise,hypothesis,gold_label", Columns("premise", "hypothesis", "gold_label")),
        ("question,sentence,label", Columns("question", "sentence", "label")),
        ("sentiment,review,title", Columns("review", None, "sentiment")),
        ("序号,标签,文本", Columns("文本", None, "标签")),
        ("م,النص,التصنيف", Columns("النص", None, "التصنيف")),
        ("前提,假设,标签", Columns("前提", "假设", "标签")),
    ],
)
def test_columns_are_recognised(tmp_path: Path, header: str, columns: Columns) -> None:
    assert read_table(write(tmp_path / "a.csv", f"{header}\nx,y,z\n")).columns == columns


def test_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,a,b,c\nt,x,y,z\n")
    assert rows(path, text="a", text_pair="b", label="c") == [("x", "y", "z")]
    assert read_table(path, text="a", labelled=False).examples[0].label is None
    assert read_table(path, text_pair="b", label="c").columns == Columns("text", "b", "c")


def test_labels_are_kept_as_written(tmp_path: Path) -> None:
    lines = [{"text": "t", "label": value} for value in (3, 2.5, True, " x ")]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert [label for _, _, label in rows(path)] == ["3", "2.5", "true", "x"]


BAD = {
    "missing.csv": (None, "there is no such file"),
    "empty.csv": ("", "is empty"),
    "header.csv": ("text,label\n", "has no rows below its header"),
    "blank.tsv": ("\n\n", "is empty"),
    "blank.jsonl": ("\n\n", "is empty"),
    "columns.csv": ("foo,bar\n1,2\n", "was recognized as the text; name it with --text-column; the columns are: "
    "foo, bar"),
    "nolabel.csv": ("text,bar,foo\n1,2,x\n", "no column was recognized as the label; name it with --label-column"),
    "alike.csv": ("text,label,Text\na,b,c\n", "two columns are called text and Text; name the one to use with --text"),
    "title.csv": ("Export of May\n\ntext,label\na,b\n", "line 1: has one cell, and the next line more"),
    "caret.csv": ("text^label\na^b\n", "commas, semicolons, tabs or vertical bars separate columns"),
    "unnamed.csv": ("good film,pos\na,b\n", "if these are not names, add a first line such as text,label"),
    "page.csv": ("<html><table>", "is an HTML page; save the table in it as CSV"),
    "sheet.csv": ("<?xml version='1.0'?>", "is XML; save the sheet as CSV"),
    "lines.csv": ('{"text": "a", "label": 1}\n', "holds JSON; rename it to end in .jsonl"),
    "wide.csv": ("text,label\na,b\n".encode("utf-16-le"), "is UTF-16; save it as UTF-8 (iconv -f UTF-16LE"),
    "formula.csv": ("text,label\na,b\n#REF!,b\n", "line 3: column 'text' holds #REF!, which is an error value of "
    "Excel"),
    "error.csv": ("text,label\na,b\nc,#N/A\n", "line 3: column 'label' holds #N/A, which is an error value of Excel"),
    "numbers.json": ('[{"text": "a", "label": 1},\n 5]\n', "line 2: holds a int, not an object"),
    "open.json": ('[{"text": "a", "label": 1},\n', "line 1: is not JSON: the list ends too early"),
    "comma.json": ('[{"text": "a", "label": 1}\n{"text": "b"}]', "must be separated by commas"),
    "more.json": ('[{"text": "a", "label": 1}]\n{"text": "b"}', "line 1: more follows than the list that ends here"),
    "columns.json": ('{"text": ["a"], "label": [1]}', "holds one object of lists (text, label), and one object per"),
    "data.json": ('{"data": [{"text": "a", "label": 1}]}', "a list within it: jq -c '.data[]'"),
    "spread.json": ('{\n"text": "a", "label": 1}\n', "line 1: is not JSON: "),
    "classes.csv": ("text,a,b\nx,1,0\ny,2,0\n", "line 3: column 'a' holds '2' instead of 0 or 1"),
    "twice.csv": ("text,label,text\n1,2,3\n", "line 1: two columns are called text; rename one"),
    "ragged.csv": ("text,label\na,b\nc,d,e\n", "line 3: has 3 columns, the header has 2"),
    "ragged.tsv": ("text\tlabel\na\tb\nc\n", "line 3: has 1 columns, the header has 2"),
    "quote.csv": ('text,label\na,b\n"c,d\ne,f\n', "line 3: unexpected end of data. Is a double quote not closed"),
    "huge.csv": ("text,label\na,b\n" + "x" * 200_000 + ",d\n", "line 3: field larger than field limit"),
    "latin1.csv": (b"text,label\na,b\ncaf\xe9,d\n", "line 3: byte 0xE9 is not UTF-8"),
    "utf16.csv": ("text,label\na,b\n".encode("utf-16"), "is UTF-16"),
    "packed.csv": (b"\x1f\x8b\x08\x00garbage", "is compressed with gzip"),
    "book.csv": (b"PK\x03\x04garbage", "Excel"),
    "unlabelled.csv": ("text,label\na,b\nc,\n", "line 3: has no label in column 'label'"),
    "notext.csv": ("text,label\na,b\n ,c\n", "line 3: the text in column 'text' is empty"),
    "bad.jsonl": ('{"text": "a", "label": 1}\n{"text"\n', "line 2: is not JSON"),


    "lacks.jsonl": ('{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2: has no label"),
    "lacks2.jsonl": ('{"text": "a", "label": 1}\n{"label": 2}\n', "line 2: column 'text' holds nothing"),
    "number.jsonl": ('{"text": 1, "label": 1}\n', "line 1: column 'text' holds a int, 1 instead of text"),
    "nan.jsonl": ('{"text": "a", "label": NaN}\n', "line 1: has no label"),
    "half.jsonl": ('{"text": "a \\ud83d", "label": 1}\n', "line 1: column 'text' holds an unpaired surrogate"),
    "half-label.jsonl": ('{"text": "a", "label": "\\ud83d"}\n', "line 1: column 'label' holds an unpaired surrogate"),
    "dict.jsonl": ('{"text": "a", "label": {}}\n', "line 1: column 'label' holds a dict, {} instead of a label"),
    "not.parquet": ("text,label\na,b\n", "is not a Parquet file"),
    "zero.parquet": ("", "is empty"),
    "data.xlsx": ("x", "one of the suffixes .csv"),
    "sheet.xlsx": (b"PK\x03\x04garbage", "is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    "old.csv": (b"\xd0\xcf\x11\xe0garbage", "is an old Excel workbook"),
    "report.csv": (b"%PDF-1.7", "is a PDF"),
    "table.csv": (b"PAR1garbage", "is a Parquet file; rename it to end in .parquet"),
    "headless.csv": ('"3","Stocks slide","Shares fell for a third day."\n', "the first line looks like an example"),
    "headless2.csv": ('"3","3","Shares fell for a third day."\n', "line 1: the first line looks like an example"),
    "long.csv": ("x" * 50 + ",y\n1,2\n", f"the columns are: {'x' * 40}, y"),
    "rows.csv": ("text,label\n,\n , \n", "has no rows below its header"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_line_and_remedy(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(DataError) as error:
        read_table(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert message in str(error.value)


def test_folders_and_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)
    path = write(tmp_path / "a.csv", "text,label\na,b\n")
    with pytest.raises(DataError, match=r"has no column 'body' \(--text-column\); the columns are: text, label"):
        read_table(path, text="body")


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 1000, "label": [1] * 1000}), path)
    whole = path.read_bytes()
    write(path, whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is not a Parquet file"):
        read_table(path)
    middle = bytearray(whole)
    middle[4:60] = bytes(56)
    write(path, bytes(middle))
    with pytest.raises(DataError, match="is damaged after row 0"):
        read_table(path)


def test_ragged_lines_are_skipped_when_asked(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.tsv", "text\tlabel\na\tb\nc\nd\te\n"), skip_ragged=True)
    assert (len(table), table.skipped) == (2, 1)


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    count = 20_000
    texts = [f"text {i}" for i in range(count)]
    write(tmp_path / "a.csv", "text\n" + "\n".join(texts))
    write(tmp_path / "a.tsv", "text\tother\n" + "".join(f"{text}\t1\n" for text in texts))
    write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": text}) for text in texts))
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        reader = TableReader(path, labelled=False)
        assert reader.columns == Columns("text", None, None)
        assert next(reader).text == "text 0"
        assert reader.fraction < 0.1
        fractions = [reader.fraction for _ in itertools.islice(reader, count // 2 - 1)]
        assert fractions == sorted(fractions)
        assert 0.45 < reader.fraction < 0.55
        assert [one.text for one in reader] == texts[count // 2 :]
        assert reader.fraction == 1


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("a.csv", b"caf\xe9,x", "byte 0xE9 is not UTF-8"),
        ("a.csv", b"a,b,c", "has 3 columns"),
        ("a.csv", b'"a,b', "double quote not closed"),
        ("a.tsv", b"caf\xe9\tx", "byte 0xE9 is not UTF-8"),
        ("a.tsv", b"one", "has 1 columns"),
        (
            "a.tsv",
            b"x" * (LONGEST_LINE + 1),
            "has more than 16,777,216 characters: does the file have one text per line",
        ),
        ("a.jsonl", b'{"text": "caf\xe9"}', "byte 0xE9 is not UTF-8"),
        ("a.jsonl", b"{", "is not JSON"),
    ],
)
def test_a_bad_row_comes_after_the_rows_before_it(tmp_path: Path, name: str, bad: bytes, message: str) -> None:
    head, row = {"a.csv": (b"text,n", b"a,1"), "a.tsv": (b"text\tn", b"a\t1")}.get(name, (b"", b'{"text": "a"}'))
    path = write(tmp_path / name, b"\n".join([head, *[row] * 5000, bad, row]))
    reader = TableReader(path, labelled=False)
    assert len(list(itertools.islice(reader, 5000))) == 5000
    with pytest.raises(DataError) as error:
        next(reader)
    assert str(error.value).startswith(f"{path}, line 5002: ")
    assert message in str(error.value)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", (json.dumps({"text": "a" * 1000}) + "\n") * 10_000)
    tracemalloc.start()
    try:
        assert sum(len(one.text) for one in TableReader(path, labelled=False)) == 10_000_000
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


# ── as spreadsheets and databases write tables ──


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\ntext;label\na, b;x\nc;y\n",
        'sep=,\r\ntext,label\r\n"a, b",x\r\nc,y\r\n',
        "SEP=\t\ntext\tlabel\na, b\tx\nc\ty\n",
        '"Text, original";"Label"\n"a, b";"x"\n"c";"y"\n',
        "Text, original;Label\na, b;x\nc;y\n",
        "text|label\na, b|x\nc|y\n",
        "text\tlabel\na, b\tx\nc\ty\n",
        'text;label\n"a, b";x\n"c";y\n;\n ; \n',
        'text,label\n"a, b",x\n,\n\nc,y\n,\n',
        "text，label\na, b，x\nc，y\n",
        "text،label\na, b،x\nc،y\n",
        "text؛label\na, b؛x\nc؛y\n",
    ],
)
def test_separators_and_rows_without_content(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.csv", content)
    name = "Text, original" if "original" in content else None
    found = read_table(path, text=name)
    assert [(one.text, one.label) for one in found.examples] == [("a, b", "x"), ("c", "y")]
    assert found.examples[0].line == (3 if content.lower().startswith("sep") else 2)


def test_a_separator_in_a_text_does_not_count(tmp_path: Path) -> None:
    """Every row has one semicolon, and the header none."""
    path = write(tmp_path / "a.csv", "text,label\nyes; no,x\nboth; neither,y\n")
    assert [one.text for one in read_table(path).examples] == ["yes; no", "both; neither"]
    full_width = write(tmp_path / "c.csv", "文本，原文,标签\n很好，值得,好\n很差，失望,差\n")
    assert [one.text for one in read_table(full_width, text="文本，原文").examples] == ["很好，值得", "很差，失望"]
    alone = write(tmp_path / "d.csv", "文本\n很好，值得\n很差，失望\n")
    assert [one.text for one in read_table(alone, labelled=False).examples] == ["很好，值得", "很差，失望"]
    quoted = write(tmp_path / "b.csv", "text,label\n" + '"first\nsecond; third",x\n' * 100)
    assert {one.text for one in read_table(quoted).examples} == {"first\nsecond; third"}


def test_rows_without_a_text_are_counted_where_nothing_is_learned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,x\n,y\n  ,y\nb,\n")
    reader = TableReader(path, labelled=False)
    assert [one.text for one in reader] == ["a", "b"]
    assert reader.skipped == 2
    lines = write(tmp_path / "a.jsonl", '{"text": null}\n{"text": "a"}\n{"other": 1}\n')
    reader = TableReader(lines, text="text", labelled=False)
    assert [one.text for one in reader] == ["a"]
    assert reader.skipped == 2


def test_decimals_of_databases(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    scores = pyarrow.array([Decimal("1.50"), Decimal("0.5")], pyarrow.decimal128(4, 2))
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": scores}), tmp_path / "a.parquet")
    assert [one.label for one in read_table(tmp_path / "a.parquet").examples] == ["1.50", "0.50"]
    dates = pyarrow.array([date(2020, 1, 2), date(2020, 1, 3)])
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": dates}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"line 1: column 'label' holds a date, .* instead of a label"):
        read_table(tmp_path / "b.parquet")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_called_by_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv: is a pipe or a device"):
        read_table(tmp_path / "a.csv")
