"""Tables of logits: what is read by text, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketbert.data.logit_tables import LogitTable
from pocketbert.errors import DataError


def table(folder: Path, *rows: Any) -> LogitTable:
    path = folder / "logits.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows))
    return LogitTable(path)


def test_logits_are_found_by_text_and_label(tmp_path: Path) -> None:
    known = table(
        tmp_path,
        {"text": "ä", "logits": {"B": 2, "a": -1.5}},
        {"text": "ä", "text_pair": "c", "logits": {"a": 0.25, "b": 4}},
        {"text": "ä", "logits": {"b": 2, "a": -1.5}},
    )
    found = known.lookup([("ä", "c"), ("ä", None), ("ä", "c")], ("a", "b"), tmp_path / "missing")
    np.testing.assert_array_equal(found, [[0.25, 4], [-1.5, 2], [0.25, 4]])
    assert found.dtype == np.float32
    assert not (tmp_path / "missing").exists()


def test_numbers(tmp_path: Path) -> None:
    known = table(tmp_path, {"text": "a", "logits": {"score": 2.5}}, {"text": "b", "logits": {"score": 3}})
    np.testing.assert_array_equal(known.lookup([("b", None), ("a", None)], (), tmp_path / "missing"), [[3], [2.5]])
    with pytest.raises(DataError, match="has logits of score, and the labels are a, b"):
        known.lookup([("b", None)], ("a", "b"), tmp_path / "missing")


def test_missing_texts_are_written(tmp_path: Path) -> None:
    known = table(tmp_path, {"text": "a", "logits": {"x": 1, "y": 2}})
    with pytest.raises(DataError, match=r"no logits for 2 texts of the training data, the first is 'ö'"):
        known.lookup([("a", None), ("ö", None), ("a", "b"), ("ö", None)], ("x", "y"), tmp_path / "missing.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "missing.jsonl").read_text().splitlines()]
    assert rows == [{"text": "ö"}, {"text": "a", "text_pair": "b"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"logits": {"a": 1}}, 'line 2: needs a "text"'),
        ({"text": 3, "logits": {"a": 1}}, 'line 2: needs a "text"'),
        ({"text": "b"}, 'line 2: needs "logits"'),
        ({"text": "b", "logits": {}}, 'line 2: needs "logits"'),
        ({"text": "b", "logits": [1, 2]}, 'line 2: needs "logits"'),
        ({"text": "b", "logits": {"a": True}}, 'line 2: needs "logits"'),
        ('{"text": "b", "logits": {"a": NaN}}', 'line 2: needs "logits"'),
        ({"text": "a", "logits": {"a": 2}}, "line 2: the same text has other logits in an earlier line"),
    ],
)
def test_lines_that_are_no_logits(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path, {"text": "a", "logits": {"a": 1}}, row)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        LogitTable(tmp_path / "gone.jsonl")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(DataError, match=r"a\.jsonl"):
        LogitTable(tmp_path / "a.jsonl")
