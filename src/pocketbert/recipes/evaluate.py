"""Measure a model on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.data.choices import read_choices
from pocketbert.data.glue import glue_task, read_glue
from pocketbert.data.labels import Labels
from pocketbert.data.squad import read_squad
from pocketbert.data.tables import read_table
from pocketbert.errors import ConfigError
from pocketbert.recipes.choices import ChoiceEvaluation
from pocketbert.recipes.classification import TextEvaluation
from pocketbert.recipes.questions import AnswerEvaluation, QuestionAnswering
from pocketbert.recipes.tagging import TagEvaluation, read_sentences
from pocketbert.recipes.task import Advance, Evaluation
from pocketbert.tokenization import AutoTokenizer


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    device: str | None = None,
    output: str | Path | None = None,
    advance: Advance | None = None,
    **options: Any,
) -> dict[str, float]:
    """The metrics of a fine-tuned model on labelled data, in PyTorch.

    Args:
        model: a folder or a name on the hub.
        data: as in `read_evaluation`.
        device: cpu, cuda, …; a GPU when there is one, if not given.
        output: a folder for the predictions, in the files that are usual for the task.
        advance: called with the number of examples done, and the fraction of all that they are.
        **options: of `read_evaluation`.

    Raises:
        DataError: something is wrong with the data, or it has labels that the model has not.
        ConfigError: the labels of the model are not those of the task.
        CheckpointError: the model cannot be read, or was not trained for a task.
    """
    # Here, so that whoever brings a predictor of another kind to `read_evaluation` needs no PyTorch.
    from pocketbert.models.auto import load_trained
    from pocketbert.models.predict import TorchPredictor
    from pocketbert.recipes.models import choose_device

    evaluation = read_evaluation(model, data, **options)
    loaded = load_trained(model, evaluation.head)
    metrics = evaluation(TorchPredictor(loaded.to(choose_device(device))), advance)
    if output is not None:
        evaluation.write(Path(output))
    return metrics


def read_evaluation(
    model: str | Path,
    data: str | Path,
    *,
    glue: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    max_length: int | None = None,
) -> Evaluation[Any, Any]:
    """What measures a model on data of its task, which is that of its head: texts, if it does not say.

    Args:
        model: a folder or a name on the hub.
        data: a file in a layout of the task, or with `glue` a folder.
        glue: the task whose official development set to use.
        text_column: the column of the text; recognised when not given, as are the others. Of tagged words, its number.
        text_pair_column: the column of the second text.
        label_column: the column of the label; of tagged words, its number.
        labels: what the model's labels mean, in its order, where the model itself does not say (LABEL_0, …).
        max_length: how many tokens of an input to read; 512, and 384 of a question with its passage, when not given.

    Raises:
        DataError: something is wrong with the data, or it has labels that the model has not.
        ConfigError: the labels of the model are not those of the task, or an option is not for it.
    """
    config = AutoConfig.from_pretrained(model)
    head = config.tuned_for or TextEvaluation.head
    tokenizer = AutoTokenizer.from_pretrained(model)
    usual = QuestionAnswering.usual_length if head == AnswerEvaluation.head else 512
    length = min(max_length or usual, config.max_position_embeddings)
    columns = {"text_column": text_column, "label_column": label_column}
    foreign: dict[str, Any] = {"glue": glue, "text_pair_column": text_pair_column}
    foreign |= {} if head == TagEvaluation.head else {**columns, "labels": labels}
    wrong = [name for name, value in foreign.items() if value is not None]
    if head != TextEvaluation.head and wrong:
        raise ConfigError(f"--{wrong[0].replace('_', '-')} is not for {model}, a …{head}; leave it out")
    if head == AnswerEvaluation.head:
        return AnswerEvaluation({"dev": read_squad(data)}, tokenizer, length)
    if head == ChoiceEvaluation.head:
        return ChoiceEvaluation({"dev": read_choices(data)}, tokenizer, length)
    if head == TagEvaluation.head:
        tags = _names(model, config, labels)
        return TagEvaluation({"dev": read_sentences(data, text_column, label_column)}, tags, tokenizer, length)
    there = _labels(config, _names(model, config, labels))
    if glue is not None:
        there = _as_in_glue(there, glue, model)
        return TextEvaluation(read_glue(data, glue, "dev"), there, tokenizer, length, glue)
    table = read_table(data, text=text_column, text_pair=text_pair_column, label=label_column)
    return TextEvaluation({"dev": table}, there, tokenizer, length)


def _names(model: str | Path, config: PreTrainedConfig, labels: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(labels or (config.id2label[i] for i in sorted(config.id2label)))
    if len(names) != config.num_labels:
        raise ConfigError(f"{model} has {config.num_labels} labels, not {len(names)} ({', '.join(names)})")
    return names


def _labels(config: PreTrainedConfig, names: tuple[str, ...]) -> Labels:
    several = config.problem_type == "multi_label_classification"
    return Labels(() if config.num_labels == 1 and not several else names, numbered=names, several=several)


def _as_in_glue(there: Labels, glue: str, model: str | Path) -> Labels:
    """The labels of a model, with what numbers mean in the files of a GLUE task.

    Raises:
        ConfigError: they are not those of the task.
    """
    official = glue_task(glue).labels
    reordered = official if official.regression == there.regression else None
    if reordered is not None and not official.regression:
        reordered = official.reordered(dict(enumerate(there.names)))
    if reordered is None:
        raise ConfigError(
            f"the labels of {model} ({', '.join(there.numbered)}) are not those of {glue} "
            f"({', '.join(official.names)}); if they mean the same, say which is which with --labels"
        )
    return reordered
