"""What is typed and piped in: closed streams, narrow terminals, names of files, rows of tables."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.shell import COMMAND, Outcome

Run = Callable[..., Outcome]
Models = dict[str, Path]


@pytest.mark.skipif(sys.platform == "win32", reason="no shell of POSIX")
def test_streams_may_be_closed(models: Models, tmp_path: Path) -> None:
    """As some daemons start programs. One shell, for the start of a process takes longer than all it does here."""
    command = f"{' '.join(COMMAND)} classify --json --model {models['classify']}"
    script = f"""
        {command} film >&- 2>{tmp_path / "out"}; echo $? >{tmp_path / "codes"}
        {command} <&- 2>{tmp_path / "in"}; echo $? >>{tmp_path / "codes"}
        {command} film 2>&- >{tmp_path / "err"}; echo $? >>{tmp_path / "codes"}
    """
    subprocess.run(["sh", "-c", script], check=True)
    assert (tmp_path / "codes").read_text().split() == ["0", "1", "0"]
    assert (tmp_path / "out").read_text() == ""
    assert (tmp_path / "in").read_text() == "error: standard input: contains no text\n"
    assert json.loads((tmp_path / "err").read_text())["text"] == "film"


@pytest.mark.parametrize("width", ["0", "1", "8", "20"])
def test_no_table_disappears(run: Run, models: Models, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    text = run("classify", "--table", "film dull", "--model", models["classify"]).text
    assert all(word in text for word in ("Text", "Label", "Score", "film dull", "tive"))
    text = run("classify", "--table", "film", "--pair", "dull", "--model", models["nli"]).text
    assert all(word in text for word in ("film", "dull", "Score"))


def test_names_of_files_are_noted(run: Run, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").write_text("text\nfilm\n")
    note = "note: reviews.csv is used as a text, but a file of that name exists: --file reads what it holds\n"
    outcome = run("classify", "--model", models["classify"], "film", "reviews.csv")
    assert (len(outcome.lines), outcome.err) == (2, note)
    outcome = run("answer", "who?", "--model", models["answer"], "--context", "reviews.csv")
    assert (len(outcome.lines), outcome.err) == (1, note)
    for text in ("other.csv", "film \u0000", "film " * 2000, "film" * 70, "."):
        assert "is also a file" not in run("classify", "--model", models["classify"], text).err


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"%PDF-1.4\nabc\n", "is a PDF"), (b"PK\x03\x04abc\n", "is a zip archive"), (b"PAR1\nabc", "is a Parquet file")],
)
def test_documents_are_no_texts(run: Run, models: Models, tmp_path: Path, content: bytes, says: str) -> None:
    """Case 33: also where their first bytes are text."""
    path = tmp_path / "report.txt"
    path.write_bytes(content)
    assert run("classify", "--model", models["classify"], "--file", path).error.startswith(f"{path}: {says}")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('{"text": "film"}\n{"text": "dull"}\n', "looks like JSON lines"),
        ('{"tokens": ["film"]}\n{"tokens": ["dull"]}\n', "looks like JSON lines"),
        ('[{"text": "film"},\n{"text": "dull"}]\n', "looks like a list of JSON objects"),
        ("text,label\nfilm,a\n", "looks like a table with columns separated by commas"),
        ("text\tlabel\nfilm\ta\n", "looks like a table with columns separated by tabs"),
        ("__label__a film\n__label__b dull\n", "looks like training data of fastText"),
    ],
)
def test_rows_of_tables_are_noted(run: Run, models: Models, tmp_path: Path, lines: str, says: str) -> None:
    outcome = run("classify", "--model", models["classify"], stdin=lines)
    assert len(outcome.lines) == 2
    assert f"note: standard input {says}, and each of its lines is read as a text; save them as a file" in outcome.err
    (tmp_path / "lines.txt").write_text(lines)
    assert "; rename it to a file whose name ends in ." in run(
        "classify", "--model", models["classify"], "--file", tmp_path / "lines.txt"
    ).err  # fmt: skip
    assert run("classify", "--model", models["classify"], stdin="a film, and a text\ndull\n").err == ""
