"""A classifier from a few examples per label: a head on frozen vectors, in seconds and without PyTorch.

All examples train the head. How good it is, and which vectors it should read, is found by cross-validation: each
example is answered by a head that was fitted without it. The metrics are those, or those on data for evaluation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketbert.calibration import described, in_words
from pocketbert.checkpoints import write_text
from pocketbert.checkpoints.files import new_folder, refuse_existing
from pocketbert.configs import PreTrainedConfig
from pocketbert.data.bad_rows import describe_bad_rows, write_bad_rows
from pocketbert.data.tables import Table
from pocketbert.decisions import without_decisions
from pocketbert.errors import ConfigError
from pocketbert.frozen.encoder import FrozenClassifier, FrozenEncoder, normal
from pocketbert.frozen.linear import LinearHead, fit_head, out_of_sample
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.reports.report import write_few_shot_report
from pocketbert.tasks.classification import TextClassification, TextEvaluation

SMALL = 64
"""Examples per label up to which `finetune` proposes this."""

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FewShotResult:
    """Result of `few_shot`."""

    folder: Path | None
    """The model, ready to be loaded; None where it was to be kept in memory."""
    metrics: dict[str, float]
    """On the evaluation data; without any, of every example by a head that was fitted without it."""
    chosen: str
    """What the head reads, "mean" or "cls"."""
    compared: dict[str, dict[str, float]]
    """Each candidate for the head's input → its metrics in cross-validation."""
    strength: float
    """Of the regularisation, scikit-learn's `C`."""
    seconds: float
    """Duration, including the time to load the encoder."""
    task: str
    """The task of the model."""
    pairs: bool
    """Whether its inputs are pairs of texts."""
    model: FrozenClassifier
    """The model, a `features.Predictor`."""
    config: PreTrainedConfig
    """Its configuration, with the labels."""


def few_shot(options: FinetuneOptions, *, log: Log | None = None) -> FewShotResult:
    """Fit a head to the vectors of an encoder that is not trained, and save both as a model folder.

    Args:
        options: those of `finetune`; what only concerns training has no effect.
        log: prints a line.

    Raises:
        DataError: the data is invalid.
        ConfigError: the task is not text classification, or there is no encoder to start from.
        CheckpointError: the encoder cannot be read, or the output folder is not empty.
    """
    started, log = time.monotonic(), log or _silent
    if options.task != TextClassification.name:
        raise ConfigError(f"--few-shot is for --task {TextClassification.name}")
    if options.model is None:
        raise ConfigError("--few-shot needs a pretrained encoder: leave out --from-scratch")
    if options.output is not None:
        refuse_existing(Path(options.output))
    data = TextClassification(options)
    table = data.train if options.eval_data is not None else _joined(data)
    data.train = table
    encoder = FrozenEncoder(options.model, max_length=options.max_length)
    config, _ = data.configure(without_decisions(encoder.config))
    evaluation = TextEvaluation({"dev": table}, data.labels, encoder.tokenizer, encoder.max_length)
    for name, skipped in (bad := data.bad_rows()):
        log(f"{name}: {describe_bad_rows(skipped)}")
    log(f"{len(table):,} examples; {_described(data)}")

    vectors = _vectors(encoder, table)
    targets, weights = evaluation.gold[id(table)], data.weights(data.labels)
    weights = None if weights is None else weights if weights.ndim == 1 else weights.mean(axis=1)
    assert config.problem_type is not None
    record: dict[str, Any] | None = None
    heads: dict[str, LinearHead] = {}
    compared: dict[str, dict[str, float]] = {}
    answers: dict[str, npt.NDArray[np.float32]] = {}
    settings: dict[str, Any] = {
        "targets": targets, "problem": config.problem_type, "labels": config.num_labels, "weights": weights,
        "seed": options.seed,
    }  # fmt: skip
    for reads, rows in vectors.items():
        heads[reads] = fit_head(rows, **settings)
        logits = out_of_sample(rows, **settings, strength=heads[reads].strength)
        answers[reads] = logits.astype(np.float32)
        compared[reads] = evaluation.score_arrays(answers[reads], targets)
    chosen = min(compared, key=lambda reads: compared[reads]["loss"])
    encoder.reads = chosen
    _log_choice(log, chosen, compared)
    model = FrozenClassifier(encoder, heads[chosen])
    metrics, evaluation.predicted = compared[chosen], {"dev": [*answers[chosen]]}
    if options.eval_data is not None:
        evaluation = data.evaluation(encoder.tokenizer, config, encoder.max_length)
        metrics = evaluation(model)
    head, calibration = heads[chosen], evaluation.calibrate()
    if calibration is not None:
        evaluation.divide(calibration.temperatures)
        thresholds = None if options.thresholds is None else evaluation.fit_thresholds(options.thresholds)
        metrics, head = evaluation.rescored(), head.divided(calibration.temperatures)
        stated = described(calibration, data.labels.names, short=True) | evaluation.levels()
        decisions = {"calibration": stated} | ({} if thresholds is None else {"thresholds": thresholds})
        config = config.replace(extra=config.extra | decisions)
        record = described(calibration, data.labels.names) | {"thresholds": thresholds}
        log(in_words(record, examples="held-out examples"))
    model = FrozenClassifier(encoder, head)
    if (note := evaluation.chance_note(metrics)) is not None:
        log(note)
    if options.baseline and options.eval_data is None:
        raise ConfigError("--baseline with --few-shot needs data that neither is fitted to (--eval-data)")
    baseline = evaluation.score_baseline(table, options.seed) if options.baseline else {}
    if baseline:
        metric = next(iter(baseline))
        log(f"TF-IDF with logistic regression: {metric} {baseline[metric]:.4f}; the model {metrics[metric]:.4f}")
    folder = None if options.output is None else Path(options.output)
    facts = {
        "data": data.facts(), "encoder": str(options.model), "reads": chosen, "strength": heads[chosen].strength,
        "metrics": metrics, "compared": compared, "baseline": baseline, "calibration": record,
    }  # fmt: skip
    if folder is not None:
        with new_folder(folder) as unfinished:
            model.save(unfinished, config)
            evaluation.write(unfinished / "evaluation")
            if bad:
                write_bad_rows(unfinished / "bad-rows.jsonl", bad)
            write_text(
                unfinished / "few-shot.json", json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n"
            )
            write_few_shot_report(unfinished, folder.name, held_out=options.eval_data is not None)
    return FewShotResult(
        folder=folder, metrics=metrics, chosen=chosen, compared=compared, strength=heads[chosen].strength,
        seconds=time.monotonic() - started, task=data.name, pairs=data.pairs, model=model, config=config,
    )  # fmt: skip


