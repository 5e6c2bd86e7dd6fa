"""Evaluation of a model on labelled data, on the engine, in PyTorch, or in the format of an exported file."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pocketbert
from pocketbert.bundles import local_folder
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.data.bad_rows import describe_bad_rows, write_bad_rows
from pocketbert.data.choices import read_choices
from pocketbert.data.glue import glue_task, read_glue
from pocketbert.data.labels import Labels, tidied
from pocketbert.data.memory import Memory
from pocketbert.data.squad import read_squad
from pocketbert.data.tables import read_table
from pocketbert.data.tagged import read_tagged
from pocketbert.decisions import stated_thresholds
from pocketbert.errors import ConfigError, require
from pocketbert.features import Predictor, fit
from pocketbert.machine import processor_name
from pocketbert.tasks import TASKS, find_task, foreign_options
from pocketbert.tasks.choices import ChoiceEvaluation
from pocketbert.tasks.classification import TextEvaluation
from pocketbert.tasks.evaluate_options import EvaluateOptions
from pocketbert.tasks.evaluation import Advance, Evaluation
from pocketbert.tasks.questions import AnswerEvaluation, QuestionAnswering
from pocketbert.tasks.submission import submit
from pocketbert.tasks.tagging import TagEvaluation, with_merged_tags
from pocketbert.tokenization import AutoTokenizer


@dataclass(frozen=True)
class EvaluateResult:
    """Result of an evaluation."""

    metrics: dict[str, float]
    """The main metric first."""
    missing: tuple[str, ...] = ()
    """Files that the submission still lacks."""
    notes: tuple[str, ...] = ()
    """Lines about skipped rows and truncated examples, if there were any."""


def evaluate(options: EvaluateOptions, *, advance: Advance | None = None, argv: Sequence[str] = ()) -> EvaluateResult:
    """Evaluate a model on labelled data of its task.

    It runs on the engine, or with a `device` in PyTorch; an exported file runs in the library of its format. With an
    `output` folder, predictions and a report are written to it.

    Args:
        options: model, data and outputs.
        advance: called with the number of finished examples, and their fraction of all examples.
        argv: the command, for the report.

    Raises:
        DataError: the data is invalid, or has labels that the model does not have.
        ConfigError: the model's labels differ from the task's, or an option does not apply to the task.
        CheckpointError: the model cannot be read, or has no head.
        MissingExtraError: `device` needs the extra `train`, an exported file the extra of its format.
    """
    from pocketbert.exporters.load import find_export, load_export, model_folder

    if options.device is not None:
        require("train")
    model, max_length = str(options.model), options.max_length
    file, exported = find_export(options.model), None
    if file is not None:
        if options.device is not None:
            raise ConfigError(f"--device runs PyTorch, which cannot run {file}: leave it out")
        model, exported = str(model_folder(file)), load_export(file)
        if exported.max_tokens is not None:
            max_length = min(max_length or exported.max_tokens, exported.max_tokens)
    evaluation = read_evaluation(
        model,
        options.data,
        glue=options.glue,
        text_column=options.text_column,
        text_pair_column=options.text_pair_column,
        label_column=options.label_column,
        labels=options.labels,
        max_length=max_length,
        skip_bad=options.skip_bad,
        merge_labels=options.merge_labels,
    )
    evaluation.use(options.metric)
    bad = [(rows.path.name, rows.bad) for rows in evaluation.sets.values() if rows.bad]
    predictor = exported or _load_predictor(model, evaluation.head, options.device)
    started = time.perf_counter()
    metrics = evaluation(predictor, advance)
    seconds = time.perf_counter() - started
    if isinstance(options.metric, str) and options.metric in metrics:
        metrics = {options.metric: metrics[options.metric], **metrics}  # first, whichever it is
    notes = [f"{name}: {describe_bad_rows(rows)}" for name, rows in bad]
    notes += [evaluation.cut_note] if evaluation.cut_note else []
    if options.output is not None:
        evaluation.write(Path(options.output))
        _write_report(options, evaluation, model, seconds, notes, argv)
        if bad:
            write_bad_rows(Path(options.output) / "bad-rows.jsonl", bad)
    missing: list[str] = []
    if options.submission is not None:
        missing = submit(evaluation, predictor, options.data, options.submission, advance)
    return EvaluateResult(metrics, tuple(missing), tuple(notes))


def _write_report(
    options: EvaluateOptions,
    evaluation: Evaluation[Any, Any],
    model: str,
    seconds: float,
    notes: Sequence[str],
    argv: Sequence[str],
) -> None:
    """Write the report beside the predictions."""
    from pocketbert.reports.report import write_evaluation_report

    total = sum(map(len, evaluation.sets.values()))
    facts = {
        "model": str(options.model),
        **_size(Path(options.model) if Path(options.model).is_file() else local_folder(model)),
        **{f"{name} data": f"{rows.path.name}, SHA-256 {rows.sha256()}" for name, rows in evaluation.sets.items()},
        "speed": f"{total:,} examples in {seconds:.2f} s, {total / max(seconds, 1e-9):,.0f} a second",
        "runs on": "the engine, or the library of the file" if options.device is None else f"PyTorch, {options.device}",
        "processor": f"{processor_name()}, {os.cpu_count()} cores",
        "PocketBERT": pocketbert.__version__,
        **({"notes": "; ".join(notes)} if notes else {}),
    }
    write_evaluation_report(Path(options.output or ""), str(options.model), facts, argv, explained=model)


def _size(place: Path | None) -> dict[str, str]:
    """Return the size of an exported file, or of the weights in a folder."""
    if place is None:
        return {}
    files = [place] if place.is_file() else [*place.glob("*.safetensors"), *place.glob("pytorch_model*.bin")]
    return {"size": f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"} if files else {}


def _load_predictor(model: str, head: str, device: str | None) -> Predictor:
    """Load a model folder on the engine, or in PyTorch on a device."""
    if device is None:
        from pocketbert.runtime.engine import Engine

        return Engine.from_pretrained(model, head)
    from pocketbert.models.auto import load_trained
    from pocketbert.models.device import choose_device
    from pocketbert.models.predict import TorchPredictor

    return TorchPredictor(load_trained(model, head).to(choose_device(device)))


def read_evaluation(
    model: str | Path,
    data: str | Path | Memory,
    *,
    glue: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    max_length: int | None = None,
    skip_bad: bool = False,
    merge_labels: bool = False,
) -> Evaluation[Any, Any]:
    """Return the evaluation of a model on data of its task.

    The task follows from the model's head; a model without a known head is taken for a text classifier.

    Args:
        model: a folder or a name on the hub.
        data: a file in a layout of the task, rows in memory, or with `glue` a folder.
        glue: the task whose official dev set to use.
        text_column: see `EvaluateOptions`, as for the following.
        text_pair_column: column of the second text.
        label_column: column of the label.
        labels: names of the model's labels.
        max_length: maximum tokens per input.
        skip_bad: skip rows that cannot be used.
        merge_labels: take labels that differ from the model's in case or spaces alone for these.

    Raises:
        DataError: the data is invalid, or has labels that the model does not have.
        ConfigError: the model's labels differ from the task's, or an option does not apply to the task.
    """
    config = AutoConfig.from_pretrained(model)
    head = config.tuned_for or TextEvaluation.head
    tokenizer = AutoTokenizer.from_pretrained(model)
    usual = QuestionAnswering.usual_length if head == AnswerEvaluation.head else config.max_tokens
    length = fit(tokenizer, min(max_length or usual, config.max_tokens))
    task = next(name for name in TASKS if find_task(name).head == head)
    given = {
        "glue": glue, "text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column,
        "labels": labels, "merge_labels": merge_labels or None,
    }  # fmt: skip
    if wrong := [name for name in foreign_options(task) if given[name] is not None]:
        raise ConfigError(f"--{wrong[0].replace('_', '-')} does not apply to {model}, a …{head}; leave it out")
    if head == AnswerEvaluation.head:
        return AnswerEvaluation({"dev": read_squad(data, skip_bad=skip_bad)}, tokenizer, length)
    if head == ChoiceEvaluation.head:
        return ChoiceEvaluation({"dev": read_choices(data, skip_bad=skip_bad)}, tokenizer, length)
    if head == TagEvaluation.head:
        names = _names(model, config, labels)
        rows = read_tagged(data, text_column, label_column, labels, known=names, skip_bad=skip_bad)
        rows = with_merged_tags(rows, names, merge=merge_labels)
        return TagEvaluation({"dev": rows}, names, tokenizer, length)
    own = _labels(config, _names(model, config, labels))
    thresholds = stated_thresholds(config) if own.several else None
    if glue is not None:
        own = _glue_labels(own, glue, model)
        assert not isinstance(data, Memory)
        return TextEvaluation(read_glue(data, glue, "dev"), own, tokenizer, length, glue)
    table = read_table(data, text=text_column, text_pair=text_pair_column, label=label_column, skip_bad=skip_bad)
    table = own.named(tidied(table, own.names, merge=merge_labels))
    sets = {"dev": own.without_unusable(table) if skip_bad else table}
    return TextEvaluation(sets, own, tokenizer, length, thresholds=thresholds)


def _names(model: str | Path, config: PreTrainedConfig, labels: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(labels or (config.id2label[i] for i in sorted(config.id2label)))
    if len(names) != config.num_labels:
        raise ConfigError(f"{model} has {config.num_labels} labels, not {len(names)} ({', '.join(names)})")
    return names


def _labels(config: PreTrainedConfig, names: tuple[str, ...]) -> Labels:
    several = config.problem_type == "multi_label_classification"
    return Labels(() if config.num_labels == 1 and not several else names, numbered=names, several=several)


def _glue_labels(own: Labels, glue: str, model: str | Path) -> Labels:
    """Return the labels of a GLUE task in the order of a model's labels.

    Raises:
        ConfigError: the model has other labels.
    """
    official = glue_task(glue).labels
    reordered = official if official.regression == own.regression else None
    if reordered is not None and not official.regression:
        reordered = official.reordered(dict(enumerate(own.names)))
    if reordered is None:
        raise ConfigError(
            f"the labels of {model} ({', '.join(own.numbered)}) are not those of {glue} "
            f"({', '.join(official.names)}); if they mean the same, give the data's names in the model's order with "
            f"--labels"
        )
    return reordered
