"""Tasks by name: their data, their evaluation and the files of their predictions. None of it needs PyTorch."""

from __future__ import annotations

from typing import Any

from pocketbert.errors import ConfigError
from pocketbert.tasks.base import Task
from pocketbert.tasks.choices import MultipleChoice
from pocketbert.tasks.classification import TextClassification
from pocketbert.tasks.questions import QuestionAnswering
from pocketbert.tasks.tagging import Tagging

TASKS: dict[str, type[Task[Any]]] = {
    task.name: task for task in (TextClassification, Tagging, QuestionAnswering, MultipleChoice)
}


def find_task(name: str) -> type[Task[Any]]:
    """Return the task of this name. Raises `ConfigError` for an unknown name."""
    if name not in TASKS:
        raise ConfigError(f"--task {name} must be one of {', '.join(TASKS)}")
    return TASKS[name]
