"""The scripts of `benchmarks/` that measure everything again and compare processors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def processors() -> Any:
    import processors

    return processors


def test_the_table_of_processors_is_that_of_the_results(processors: Any) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "processors.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), "python benchmarks/processors.py writes both"
    rows = processors.collect(processors.RESULTS)
    assert len({row["processor"] for row in rows}) > 1
    assert all((processors.RESULTS / row["file"]).exists() for row in rows)


def test_the_latest_figure_of_a_processor_counts(processors: Any, tmp_path: Path) -> None:
    head = "model,engine,batch,length"
    old, new, other = (f"engines_{name}.csv" for name in ("A-1_2026-01-02", "A-1_2026-01-10", "B-2_2025-01-01"))
    (tmp_path / old).write_text(f"{head},ms\nBERT-base,PocketBERT int8,1,128,9.04\nBERT-base,X int8,1,128,8\n")
    (tmp_path / new).write_text(f"{head},median_ms\nBERT-base,PocketBERT int8,1,128,1234.5\n")
    (tmp_path / new).with_suffix(".json").write_text(json.dumps({"roofline": {"int8": 2.5e12}}))
    (tmp_path / other).write_text(f"{head},median_ms\nBERT-base,PocketBERT int8,1,128,7\n")
    rows = processors.collect(tmp_path)
    found = {(row["processor"], row["measure"]): (row["value"], row["file"]) for row in rows}
    assert found == {
        ("A 1", "roofline, int8"): ("2500", new),
        ("A 1", "BERT-base 1×128, int8"): ("1234.5", new),
        ("A 1", "BERT-base 1×128, best other engine"): ("8.0", old),
        ("B 2", "BERT-base 1×128, int8"): ("7.0", other),
    }
    table = processors.as_table(rows).splitlines()
    assert table[0] == "| Figure | Unit | A 1 | B 2 |"
    assert "| roofline, int8 | GOP/s | 2,500 |  |" in table
    page = processors.page_with("first\n", f"a\n{processors.BEGIN}{processors.END}b\n")
    assert processors.page_with("second\n", page) == page.replace("first", "second")


def test_everything_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import all as everything

    scripts, work = tmp_path / "scripts", tmp_path / "work"
    scripts.mkdir()
    (scripts / "first.py").write_text("import os, sys\nopen('count', 'a').write(os.environ['POCKETBERT_RESULTS'])")
    (scripts / "second.py").write_text("import os, sys\nsys.exit(not os.path.exists('mended'))")
    (scripts / "third.py").write_text("import sys\nsys.exit(len(sys.argv) - 2)")
    step = everything.Step
    lacking = step("fourth", paths=[tmp_path / "nowhere"], packages=["no_such_package"])
    chosen = [step("first"), step("second"), step("third", ["x"], ["quick"], judges=True), lacking]
    monkeypatch.setattr(everything, "steps", lambda *_: iter(chosen))
    monkeypatch.setattr(everything, "HERE", scripts)
    monkeypatch.setattr(sys, "argv", ["all.py", str(work), "--quick", "--data", str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETBERT_DATA", "")  # so that it is restored
    with pytest.raises(SystemExit, match="resumes"):
        everything.main()
    said = capsys.readouterr().out.splitlines()
    assert "FAILED with status 1" in said[1]
    assert said[2].endswith("a condition failed")
    assert said[3].endswith(f"left out, without {tmp_path / 'nowhere'}, the package no_such_package")
    (tmp_path / "mended").touch()
    everything.main()
    said = capsys.readouterr().out.splitlines()
    assert [line.endswith("done before") for line in said] == [True, False, True, False]
    assert (tmp_path / "count").read_text() == str(work / "quick")
    everything.main()  # all were done: from the beginning
    assert (tmp_path / "count").read_text() == 2 * str(work / "quick")


def test_every_benchmark_is_a_step(tmp_path: Path) -> None:
    import all as everything

    named = {step.script for step in everything.steps(tmp_path, tmp_path, tmp_path)}
    helpers = {"all", "common", "compare", "every_task", "load", "peer_service", "processors"}
    assert named == {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - helpers


def test_old_names_of_measures_can_be_compared(tmp_path: Path) -> None:
    import compare

    (tmp_path / "a.csv").write_text("loop,examples_a_second\nours,10\n")
    (tmp_path / "b.csv").write_text("loop,examples_per_second\nours,12\n")
    [change] = compare.compare(tmp_path / "a.csv", tmp_path / "b.csv")
    assert (change.measure, change.higher_is_better, change.before, change.after) == (
        "examples_per_second",
        True,
        10,
        12,
    )
    assert compare.renamed("answers a second at p99 ≤ 25 ms") == "responses per second at p99 ≤ 25 ms"
    assert compare.renamed("a second later") == "a second later"
