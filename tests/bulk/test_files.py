"""Files into shards: the rows and bits of the plain commands, in every format, whatever stops the run."""

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from helpers.shell import Outcome
from pocketbert import BulkOptions, DataError, InputError, answer_files, cli
from pocketbert.bulk import run as bulk_run
from pocketbert.bulk import shards, storage

Models = dict[str, Path]
WORDS = ["the", "film", "is", "great", "dull", "it", "was", "never", "is", "it"]


def texts(count: int) -> list[str]:
    """Texts of different lengths, no two alike."""
    return [" ".join(WORDS[(i * k) % 10] for k in range(1, 2 + i % 9)) + f" {i}" for i in range(count)]


def run(*arguments: str | Path) -> Outcome:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with rows in three formats, with numbers."""
    rows = [{"number": i, "text": text} for i, text in enumerate(texts(50))]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:20]))
    with (folder / "b.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("number", "text"), *((row["number"], row["text"]) for row in rows[20:35])])
    pq.write_table(pa.Table.from_pylist(rows[35:]), folder / "c.parquet")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shards_are_what_the_command_prints(files: Path, models: Models, tmp_path: Path) -> None:
    """Every task that reads files: the lines of its shards are those of the command without --output, byte for byte."""
    masked = files.parent / "masked.txt"
    masked.write_text("".join(f"{text} [MASK]\n\n" for text in texts(9)))
    decides = tmp_path / "decides"
    shutil.copytree(models["classify"], decides)
    config = json.loads((decides / "config.json").read_text())
    (decides / "config.json").write_text(json.dumps({**config, "thresholds": {"negative": 0.3, "positive": 0.4}}))
    commands: list[tuple[Path, list[str | Path]]] = [
        (files, ["classify", "-m", decides]),
        (masked, ["classify", "-m", models["classify"], "--explain"]),
        (files, ["classify", "-m", models["classify"]]),
        (files, ["classify", "-m", models["nli"], "--labels", "film,great", "-k", "2"]),
        (files, ["tag", "-m", models["tag"]]),
        (files, ["embed", "-m", models["embed"], "--normalize"]),
        (masked, ["fill-mask", "-m", models["fill-mask"], "-k", "2"]),
        (masked, ["classify", "-m", models["nli"], "--pair", "is it?", "-k", "1"]),
    ]
    for number, (source, command) in enumerate(commands):
        names = sorted(source.iterdir()) if source.is_dir() else [source]
        plain = "".join(run(*command, "-f", name, "--json").text for name in names)
        pattern = source / "*" if source.is_dir() else source
        out = tmp_path / f"out{number}"
        [said] = run(*command, "-f", pattern, "-o", out, "--shard-rows", "16", "--json").lines
        parts = sorted(out.glob("part-*.jsonl"))
        assert b"".join(part.read_bytes() for part in parts).decode() == plain, command
        assert said["rows"] == len(plain.splitlines())
        assert said["skipped"] == (0 if source.is_dir() else 9)
        manifest = json.loads((out / "manifest.json").read_text())
        assert [entry["file"] for entry in manifest["shards"]] == [part.name for part in parts]
        assert [entry["sha256"] for entry in manifest["shards"]] == [
            hashlib.sha256(part.read_bytes()).hexdigest() for part in parts
        ]
        assert not (out / ".unfinished").exists()


def test_answers_in_many_passages(models: Models, tmp_path: Path) -> None:
    passages = tmp_path / "passages.txt"
    passages.write_text("\n".join(texts(5)))
    base: list[str | Path] = ["answer", "Who?", "Is it great?", "-m", models["answer"]]
    assert run(*base, "-f", passages, "-o", tmp_path / "out", "--format", "parquet").code == 0
    rows = pq.read_table(tmp_path / "out" / "part-00000.parquet").to_pylist()
    assert [(row["text"], row["question"]) for row in rows] == [
        (text, question) for text in texts(5) for question in ("Who?", "Is it great?")
    ]
    alone = run(*base, "--context", texts(5)[3], "--json").lines
    assert [{key: row[key] for key in alone[0]} for row in rows[6:8]] == alone


def test_formats_hold_the_same(files: Path, models: Models, tmp_path: Path) -> None:
    base: list[str | Path] = [
        "tag",
        "-m",
        models["tag"],
        "-f",
        files / "[ac].*",
        "--keep",
        "number",
        "--shard-rows",
        "20",
    ]
    read = {}
    for kind in ("jsonl", "csv", "parquet"):
        assert run(*base, "-o", tmp_path / kind, "--format", kind).code == 0
        read[kind] = sorted((tmp_path / kind).glob(f"part-*.{kind}"))
    rows = [json.loads(line) for part in read["jsonl"] for line in part.read_text().splitlines()]
    assert [row["number"] for row in rows] == [*range(20), *range(35, 50)]
    assert [row for part in read["parquet"] for row in pq.read_table(part).to_pylist()] == rows
    cells = [row for part in read["csv"] for row in csv.DictReader(part.read_text().splitlines())]
    assert [
        {"number": int(row["number"]), "text": row["text"], "entities": json.loads(row["entities"])} for row in cells
    ] == rows


def test_a_stopped_run_goes_on(files: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is finished is kept, what is missing or damaged is written again, and the result is that of one run."""
    options: dict[str, Any] = {"file": files / "*", "model": models["classify"], "shard_rows": 8}
    whole = answer_files(BulkOptions(output=str(tmp_path / "whole"), **options))
    assert (whole.rows, whole.shards) == (50, 7)
    write = shards.write_shard
    stopped = BulkOptions(output=str(tmp_path / "stopped"), **options)

    def failing(job: Any, chunk: Any) -> Any:
        if chunk.number == 3:
            raise KeyboardInterrupt
        return write(job, chunk)

    monkeypatch.setattr(bulk_run, "write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        answer_files(stopped)
    there = contents(tmp_path / "stopped")
    assert "manifest.json" not in there
    (tmp_path / "stopped" / "part-00001.jsonl").write_bytes(there["part-00001.jsonl"][:-5])
    numbers: list[int] = []

    def counting(job: Any, chunk: Any) -> Any:
        numbers.append(chunk.number)
        return write(job, chunk)

    monkeypatch.setattr(bulk_run, "write_shard", counting)
    assert answer_files(stopped).rows == 50
    assert numbers == [1, 3, 4, 5, 6]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert answer_files(stopped).shards == 7  # which computes nothing
    assert len(numbers) == 5


def test_workers_change_nothing(files: Path, models: Models, tmp_path: Path) -> None:
    options: dict[str, Any] = {"file": files / "*", "model": models["classify"], "shard_rows": 16}
    for name, workers in (("one", None), ("two", 2)):
        answer_files(BulkOptions(output=str(tmp_path / name), workers=workers, **options))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_run_is_not_mixed_in(files: Path, models: Models, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    options: dict[str, Any] = {"file": files / "a.jsonl", "model": models["classify"], "shard_rows": 8, "output": out}
    answer_files(BulkOptions(**options))
    for changes, message in (
        ({"model": models["nli"]}, r"other model \(sha256"),
        ({"options": {"top_k": 2}}, r"other options \(top_k: None, now 2\)"),
        ({"format": "csv"}, "other options"),
        ({"task": "zero-shot-classification", "options": {"candidate_labels": "a,b"}}, "other task"),
        ({"file": files / "b.csv"}, r"other input \(.*b\.csv, line 2"),
        ({"file": files / "*"}, r"other input \(.*a\.jsonl, line 17"),
    ):
        with pytest.raises(DataError, match=message):
            answer_files(BulkOptions(**options | changes))
    lines = (files / "a.jsonl").read_text().splitlines(keepends=True)
    (files / "a.jsonl").write_text("".join(lines[:16]))
    with pytest.raises(DataError, match=r"fewer rows: none are left for part-00002\.jsonl"):
        answer_files(BulkOptions(**options))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="is not empty: choose a new folder"):
        answer_files(BulkOptions(**options | {"output": str(tmp_path / "full")}))


def test_bad_files(files: Path, models: Models, tmp_path: Path) -> None:
    def refused(message: str, **changes: Any) -> None:
        given: dict[str, Any] = {"model": models["classify"], "output": str(tmp_path / "out"), **changes}
        with pytest.raises((DataError, InputError), match=message):
            answer_files(BulkOptions(**given))

    refused("there is no such file", file=tmp_path / "none*.csv")
    refused("is a folder: name its files, such as", file=files)
    (files / "d.csv").write_text("review,stars\nfine,5\n")
    refused(r"d\.csv: has its texts in 'review', and .*a\.jsonl in 'text': name the column", file=files / "*")
    refused(r"d\.csv: has no column 'number' \(--keep\)", file=files / "[cd]*", keep=("number",))
    (files / "d.csv").unlink()
    (files / "e.jsonl").write_text(json.dumps({"number": "x", "text": "fine"}))
    refused("'number' begins with values of the type bigint", file=files / "[ae]*", keep=("number",), format="parquet")
    refused(r"a\.jsonl, line 1: no \[MASK\]", file=files / "a.jsonl", task="fill-mask", model=models["fill-mask"],
            output=str(tmp_path / "other"))  # fmt: skip
    refused("--keep label: the results have a column of this name", file=files / "a.jsonl", keep=("label",))
    refused("is a file: --output needs a folder", file=files / "a.jsonl", output=str(files / "b.csv"))


def test_wrong_usage(files: Path, models: Models, tmp_path: Path) -> None:
    base: list[str | Path] = ["classify", "-m", models["classify"]]
    cases: list[tuple[list[str | Path], str]] = [
        (["-f", files / "*"], "stands for files whose results need --output FOLDER"),
        (["-f", files / "a.jsonl", "--workers", "2"], "--workers is for results in files: it needs --output FOLDER"),
        (["dull", "-o", tmp_path / "out"], "--output writes the results of a --file"),
        (["-f", files / "a.jsonl", "-o", tmp_path / "out", "--address", "auto"], "--address auto needs --engine ray"),
        (["-f", files / "a.jsonl", "-o", tmp_path / "out", "--device", "cpu"], "leave out --device"),
    ]
    for arguments, message in cases:
        outcome = run(*base, *arguments)
        assert outcome.code == 2
        assert message in " ".join(outcome.err.split()), outcome.err


def test_patterns_of_urls() -> None:
    fits = storage._matches
    assert fits("bucket/a/x.csv", "bucket/*/x.csv")
    assert fits("bucket/a/b/x.csv", "bucket/**/*.csv")
    assert fits("bucket/x.csv", "bucket/**/*.csv")
    assert not fits("bucket/a/b/x.csv", "bucket/*/*.csv")
    assert not fits("bucket/x.csv.gz", "bucket/*.csv")
