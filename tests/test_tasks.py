"""Every pipeline and every task has all that the rest of the package and of the repository expects of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.labelled import PIECES, choices_file, conll_file, reviews, squad_file, write_csv
from helpers.tokenizers import tokenizer_of
from pocketbert import pipelines, tasks
from pocketbert.cli import COMMANDS
from pocketbert.cli.runs import _COMMANDS
from pocketbert.configs import BertConfig
from pocketbert.families.family import HEADS
from pocketbert.pipelines import MultipleChoice, Pipeline, ZeroShotClassification
from pocketbert.serve import compatible, v1
from pocketbert.tasks import find_task
from pocketbert.tasks.evaluate import read_evaluation
from pocketbert.tasks.evaluation import Evaluation

ROOT = Path(__file__).parents[1]
NAMES = {name for panel in COMMANDS.values() for name in panel}
# A small file of each task, and the labels of a model for it.
FILES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "text-classification": (lambda folder: write_csv(folder / "a.csv", reviews(4)), ["bad", "good"]),
    "token-classification": (lambda folder: conll_file(folder / "a.txt", 4), ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]),
    "question-answering": (lambda folder: squad_file(folder / "a.json", 4), ["LABEL_0", "LABEL_1"]),
    "multiple-choice": (lambda folder: choices_file(folder / "a.jsonl", 4), ["LABEL_0", "LABEL_1"]),
}


def lacking_in_inference(kind: type[Pipeline]) -> Iterator[str]:
    """The parts that a pipeline lacks, each by its place."""
    row = re.search(rf"\| `{kind.task}` \| `pocketbert ([\w-]+)", _read("docs/guides/ask.md"))
    if row is None or row[1] not in NAMES:
        yield "docs/guides/ask.md: a row with a command of cli/__init__.py"
    if kind.task not in compatible._PARAMETERS:
        yield "serve/compatible.py: _PARAMETERS"
    if kind is ZeroShotClassification:  # has the route of text classification, with an option
        return
    path = next((endpoint.path for endpoint in v1.ENDPOINTS.values() if endpoint.task == kind.task), None)
    if f"/v1/{path}" not in {getattr(route, "path", None) for route in v1.routes}:
        yield "serve/v1.py: an entry of ENDPOINTS with its route"
    if f'  "{kind.task}": {{\n' not in _read("src/pocketbert/serve/page.html"):
        yield "serve/page.html: TASKS"
    if f"| `/v1/{path}` |" not in _read("docs/guides/serve.md"):
        yield "docs/guides/serve.md: a row"


def lacking_in_training(name: str, folder: Path) -> Iterator[str]:
    """The parts that a task lacks, each by its place; `folder` is empty."""
    task = find_task(name)
    if task.name != name:
        yield "tasks/__init__.py: the name of the class"
    if not HEADS[task.head].task:
        yield "families/family.py: task=True in HEADS"
    if name not in pipelines.TASKS or pipelines.TASKS[name].head != task.head:
        yield "pipelines/__init__.py: a pipeline of this name, with this head"
    if name not in _COMMANDS or _COMMANDS[name].split()[1] not in NAMES:
        yield "cli/runs.py: _COMMANDS"
    if name not in FILES:
        yield "tests/test_tasks.py: FILES"
    elif _evaluation(name, folder).head != task.head:
        yield "tasks/evaluate.py: read_evaluation"
    if f"| `{name}` |" not in _read("docs/guides/fine-tune.md"):
        yield "docs/guides/fine-tune.md: a row"


def _evaluation(name: str, folder: Path) -> Evaluation[Any, Any]:
    make, labels = FILES[name]
    BertConfig(id2label=dict(enumerate(labels))).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [f"Bert{find_task(name).head}"]}))
    tokenizer_of(PIECES).save_pretrained(folder)
    return read_evaluation(folder, make(folder))


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pipelines.TASKS)
def test_nothing_is_lacking_in_inference(name: str) -> None:
    assert list(lacking_in_inference(pipelines.TASKS[name])) == []


@pytest.mark.parametrize("name", tasks.TASKS)
def test_nothing_is_lacking_in_training(name: str, tmp_path: Path) -> None:
    assert list(lacking_in_training(name, tmp_path)) == []


def test_every_head_of_a_task_has_a_task() -> None:
    assert {find_task(name).head for name in tasks.TASKS} == {head.name for head in HEADS.values() if head.task}


def test_what_is_lacking_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Stones(MultipleChoice):
        task = "stones"

    places = [part.partition(":")[0] for part in lacking_in_inference(Stones)]
    assert places == [
        "docs/guides/ask.md", "serve/compatible.py", "serve/v1.py", "serve/page.html", "docs/guides/serve.md",
    ]  # fmt: skip
    # A task under the name of another has the other's head, and no pipeline.
    monkeypatch.setitem(tasks.TASKS, "stones", tasks.TASKS["multiple-choice"])
    places = [part.partition(":")[0] for part in lacking_in_training("stones", tmp_path)]
    assert places == [
        "tasks/__init__.py", "pipelines/__init__.py", "cli/runs.py", "tests/test_tasks.py", "docs/guides/fine-tune.md",
    ]  # fmt: skip
    # A task whose head `read_evaluation` does not know is taken for a text classifier.
    monkeypatch.setitem(FILES, "multiple-choice", FILES["text-classification"])
    monkeypatch.setattr("pocketbert.tasks.evaluate.ChoiceEvaluation.head", "ForStones")
    assert list(lacking_in_training("multiple-choice", tmp_path)) == ["tasks/evaluate.py: read_evaluation"]


def test_options_of_data_belong_to_known_tasks() -> None:
    assert {task for known in tasks.DATA_OPTIONS.values() for task in known} <= tasks.TASKS.keys()
    assert tasks.foreign_options("token-classification") == ["glue", "text_pair_column"]
    assert tasks.foreign_options("multiple-choice") == list(tasks.DATA_OPTIONS)
