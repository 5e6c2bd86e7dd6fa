import json
import os
from pathlib import Path
from typing import Any

import pytest

from pocketbert.data.choices import Choice, read_choices
from pocketbert.errors import DataError

SWAG = (
    ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"
    '0,a,1,x,She pours tea.,She,gold,drinks it.,"sings, loudly.",sleeps.,leaves.,0\n'
)
CODAH = "o\tI am hungry. I\teat.\tsleep.\tfly.\tsing.\t0\nq\tIt rains. She\tswims.\ttakes an umbrella.\tx.\ty.\t1\n"
OPENBOOK = "ID\tQuestion Stem\tChoices\tComplete Question\tAnswer Key\n7\tThe sun gives\t(A) light (B) ice\tx\tA\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_swag_and_codah(tmp_path: Path) -> None:
    choices = ("She drinks it.", "She sings, loudly.", "She sleeps.", "She leaves.")
    assert read_choices(write(tmp_path / "a.csv", SWAG)).examples == [Choice("She pours tea.", choices, 0, 2)]
    found = read_choices(write(tmp_path / "a.tsv", CODAH)).examples
    assert found[1] == Choice("It rains. She", ("swims.", "takes an umbrella.", "x.", "y."), 1, 2)


def test_open_book_in_both_layouts(tmp_path: Path) -> None:
    expected = Choice("The sun gives", ("light", "ice"), 0, 2)
    assert read_choices(write(tmp_path / "a.tsv", OPENBOOK)).examples == [expected]
    choices = [{"text": "light", "label": "A"}, {"text": "ice", "label": "B"}]
    row = {"id": "7", "question": {"stem": "The sun gives", "choices": choices}, "answerKey": "B"}
    found = read_choices(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert found.examples == [expected._replace(label=1, line=1)]
    numbered = [{"text": "light", "label": "1"}, {"text": "ice", "label": "2"}]  # some of ARC is numbered from 1
    row = {"question": {"stem": "The sun gives", "choices": numbered}, "answerKey": "2"}
    assert read_choices(write(tmp_path / "a.jsonl", json.dumps(row))).examples[0].label == 1


def test_no_choice_is_dropped_where_labels_and_texts_differ_in_number(tmp_path: Path) -> None:
    texts = ["ice", "light", "rain"]
    row: dict[str, Any] = {
        "question": "The sun gives",
        "choices": {"text": texts, "label": ["A", "B"]},
        "answerKey": "B",
    }
    [found] = read_choices(write(tmp_path / "a.jsonl", json.dumps(row))).examples
    assert (found.choices, found.label) == (tuple(texts), 1)
    row["choices"] = {"text": texts[:1], "label": ["A", "B"]}
    with pytest.raises(DataError, match=r"a\.jsonl"):
        read_choices(write(tmp_path / "a.jsonl", json.dumps(row)))


def test_race(tmp_path: Path) -> None:
    row = {
        "article": "Tom is six.",
        "questions": ["Tom is _ .", "How old is he?"],
        "options": [["six", "two"], ["two", "six"]],
        "answers": ["A", "B"],
    }
    expected = [
        Choice("Tom is six.", ("Tom is six .", "Tom is two ."), 0, 1),
        Choice("Tom is six.", ("How old is he? two", "How old is he? six"), 1, 1),
    ]
    for name, text in (
        ("a.json", json.dumps(row, indent=1)),
        ("b.json", json.dumps([row])),
        ("c.jsonl", json.dumps(row)),
    ):
        assert read_choices(write(tmp_path / name, text)).examples == expected


def test_layouts_of_datasets(tmp_path: Path) -> None:
    """As JSON lines and as Parquet, which the hub has."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    listed = {"text": ["light", "ice"], "label": ["A", "B"]}
    race = {"article": "Tom is six.", "question": "Tom is _ .", "options": ["six", "two"], "answer": "B"}
    swag = {"sent1": "She pours tea.", "sent2": "She", "ending0": "drinks.", "ending1": "sings.", "label": 1}
    for row, expected in (
        ({"question_stem": "The sun gives", "choices": listed, "answerKey": "B"}, ("The sun gives", "light", "ice")),
        ({"question": "The sun gives", "choices": listed, "answerKey": "B"}, ("The sun gives", "light", "ice")),
        (race, ("Tom is six.", "Tom is six .", "Tom is two .")),
        (swag, ("She pours tea.", "She drinks.", "She sings.")),
    ):
        write(tmp_path / "a.jsonl", json.dumps(row))
        parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
        for name in ("a.jsonl", "a.parquet"):
            assert read_choices(tmp_path / name).examples == [Choice(expected[0], expected[1:], 1, 1)]


def test_bad_questions_are_skipped_and_listed(tmp_path: Path) -> None:
    row = {"prompt": "p", "choices": ["a", "b"], "label": 0}
    wrong = [{**row, "label": 2}, {**row, "choices": "ab"}, {**row, "prompt": " "}, {"text": "x"}]
    lines = [json.dumps(one) for one in (*[row] * 5, *wrong)] + ["{"]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.raises(DataError, match="line 6: the label 2 is not one of the 2 choices"):
        read_choices(path)
    found = read_choices(path, skip_bad=True)
    assert (len(found), found.skipped, [one.line for one in found.bad]) == (5, 5, [6, 7, 8, 9, 10])
    assert [one.problem[:12] for one in found.bad[:2]] == ["the label 2 ", "has the keys"]
    table = write(tmp_path / "a.csv", SWAG + SWAG.splitlines()[1] + "\n1,b,1\n")
    assert [one.line for one in read_choices(table, skip_bad=True).bad] == [4]
    tabs = write(tmp_path / "a.tsv", CODAH + "x\ty\n" + CODAH)
    assert [one.line for one in read_choices(tabs, skip_bad=True).bad] == [3]
    with pytest.raises(DataError, match="too many to be skipped; the first is line 6"):
        read_choices(write(tmp_path / "b.jsonl", "\n".join([lines[0]] * 5 + lines[5:7] * 3)), skip_bad=True)


def test_own_layout(tmp_path: Path) -> None:
    row = {"prompt": "p", "choices": ["a", "b", "c"], "label": 2}
    path = write(tmp_path / "a.jsonl", f"{json.dumps(row)}\n\n{json.dumps({**row, 'label': 'A'})}")
    assert read_choices(path).examples == [Choice("p", ("a", "b", "c"), 2, 1), Choice("p", ("a", "b", "c"), 0, 3)]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "sent1,sent2,label\nx,y,0\n", "expected SWAG's columns"),
        ("a.csv", SWAG.replace("leaves.,0", "leaves."), "line 2: has another number of columns than the header"),
        ("a.csv", SWAG.replace(",0\n", ",4\n"), "line 2: the label '4' is not one of the 4 choices"),
        ("a.csv", SWAG.replace(",0\n", ",\n"), "line 2: the label ''"),
        ("a.csv", SWAG.splitlines()[0], "has no questions"),
        ("a.csv", SWAG.replace("leaves.", '"leaves.'), "Is a double quote left open"),
        ("a.tsv", CODAH.replace("\tfly.", ""), "line 2: has 7 columns, the first line has 6"),
        ("a.tsv", "text\tlabel\nx\ty\n", "line 1: has neither layout"),
        ("a.tsv", OPENBOOK.replace("\tA\n", "\tC\n"), "line 2: the label 'C'"),
        ("a.jsonl", '{"text": "x"}', "line 1: has the keys text; expected prompt"),
        ("a.jsonl", '{"prompt": "p", "choices": ["a"], "label": 0}', "line 1: has 1 choices"),
        ("a.jsonl", '{"prompt": "p", "choices": ["a", ""], "label": 0}', "line 1: choice 2 is an empty text"),
        ("a.jsonl", '{"prompt": "", "choices": ["a", "b"], "label": 0}', "line 1: the prompt is an empty text"),
        ("a.jsonl", '{"prompt": "p"\n', "line 1: is not JSON"),
        ("a.json", '["x"]', "holds a str, not an object"),
        ("a.json", '{"article": "a", "questions": ["q"], "options": [], "answers": ["A"]}', "of the same length"),
        ("a.json", '{"article": "a", "questions": ["q"], "options": ["o"], "answers": ["A"]}', "of 'q' are not a list"),
        ("a.txt", "x", r"one of the suffixes \.csv"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_choices(write(tmp_path / name, text))


@pytest.mark.data
def test_official_counts() -> None:
    folder = Path(os.environ["POCKETBERT_DATA"]) / "multiple_choice"
    counts = {"codah.tsv": 2776, "openbookqa/train.tsv": 4957, "openbookqa/dev.tsv": 500, "openbookqa/test.tsv": 500}
    for name, count in counts.items():
        found = read_choices(folder / name).examples
        assert len(found) == count
        assert {len(one.choices) for one in found} == {4}
        assert {one.label for one in found} == {0, 1, 2, 3}


def test_twelve_endings_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    names = ["sent1", "sent2", *(f"ending{i}" for i in range(12)), "label"]
    path.write_text(f"{','.join(names)}\nHe said,it,{','.join(f'choice {i}' for i in range(12))},10\n")
    [question] = read_choices(path).examples
    assert question.choices[question.label] == "it choice 10"
