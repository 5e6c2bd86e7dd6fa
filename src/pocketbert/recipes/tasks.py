"""The tasks that there are."""

from __future__ import annotations

from typing import Any

from pocketbert.errors import ConfigError
from pocketbert.recipes.choices import MultipleChoice
from pocketbert.recipes.classification import TextClassification
from pocketbert.recipes.questions import QuestionAnswering
from pocketbert.recipes.tagging import Tagging
from pocketbert.recipes.task import Task

TASKS: dict[str, type[Task[Any]]] = {
    task.name: task for task in (TextClassification, Tagging, QuestionAnswering, MultipleChoice)
}


def find_task(name: str) -> type[Task[Any]]:
    """The task of this name. Raises `ConfigError`."""
    if name not in TASKS:
        raise ConfigError(f"--task {name} is none of: {', '.join(TASKS)}")
    return TASKS[name]
