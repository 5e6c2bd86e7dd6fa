"""Model folders with int8 weights.

A quantised folder is laid out as every model's. `checkpoints.quantized` describes the tensors of its
`model.safetensors`; those that are not in int8 are in fp32. The table of words has one scale per word. A factor that
lowering folds into such a matrix only scales its rows, so it goes into the scales, and no number is ever rounded twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketbert.checkpoints import read_tensors, resolve, write_tensors
from pocketbert.checkpoints.files import new_folder, refuse_existing
from pocketbert.checkpoints.quantized import SCALE, SMOOTHED, SMOOTHING, stored_transposed
from pocketbert.checkpoints.shared import leave_out
from pocketbert.configs import AutoConfig
from pocketbert.errors import CheckpointError, InputError
from pocketbert.families import family_of
from pocketbert.families.config import PreTrainedConfig
from pocketbert.families.family import Family
from pocketbert.metrics import Metrics, refuse_loss
from pocketbert.runtime.load import load_plan
from pocketbert.runtime.plan import Plan
from pocketbert.runtime.quantize import matrices, quantize_rows, unquantized_matrices
from pocketbert.runtime.quantize_options import QuantizeOptions
from pocketbert.runtime.smoothing import find_factors, norm_scopes, scale_columns
from pocketbert.sentences.declared import read_declared


@dataclass(frozen=True)
class QuantizeResult:
    """A model folder with int8 weights.

    Attributes:
        folder: the folder.
        int8: number of int8 weights.
        fp32: number of weights in fp32.
        unquantized: name of each matrix in fp32 → the reason.
        metrics: {"fp32": …, "int8": …}, each with the main metric first; empty without an evaluation.
    """

    folder: Path
    int8: int
    fp32: int
    unquantized: Mapping[str, str]
    metrics: Mapping[str, Metrics]


def quantize(options: QuantizeOptions, *, advance: Callable[[int, float | None], None] | None = None) -> QuantizeResult:
    """Write a model with int8 weights to a new folder, complete or not at all; evaluate both models on `eval_data`.

    Args:
        options: model, output and data.
        advance: called during evaluation with the number of finished examples, and their fraction of all examples.

    Raises:
        CheckpointError: the model cannot be read, or is damaged; the output folder is in use, or cannot be written.
        ConfigError: an option does not fit the model's task.
        DataError: the labelled data cannot be used.
        InputError: int8 costs too much, or the model is in int8 already and cannot be compared with an original.
    """
    measure = None
    if options.eval_data is not None:
        from pocketbert.runtime.engine import Engine
        from pocketbert.tasks.evaluate import read_evaluation

        evaluation = read_evaluation(options.model, options.eval_data, glue=options.glue)

        def measure(folder: str | Path) -> Metrics:
            return evaluation(Engine.from_pretrained(folder, evaluation.head), advance)

    return quantize_folder(options.model, options.output, measure=measure, share=options.share, force=options.force)


def quantize_folder(
    model: str | Path,
    out: str | Path,
    *,
    measure: Callable[[str | Path], Metrics] | None = None,
    share: bool = False,
    force: bool = False,
    revision: str | None = None,
) -> QuantizeResult:
    """Write the model of a folder or hub name with int8 weights to the folder `out`, whole or not at all.

    `Engine.from_pretrained` reads it as it is. A model that is in int8 already is copied without a change.

    Args:
        model: the original.
        out: a folder that does not exist, or is empty.
        measure: gives the metrics of a folder; the original and the result are measured, and both written into
            `config.json`.
        share: leave out the tensors that a bundled model has (`checkpoints.shared`).
        force: accept a loss of more than `LARGEST_LOSS` of the first metric.
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: the model cannot be read, or is damaged; `out` is in use, or cannot be written; no bundled
            model has any of its tensors, with `share`.
        InputError: int8 costs too much, or nothing can be compared because the model is in int8 already.
    """
    out = Path(out)
    refuse_existing(out)
    declared = read_declared(model, revision=revision)
    encoder = declared.encoder
    config = AutoConfig.from_pretrained(encoder, revision=revision)
    family, tensors = family_of(config), read_tensors(encoder, revision=revision)
    if config.quantized and measure is not None:
        raise InputError(f"{model} is already in int8: there is no original to compare it with")
    try:
        plans = _plans(config, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{model} {error}") from None
    unquantized = {name: reason for plan in plans for name, reason in unquantized_matrices(plan).items()}
    if not config.quantized:
        if config.tie_word_embeddings:  # then some files hold the table of words twice
            for name in family.tied[:1]:
                tensors.pop(name, None)
        chosen = {name for plan in plans for matrix in matrices(plan) for name in _official(plan, matrix)}
        factors = find_factors(plans[0])
        tensors, smoothed = _quantized(tensors, plans[0], factors, chosen, family, model)
        how = {"quant_method": "pocketbert", "bits": 8, "fp32": unquantized, SMOOTHED: smoothed}
        config = config.replace(extra=config.extra | {"quantization_config": how})

    metrics: dict[str, Metrics] = {}
    with new_folder(out) as folder:
        _copy_companions(resolve(encoder, files=("*.json", "*.txt"), revision=revision), folder)
        declared.write(folder)
        config.save_pretrained(folder)
        own, metadata = leave_out(tensors, SCALE) if share else (tensors, None)
        write_tensors(folder / "model.safetensors", own, metadata)
        if measure is not None:
            metrics = {"fp32": measure(model), "int8": measure(folder)}
            if not force:
                refuse_loss(metrics["fp32"], metrics["int8"], "in int8", "keep the original")
            how = config.extra["quantization_config"] | {"metrics": metrics}
            config.replace(extra=config.extra | {"quantization_config": how}).save_pretrained(folder)
    int8 = sum(tensor.size for tensor in tensors.values() if tensor.dtype == np.int8)
    return QuantizeResult(out, int8, sum(tensor.size for tensor in tensors.values()) - int8, unquantized, metrics)


def _plans(config: PreTrainedConfig, tensors: Mapping[str, np.ndarray]) -> list[Plan]:
    """The plan of the encoder, and that with the head if the file has all of its tensors."""
    plans, head = [load_plan(config, tensors, "Model")], config.saved_head
    if head != "Model":
        with contextlib.suppress(CheckpointError):
            plans.append(load_plan(config, tensors, head))
    return plans


def _official(plan: Plan, matrix: str) -> tuple[str, ...]:
    """The tensors of the file that a matrix of a plan is made of by scaling and stacking rows."""
    return plan.stacked.get(matrix, (matrix,))


def _quantized(
    tensors: Mapping[str, np.ndarray],
    encoder: Plan,
    factors: Mapping[str, np.ndarray],
    chosen: set[str],
    family: Family,
    source: object,
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The tensors of the new file, and by norm the matrices that its smoothing factors scale."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{source} is damaged: {name} contains NaN or infinity")
    columns = {
        name: (scope.norm.weight, step.groups)
        for scope in norm_scopes(encoder)
        for step in scope.readers
        for name in _official(encoder, step.weight)
        if scope.norm.weight in factors
    }
    transposed = stored_transposed(family)
    written: dict[str, np.ndarray] = {}
    smoothed: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        plain = family.short(name)
        written[name] = tensor
        if plain in chosen:
            rows = tensor.T if plain in transposed else tensor.reshape(len(tensor), -1)
            if plain in columns:
                norm, groups = columns[plain]
                rows = scale_columns(rows, factors[norm], groups)
                full = name.removesuffix(plain) + norm.removesuffix(".weight")
                smoothed.setdefault(full, []).append(name)
            whole, written[f"{name}{SCALE}"] = quantize_rows(rows)
            written[name] = whole.T if plain in transposed else whole.reshape(tensor.shape)
        if plain in factors:
            written[f"{name.removesuffix('.weight')}{SMOOTHING}"] = factors[plain]
    return written, smoothed


def _copy_companions(source: Path, folder: Path) -> None:
    """The files of the tokenizer and of the training: all that is neither configuration nor weights."""
    for path in sorted(source.iterdir()):
        weights = path.name.endswith(".index.json")  # the list of shards
        if path.suffix in (".json", ".txt") and path.is_file() and path.name != "config.json" and not weights:
            (folder / path.name).write_bytes(path.read_bytes())
