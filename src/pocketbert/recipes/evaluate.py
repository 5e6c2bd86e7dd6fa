"""Measure a model on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketbert.configs import AutoConfig
from pocketbert.data.glue import glue_task, read_glue
from pocketbert.data.labels import Labels
from pocketbert.data.tables import read_table
from pocketbert.errors import ConfigError
from pocketbert.recipes.classification import Evaluation
from pocketbert.tokenization import AutoTokenizer


def evaluate(model: str | Path, data: str | Path, *, device: str | None = None, **options: Any) -> dict[str, float]:
    """The metrics of a text classifier (or of a model that predicts a number) on labelled data, in PyTorch.

    Args:
        model: a folder or a name on the hub.
        data: as in `read_evaluation`.
        device: cpu, cuda, …; a GPU when there is one, if not given.
        **options: of `read_evaluation`.

    Raises:
        DataError: something is wrong with the data, or it has labels that the model has not.
        ConfigError: the labels of the model are not those of the task.
        CheckpointError: the model cannot be read, or was not trained to classify.
    """
    # Here, so that whoever brings a predictor of another kind to `read_evaluation` needs no PyTorch.
    from pocketbert.models.auto import load_trained
    from pocketbert.models.predict import TorchPredictor
    from pocketbert.recipes.models import choose_device

    evaluation = read_evaluation(model, data, **options)
    loaded = load_trained(model, "ForSequenceClassification")
    return evaluation(TorchPredictor(loaded.to(choose_device(device))))


def read_evaluation(
    model: str | Path,
    data: str | Path,
    *,
    glue: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    max_length: int = 512,
) -> Evaluation:
    """What measures a text classifier (or a model that predicts a number) on a table or a GLUE folder.

    Args:
        model: a folder or a name on the hub.
        data: a CSV, TSV, JSON-lines or Parquet file, or with `glue` a folder.
        glue: the task whose official development set to use.
        text_column: the column of the text; recognised when not given, as are the others.
        text_pair_column: the column of the second text.
        label_column: the column of the label.
        labels: what the model's labels mean, in its order, where the model itself does not say (LABEL_0, …).
        max_length: how many tokens of a text to read.

    Raises:
        DataError: something is wrong with the data, or it has labels that the model has not.
        ConfigError: the labels of the model are not those of the task.
    """
    config = AutoConfig.from_pretrained(model)
    names = tuple(labels or config.id2label.values())
    if len(names) != config.num_labels:
        raise ConfigError(f"{model} has {config.num_labels} labels, not {len(names)} ({', '.join(names)})")
    there = Labels(() if config.num_labels == 1 else names, numbered=names)
    if glue is None:
        table = read_table(data, text=text_column, text_pair=text_pair_column, label=label_column)
        sets = {"dev": table}
    else:
        sets = read_glue(data, glue, "dev")
        official = glue_task(glue).labels
        reordered = official if official.regression == there.regression else None
        if reordered is not None and not official.regression:
            reordered = official.reordered(dict(enumerate(names)))
        if reordered is None:
            raise ConfigError(
                f"the labels of {model} ({', '.join(names)}) are not those of {glue} ({', '.join(official.names)}); "
                "if they mean the same, say which is which with --labels"
            )
        there = reordered
    length = min(max_length, config.max_position_embeddings)
    return Evaluation(sets, there, AutoTokenizer.from_pretrained(model), length, glue)
