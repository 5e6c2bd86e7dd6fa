import json
import os
from pathlib import Path
from typing import Any

import pytest

from pocketbert.data.bad_rows import describe_bad_rows
from pocketbert.data.squad import Question, read_squad
from pocketbert.errors import DataError
from pocketbert.metrics import squad

CONTEXT = "Marie Curie was born in Warsaw in 1867."


def qas(**changes: Any) -> dict[str, Any]:
    answers = [{"text": "Warsaw", "answer_start": 24}, {"text": "in Warsaw", "answer_start": 21}]
    return {"id": "a", "question": "Where was she born?", "answers": answers, **changes}


def write(path: Path, *questions: dict[str, Any], context: Any = CONTEXT) -> Path:
    path.write_text(
        json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]})
    )
    return path


def test_official_layout(tmp_path: Path) -> None:
    impossible = qas(id="b", is_impossible=True, answers=[], plausible_answers=[{"text": "1867", "answer_start": 34}])
    found = read_squad(write(tmp_path / "a.json", qas(), impossible))
    assert found.examples[0] == Question("a", "Where was she born?", CONTEXT, ((24, "Warsaw"), (21, "in Warsaw")))
    assert found.examples[1].answers == ()
    assert found.unanswerable == 1
    assert found.references() == {"a": ["Warsaw", "in Warsaw"], "b": []}
    found.check_offsets()


def test_one_question_a_line(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "question": "Where?", "context": CONTEXT, "answers": {"text": ["Warsaw"], "answer_start": [24]}},
        {"id": 7, "question": "Why?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_squad(path).examples == [
        Question("a", "Where?", CONTEXT, ((24, "Warsaw"),)),
        Question("7", "Why?", CONTEXT, ()),
    ]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_layouts_of_other_trainers(tmp_path: Path, name: str) -> None:
    """Case 30: rows under "data", or alone; paragraphs without articles."""
    lists = {"text": ["Warsaw", "in Warsaw"], "answer_start": [24, 21]}
    row = {"context": CONTEXT, **qas(answers=lists)}
    paragraph = {"context": CONTEXT, "qas": [qas()]}
    layouts: list[Any] = [[row], [{"context": CONTEXT, **qas()}]]
    if name == "a.json":
        layouts += [{"data": [row]}, {"data": [paragraph]}, [paragraph], [{"paragraphs": [paragraph]}], paragraph,
                    {"paragraphs": [paragraph]}]  # fmt: skip
    for layout in layouts:
        (tmp_path / name).write_text(json.dumps(layout))
        assert read_squad(tmp_path / name).examples == [
            Question("a", "Where was she born?", CONTEXT, ((24, "Warsaw"), (21, "in Warsaw")))
        ]
    (tmp_path / name).write_text(json.dumps([{**row, "answers": "Warsaw"}]))
    with pytest.raises(DataError, match="has no list 'answers'"):
        read_squad(tmp_path / name)


