import itertools
import json
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pocketbert.data.files import LONGEST_LINE
from pocketbert.data.tables import Columns, TableReader, read_table
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
    "columns.csv": ("foo,bar\n1,2\n", "looks like the text; name it with --text-column; the columns are: foo, bar"),
    "nolabel.csv": ("text,bar\n1,2\n", "no column looks like the label; name it with --label-column"),
    "twice.csv": ("text,label,text\n1,2,3\n", "line 1: two columns are called text"),
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
    "list.json": ('[{"text": "a", "label": 1}]\n', "line 1: holds a list"),
    "spread.json": ('[\n{"text": "a", "label": 1}\n]\n', "line 1: is not JSON"),
    "lacks.jsonl": ('{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2: has no label"),
    "lacks2.jsonl": ('{"text": "a", "label": 1}\n{"label": 2}\n', "line 2: column 'text' holds nothing"),
    "number.jsonl": ('{"text": 1, "label": 1}\n', "line 1: column 'text' holds a int, 1 instead of text"),
    "nan.jsonl": ('{"text": "a", "label": NaN}\n', "line 1: has no label"),
    "half.jsonl": ('{"text": "a \\ud83d", "label": 1}\n', "line 1: column 'text' holds an unpaired surrogate"),
    "half-label.jsonl": ('{"text": "a", "label": "\\ud83d"}\n', "line 1: column 'label' holds an unpaired surrogate"),
    "dict.jsonl": ('{"text": "a", "label": {}}\n', "line 1: has no label"),
    "not.parquet": ("text,label\na,b\n", "is not a Parquet file"),
    "zero.parquet": ("", "is empty"),
    "data.xlsx": ("x", "one of the suffixes .csv"),
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
