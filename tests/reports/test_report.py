"""The reports of runs and evaluations."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers.evaluations import EVALUATIONS, classes
from helpers.labelled import reviews, write_csv
from helpers.runs import options_in
from pocketbert.errors import DataError
from pocketbert.recipes.finetune import finetune
from pocketbert.reports.report import write_evaluation_report
from pocketbert.reports.svg import Plot, limits, ticks
from pocketbert.tasks.evaluate import evaluate
from pocketbert.tasks.evaluate_options import EvaluateOptions
from pocketbert.tasks.outcomes import FILE, KINDS, read_outcomes

VOID = {"meta", "br"}


class Page(HTMLParser):
    """What a page holds; a tag that is not closed, or closed where it should not be, is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


MORE = {
    "classes": ("Per label", "Confusion matrix", "Curves"), "several": ("Per label",), "numbers": ("Curves",),
    "tags": ("Types of entities",),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_of_every_task(kind: str, tmp_path: Path) -> None:
    EVALUATIONS[kind]().write(tmp_path)
    _, sets = read_outcomes(tmp_path / FILE)
    write_evaluation_report(tmp_path, "my-model", {"model": "<my>"}, ["pocketbert", "evaluate", "a b"], explained=None)
    page = Page(tmp_path / "report.html")
    assert page.links == []
    assert "url(" not in (tmp_path / "report.html").read_text()
    assert f"my-model on {sets['dev'].file}" in page.text
    assert "<my>" in page.text
    assert "pocketbert evaluate 'a b'" in page.text
    for name, value in sets["dev"].metrics.items():
        assert name in page.text
        assert f"{value:.4f}" in page.text
    there = {*re.findall(r"<h2>(.*?)</h2>", (tmp_path / "report.html").read_text())}
    wanted = {"Scores", "Errors", "Data, model and machine", "Reproduction", *MORE.get(kind, ())}
    assert there - {"Probable label errors"} == wanted


def test_every_text_of_the_user_is_escaped(tmp_path: Path) -> None:
    classes(pairs=True, sure=0.5).write(tmp_path)
    write_evaluation_report(tmp_path, "<script>alert(1)</script>", {}, [], explained=None)
    page = Page(tmp_path / "report.html")
    assert not {"script", "i>", "u"} & {*page.tags}
    assert "text <i>" in page.text
    assert "a <u>second</u>" in page.text
    assert "<b>good</b>" in page.text
    assert "<script>alert(1)</script> on held.csv" in page.text


@pytest.mark.usefixtures("no_pictures")
def test_the_report_of_a_run(tmp_path: Path) -> None:
    data = tmp_path / "reviews.csv"
    options = options_in(tmp_path, epochs=2, data=write_csv(data, reviews(80)), eval_data=data, learning_rate=1e-5)
    result = finetune(options, argv=["pocketbert", "finetune", "my <data>"])
    path = result.folder / "report.html"
    page, source = Page(path), path.read_text()
    titles = [title for title in re.findall(r"<h2>(.*?)</h2>", source) if title != "Probable label errors"]
    assert titles == [
        "Scores", "Per label", "Confusion matrix", "Curves", "Errors", "Data", "Size and speed", "Reproduction",
    ]  # fmt: skip
    run = json.loads((result.folder / "run.json").read_text())
    assert page.text.count(f"{result.metrics['accuracy']:.4f}") >= 1
    assert "$ pocketbert finetune 'my <data>'" in page.text
    assert f"{run['parameters']:,}" in page.text
    assert "80 evaluation texts are also in the training data" in page.text
    assert "before calibration" in page.text
    _, sets = read_outcomes(result.folder / "evaluation" / FILE)
    errors = len(sets["dev"].errors)
    assert source.count('class="error"') == errors > 0
    assert 'title="' in source.partition("<h2>Errors")[2]  # words in colours, with what they contribute
    # The same model on the same file gives the same outcomes.
    evaluate(EvaluateOptions(model=result.folder, data=data, output=tmp_path / "again"))
    _, others = read_outcomes(tmp_path / "again" / FILE)
    assert (others["dev"].examples, others["dev"].answers) == (sets["dev"].examples, sets["dev"].answers)
    assert others["dev"].columns["right"] == sets["dev"].columns["right"]
    assert "a second" in (tmp_path / "again" / "report.html").read_text()


def test_outcomes_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / FILE
    evaluation = classes()
    evaluation.write(tmp_path)
    whole = json.loads(path.read_text())
    changes: list[tuple[Callable[[dict], object], str]] = [  # type: ignore[type-arg]
        (lambda content: content.update(version=9), "version 9 of outcomes, where 1 is expected"),
        (lambda content: content.pop("sets"), "no outcomes of an evaluation"),
        (lambda content: content["sets"]["dev"]["columns"]["right"].pop(), "not all examples have all columns"),
        (lambda content: content["sets"]["dev"].update(more=1), "no outcomes of an evaluation"),
    ]
    for change, message in changes:
        content = json.loads(json.dumps(whole))
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=message):
            read_outcomes(path)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-3, 47) == pytest.approx([0, 10, 20, 30, 40])
    assert ticks(0.912, 0.934) == pytest.approx([0.915, 0.92, 0.925, 0.93])
    assert limits([2.0, 2.0, float("nan")]) == (2.0, 2.0)
    plot = Plot("a < b", "x", "y", (2.0, 2.0), limits([1.0, 3.0]))
    plot.line([(2.0, 1.0), (2.0, float("nan"))], 0, "<name>")
    assert "a &lt; b" in plot.html()
    assert "&lt;name&gt;" in plot.html()


