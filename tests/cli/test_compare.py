"""compare: the table, the lines and the sentence."""

from collections.abc import Callable
from pathlib import Path

from helpers.evaluations import classes
from helpers.shell import Outcome

Run = Callable[..., Outcome]


def test_compare(run: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "run", tmp_path / "b"
    classes(sure=1.0).write(first / "evaluation")
    classes(sure=3.0).write(second)
    (first / "report.html").write_text("")
    [line] = run("compare", first / "report.html", second).lines
    assert (line["set"], line["better"], line["examples"]) == ("dev", "second", 80)
    assert line["metrics"]["accuracy"]["low"] > 0
    shown = run("compare", first, second, "--table", "--output", tmp_path / "page.html")
    assert "accuracy" in shown.text
    assert "is better." in " ".join(shown.err.split())
    assert "<h2>Only " in (tmp_path / "page.html").read_text()
    again = run("compare", first, second, "--output", tmp_path / "page.html")
    assert again.code == 2
    assert "exists: choose another name" in " ".join(again.err.split())
    assert "no outcomes.json in it" in run("compare", first, tmp_path).error
