"""Tasks by name: their data, their evaluation and the files of their predictions. None of it needs PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pocketbert.errors import ConfigError

if TYPE_CHECKING:
    from pocketbert.tasks.base import Task

#: Name → module and class, which are imported when the task is used.
TASKS = {
    "text-classification": "pocketbert.tasks.classification:TextClassification",
    "token-classification": "pocketbert.tasks.tagging:Tagging",
    "question-answering": "pocketbert.tasks.questions:QuestionAnswering",
    "multiple-choice": "pocketbert.tasks.choices:MultipleChoice",
}
#: Options of labelled data → the tasks that have them. The files of other tasks need none.
DATA_OPTIONS = {
    "glue": ("text-classification",),
    "text_pair_column": ("text-classification",),
    "text_column": ("text-classification", "token-classification"),
    "label_column": ("text-classification", "token-classification"),
    "labels": ("text-classification", "token-classification"),
    "merge_labels": ("text-classification", "token-classification"),
}


def foreign_options(task: str) -> list[str]:
    """Return the names of the options of labelled data that a task does not have."""
    return [option for option, tasks in DATA_OPTIONS.items() if task not in tasks]


def find_task(name: str) -> type[Task[Any]]:
    """Return the task of this name. Raises `ConfigError` for an unknown name."""
    if name not in TASKS:
        raise ConfigError(f"--task {name} must be one of {', '.join(TASKS)}")
    module, _, class_name = TASKS[name].partition(":")
    task: type[Task[Any]] = getattr(import_module(module), class_name)
    return task