CONTEXT = "marie curie was born in warsaw ."
FILES = {
    "tag": ("a.txt", "marie I-PER\ncurie I-PER\nwas O\nborn O\n\nin O\nwarsaw O\n"),
    "answer": (
        "a.json",
        json.dumps(
            {"data": [{"paragraphs": [{"context": CONTEXT, "qas": [
                {"id": "a", "question": "was marie born ?", "answers": [{"text": "warsaw", "answer_start": 24}]},
                {"id": "b", "question": "was curie born ?", "answers": [{"text": ".", "answer_start": 31}]},
            ]}]}]}
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", FILES)
def test_words_of_tags_and_answers(models: dict[str, Path], tmp_path: Path, task: str) -> None:
    name, content = FILES[task]
    (tmp_path / name).write_text(content)
    evaluate(EvaluateOptions(model=models[task], data=tmp_path / name, output=tmp_path / "out"))
    source = (tmp_path / "out" / "report.html").read_text()
    errors = source.partition("<h2>Errors")[2].partition("</section>")[0]
    assert "<mark class=" in errors
    assert 'class="error"' in errors
    Page(tmp_path / "out" / "report.html")


def test_a_model_that_explains_nothing(tmp_path: Path) -> None:
    classes(pairs=True, sure=0.5).write(tmp_path)
    write_evaluation_report(tmp_path, "my-model", {}, [], explained=str(tmp_path))
    page = Page(tmp_path / "report.html")
    assert "No explanations: " in page.text
    assert "mark" not in page.tags


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_report_of_next_to_nothing(kind: str, count: int, tmp_path: Path) -> None:
    EVALUATIONS[kind](count).write(tmp_path)
    write_evaluation_report(tmp_path, "my-model", {}, [], explained=None)
    Page(tmp_path / "report.html")


def test_several_sets_and_one_class(tmp_path: Path) -> None:
    evaluation = classes(30)
    evaluation.gold[id(evaluation.sets["dev"])][:] = 1  # type: ignore[attr-defined]
    rows = evaluation.sets.pop("dev")
    for name in ("matched", "mismatched"):
        evaluation.sets[name] = rows
        evaluation.predicted[name] = evaluation.predicted["dev"]
    del evaluation.predicted["dev"]
    evaluation.write(tmp_path)
    write_evaluation_report(tmp_path, "my-model", {}, [], explained=None)
    page = Page(tmp_path / "report.html")
    assert "Scores (matched)" in page.text
    assert "Scores (mismatched)" in page.text