def proposal(data: TextClassification) -> str | None:
    """Return a line that proposes --few-shot for a small table."""
    if data.labels.regression:
        return None
    per_label = len(data.train) / len(data.labels.names)
    if per_label > SMALL:
        return None
    few = f"{per_label:.0f} examples per label is few-shot data"
    return f"{few}: --few-shot fits a linear head to frozen vectors in seconds, on all examples"


def _joined(data: TextClassification) -> Table:
    """The training examples with those that were split off to evaluate a model, in the order of the file."""
    held = data.sets["dev"]
    examples = sorted([*data.train.examples, *held.examples], key=lambda example: example.line)
    weights = None
    if data.train.weights is not None and held.weights is not None:
        lines = [example.line for example in (*data.train.examples, *held.examples)]
        by_line = dict(zip(lines, (*data.train.weights, *held.weights), strict=True))
        weights = tuple(by_line[example.line] for example in examples)
    return replace(data.train, examples=examples, weights=weights)


def _vectors(encoder: FrozenEncoder, table: Table) -> dict[str, npt.NDArray[np.float32]]:
    """What a head could read → [examples, width], from one pass of the encoder."""
    texts = [example.text for example in table.examples]
    seconds = None
    if table.columns.text_pair is not None:
        seconds = [example.text_pair or "" for example in table.examples]
    return {reads: normal(vectors) for reads, vectors in encoder.both(texts, seconds).items()}


def _described(data: TextClassification) -> str:
    names = data.labels.names
    return f"{len(names)} labels: {', '.join(names[:10])}" if names else "numbers to predict (regression)"


def _log_choice(log: Log, chosen: str, compared: dict[str, dict[str, float]]) -> None:
    titles = {"mean": "the mean of the tokens", "cls": "the first token"}
    for reads, metrics in compared.items():
        shown = ", ".join(f"{name} {value:.4f}" for name, value in list(metrics.items())[:3])
        why = ": chosen for its lower loss" if reads == chosen and len(compared) > 1 else ""
        log(f"linear head on {titles[reads]}, cross-validated: {shown}{why}")


def _silent(_: Any) -> None:
    """Log nothing."""
