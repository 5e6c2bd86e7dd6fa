"""What a training command understood of its data, without training: labels, lengths in tokens, rows, what is cut."""

from __future__ import annotations

from typing import Any

import numpy as np

from pocketbert.data.bad_rows import describe_bad_rows
from pocketbert.features import WHOLE, fit
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.models import choose_tokenizer, read_config
from pocketbert.tasks import TASKS, find_task
from pocketbert.tasks.base import Task
from pocketbert.tasks.raw_text import RawText

_ROWS = 5
_MOST = 10_000  # examples whose lengths are counted


def dry_run(options: FinetuneOptions) -> dict[str, Any]:
    """Return what the data of a run holds, as a run with these options reads it; nothing is written.

    Returns:
        A dictionary for JSON: `task`, `description`, `files` (by set: name, examples, columns, labels with counts, …),
        `tokens` (lengths of training examples, and what is read of them), `rows` (the first), `bad` (those skipped).

    Raises:
        DataError: the data is invalid.
        ConfigError: the options contradict the model.
        CheckpointError: its configuration or tokenizer cannot be read.
    """
    if options.task not in TASKS:
        corpus = RawText(options)
        return {"task": options.task, "description": corpus.describe(), "files": corpus.facts()}
    data = find_task(options.task)(options)
    files = {
        name: {key: value for key, value in facts.items() if key != "sha256"} for name, facts in data.facts().items()
    }
    return {
        "task": options.task,
        "description": data.describe(),
        "files": files,
        "tokens": _tokens(options, data),
        "rows": [example._asdict() for example in data.train.examples[:_ROWS]],
        "bad": [f"{name}: {describe_bad_rows(bad)}" for name, bad in data.bad_rows()],
    }


def _tokens(options: FinetuneOptions, data: Task[Any]) -> dict[str, Any]:
    """Return the lengths of training examples in tokens, and how many are cut or read in windows."""
    tokenizer = choose_tokenizer(options, data)
    config, _ = data.configure(read_config(options))
    limit = fit(tokenizer, min(options.max_length or data.usual_length, config.max_tokens))
    places = np.unique(np.linspace(0, len(data.train) - 1, min(_MOST, len(data.train))).astype(int))
    examples = [data.train.examples[i] for i in places]
    whole = data.evaluation(tokenizer, config, WHOLE).encode(examples)
    read = data.evaluation(tokenizer, config, limit).encode(examples)
    lengths = np.array([max(map(len, group), default=0) for group in whole])
    return {
        "examples": len(examples),
        "shortest": int(lengths.min()),
        "median": int(np.median(lengths)),
        "percentile_95": int(np.percentile(lengths, 95)),
        "longest": int(lengths.max()),
        "read": limit,
        "cut": sum(any(features.cut for features in group) for group in read),
        "in_windows": sum(len(parts) > len(group) for parts, group in zip(read, whole, strict=True)),
    }