@pytest.mark.parametrize(
    ("start", "text", "says"),
    [
        (23, "Warsaw", r"'Warsaw' is not at character 23 .*\(' Warsa' is\); it is at 24"),
        (24, "Kraków", "it is not in the passage"),
        (900, "Warsaw", "it is at 24"),
    ],
)
def test_wrong_offsets(tmp_path: Path, start: int, text: str, says: str) -> None:
    found = read_squad(write(tmp_path / "a.json", qas(answers=[{"text": text, "answer_start": start}])))
    with pytest.raises(DataError, match=rf"a\.json, question a: .*{says}.*count again"):
        found.check_offsets()


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"id": ""}, r"data\[0\]\.paragraphs\[0\]\.qas\[0\]: \"id\" is '', not a text"),
        ({"question": " "}, "'question' is an empty text"),
        ({"question": None}, "'question' holds nothing instead of text"),
        ({"answers": None}, r"qas\[0\]: has no list 'answers'"),
        ({"answers": [{"text": "Warsaw", "answer_start": "24"}]}, r"answers\[0\]: \"answer_start\" is '24'"),
        ({"answers": [{"answer_start": 24}]}, r"answers\[0\]: 'text' holds nothing"),
        ({"answers": ["Warsaw"]}, r"answers\[0\]: is a str, not an object"),
        ({"question": "half \ud83d"}, "an unpaired surrogate"),
    ],
)
def test_broken_questions(tmp_path: Path, question: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=rf"a\.json, .*{says}"):
        read_squad(write(tmp_path / "a.json", qas(**question)))


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match="there is no such file"):
        read_squad(path)
    for text, says in (
        ("", "is empty"),
        ('{"data":\n oops', "line 2: is not JSON"),
        ('{"data": []}', "has no questions"),
        ('{"version": 2}', "has no list 'data'; expected SQuAD's layout"),
        ('{"id": 1}\n{"id": 2}', "line 1: 'context' holds nothing"),
        ("\ufeffx".encode("utf-16").decode("latin-1"), "is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            read_squad(path)
    path.write_bytes("x".encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16"):
        read_squad(path)
    path.write_bytes("x".encode("utf-32"))
    with pytest.raises(DataError, match="is UTF-32"):
        read_squad(path)
    path.write_bytes(b'{"data": "\xe9"}')
    with pytest.raises(DataError, match="line 1: byte 0xE9 is not UTF-8"):
        read_squad(path)
    with pytest.raises(DataError, match="an earlier question has the id 'a' too"):
        read_squad(write(path, qas(), qas()))
    with pytest.raises(DataError, match=r"one of the suffixes \.json, \.jsonl"):
        read_squad(write(tmp_path / "a.txt", qas()))
    flat = tmp_path / "a.jsonl"
    flat.write_text('{"id": "a", "question": "?", "context": "c", "answers": {}}')
    with pytest.raises(DataError, match=r'line 1: has no "answers"'):
        read_squad(flat)
    flat.write_text('{"id": "a", "question": "?", "context": "c", "answers": {"text": ["c"], "answer_start": []}}')
    with pytest.raises(DataError, match="have different lengths"):
        read_squad(flat)


def test_rows_as_they_come(tmp_path: Path) -> None:
    """One answer that is in no list, questions without ids, lines in a .json, Parquet."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lists = {"text": ["Warsaw"], "answer_start": [24]}
    row = {"id": "a", "question": "Where?", "context": CONTEXT, "answers": lists}
    expected = Question("a", "Where?", CONTEXT, ((24, "Warsaw"),))
    path = tmp_path / "a.json"
    path.write_text("\n".join(json.dumps({**row, "id": key}) for key in "ab"))
    assert read_squad(path).examples == [expected, expected._replace(id="b")]
    path.write_text(json.dumps([{**row, "answers": {"text": "Warsaw", "answer_start": 24}}]))
    assert read_squad(path).examples == [expected]
    nameless = {key: value for key, value in row.items() if key != "id"}
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps(nameless)] * 2))
    assert [one.id for one in read_squad(tmp_path / "a.jsonl").examples] == ["1", "2"]
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    assert read_squad(tmp_path / "a.parquet").examples == [expected]
    (tmp_path / "a.jsonl").write_text(json.dumps({**row, "answers": None}))
    with pytest.raises(DataError, match=r'expected \{"id"'):
        read_squad(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_bad_questions_are_skipped_and_listed(tmp_path: Path, name: str) -> None:
    good = [{**qas(id=str(i)), "context": CONTEXT} for i in range(6)]
    wrong: list[Any] = [good[0], {**good[1], "id": "x", "question": ""}, {**good[1], "id": "y", "answers": 3}, 7]
    moved = {**good[1], "id": "z", "answers": [{"text": "Warsaw", "answer_start": 3}]}
    rows = [*good, *wrong, moved]
    path = tmp_path / name
    path.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="an earlier question has the id '0' too"):
        read_squad(path)
    found = read_squad(path, skip_bad=True)
    assert [one.id for one in found.examples] == [*map(str, range(6)), "z"]
    assert (found.skipped, len(found.bad)) == (4, 4)
    assert {one.line for one in found.bad} == ({0} if name == "a.json" else {7, 8, 9, 10})
    kept = found.check_offsets(skip_bad=True)
    assert (len(kept), kept.skipped, "not at character 3" in kept.bad[-1].problem) == (6, 5, True)
    note = describe_bad_rows(found.bad)
    assert ("line 8: 'question' is an empty text" if name == "a.jsonl" else "[7]: 'question' is an empty") in note


@pytest.mark.data
def test_official_counts_and_the_scores_of_gold_answers() -> None:
    folder = Path(os.environ["POCKETBERT_DATA"]) / "squad"
    counts = {
        "dev-v1.1.json": (10570, 0),
        "dev-v2.0.rebuilt.json": (11873, 5945),
        "train-v1.1.44articles.json": (11877, 0),
        "train-v2.0.first10articles.json": (4719, 348),
    }
    for name, expected in counts.items():
        found = read_squad(folder / name)
        assert (len(found), found.unanswerable) == expected
        found.check_offsets()
        if "dev" in name:
            # The shortest first: of all answers the first may be ".", which has no F1 in SQuAD 1.1.
            gold = {one.id: one.answers[0][1] if one.answers else "" for one in found.examples}
            scores = squad(gold, found.references())
            assert scores["exact_match"] == scores["f1"] == 1.0
            # One of every answer's words more: only what normalisation removes is forgiven.
            worse = squad({key: f"the {text}!" for key, text in gold.items()}, found.references())
            assert worse["f1"] == worse["exact_match"] == 1.0
            worse = squad({key: f"{text} indeed" for key, text in gold.items()}, found.references())
            assert worse["exact_match"] < 0.01
            assert 0.3 < worse["f1"] < 0.9
