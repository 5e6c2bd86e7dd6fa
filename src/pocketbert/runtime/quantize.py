"""Weights in int8: one scale an output channel, symmetric around zero; activations follow at run time, row by row.

A quantised folder is laid out as every model's. In `model.safetensors` a matrix in int8 has its official name and
shape, and its scales [C'] the same name with `_scale` behind; so has the table of words, a scale a word. Everything
else is there in fp32. What `lower` folds into such a matrix only scales its rows, so it goes into the scales, and no
number is ever rounded twice. Factors by which `balance` has multiplied the columns of int8 matrices are under the name
of their norm with `.balance` behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import read_tensors, resolve, write_tensors
from pocketbert.checkpoints.files import new_folder, refuse_existing
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.errors import CheckpointError, InputError
from pocketbert.runtime.balance import apply_factors, find_factors, spans, widened
from pocketbert.runtime.lower import BALANCE, PREFIXES, head_of, lower
from pocketbert.runtime.plan import Attention, LayerNorm, Linear, Lookup, Pick, Plan, Rows, Step

SMALLEST = 4096  # weights; below, as in a classifier, int8 saves nothing
TRANSPOSED = {"cls.predictions.dense.weight"}  # is [in, out] in MobileBERT's files
LARGEST_LOSS = 0.01  # of the deciding metric
Metrics = Mapping[str, float]


# ── plans ──


def quantize(plan: Plan, smallest: int = SMALLEST) -> Plan:
    """The plan with its `matrices` in int8, and attention in bfloat16; what is in int8 already stays as it is.

    Steps that read a residual stream keep their weights in fp32 besides, for what stands out in it.
    """
    tensors, chosen = dict(plan.tensors), matrices(plan, smallest)
    streams = _streams(plan)

    def scales_of(name: str, weight: str) -> str:
        tensors[name], tensors[f"{name}.scales"] = quantize_rows(plan.tensors[weight])
        return f"{name}.scales"

    def quantized(step: Step) -> Step:
        if isinstance(step, LayerNorm):
            return step
        name = _matrix(step)
        if name in chosen:
            return replace(step, scales=scales_of(name, name))
        large = plan.tensors[name].size >= smallest
        if isinstance(step, Linear) and large and step.source.buffer in streams and step.scales is None:
            return replace(step, weight=f"{name}.int8", scales=scales_of(f"{name}.int8", name), exact=name)
        return step

    stages = tuple(
        Rows(tuple(quantized(step) for step in stage.steps))
        if isinstance(stage, Rows)
        else replace(stage, bfloat16=True)
        if isinstance(stage, Attention)
        else stage
        for stage in plan.stages
    )
    return replace(plan, stages=stages, tensors=tensors)


def matrices(plan: Plan, smallest: int = SMALLEST) -> set[str]:
    """What is to be in int8: the table of words, and the weights of linear steps but for those of `kept`."""
    tables = {step.table for step in _steps(plan) if isinstance(step, Lookup) and step.index.endswith("word")}
    large = {name for name in tables if plan.tensors[name].size >= smallest}
    found = large | {step.weight for step in _linears(plan)}
    return {name for name in found - kept(plan, smallest).keys() if plan.tensors[name].dtype != np.int8}


def _matrix(step: Lookup | Linear) -> str:
    return step.table if isinstance(step, Lookup) else step.weight


def kept(plan: Plan, smallest: int = SMALLEST) -> dict[str, str]:
    """The linear steps that keep fp32, by the names of their weights, each with the reason."""
    streams, reasons = _streams(plan), {}
    for step in _linears(plan):
        if step.scales is None and plan.tensors[step.weight].size < smallest:
            reasons[step.weight] = f"is small: fewer than {smallest:,} weights"
        elif step.exact is not None or (step.scales is None and step.source.buffer in streams):
            reasons[step.exact or step.weight] = (
                "reads the residual stream, which no norm keeps in range: what stands out there is multiplied in fp32"
            )
    return reasons


def _streams(plan: Plan) -> set[str]:
    """Buffers to which all layers add and that nothing normalises, as MobileBERT's.

    In the published one a single feature reaches 2.5e7: int8 by the largest value of a row would erase all others.
    """
    added = {step.target.buffer for step in _linears(plan) if step.residual is not None}
    anew = {step.target.buffer for step in _linears(plan) if step.residual is None}
    normed = {step.target.buffer for step in _steps(plan) if isinstance(step, LayerNorm)}
    streams = added - anew - normed
    copies = {
        stage.target.buffer for stage in plan.stages if isinstance(stage, Pick) and stage.source.buffer in streams
    }
    return streams | copies


def _steps(plan: Plan) -> Iterator[Step]:
    return (step for stage in plan.stages if isinstance(stage, Rows) for step in stage.steps)


def _linears(plan: Plan) -> list[Linear]:
    return [step for step in _steps(plan) if isinstance(step, Linear)]


def quantize_rows(weight: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """[C', C] to int8 of the same shape and scales [C'], with weight ≈ int8 · scale."""
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale[:, 0]


# ── folders ──


def plan_of(config: PreTrainedConfig, tensors: Mapping[str, np.ndarray], head: str) -> Plan:
    """The plan of a model's file, in int8 where the file is; else as `lower` makes it, and it raises as that does."""
    prefix, balanced = PREFIXES[config.model_type], [name for name in tensors if name.endswith(BALANCE)]
    factors = {f"{name.removeprefix(prefix).removesuffix(BALANCE)}.weight": tensors[name] for name in balanced}
    plan = apply_factors(lower(config, tensors, head), factors)
    # A folder of an older version holds the table of words in fp32.
    return quantize(plan) if config.quantized else plan


@dataclass(frozen=True)
class Quantized:
    """What `quantize_folder` wrote.

    Attributes:
        folder: where.
        int8: how many weights are in int8.
        fp32: how many numbers are not.
        kept: the linear steps in fp32, each with the reason.
        metrics: {"fp32": …, "int8": …}, each by name, the deciding one first; empty if nothing was measured.
    """

    folder: Path
    int8: int
    fp32: int
    kept: Mapping[str, str]
    metrics: Mapping[str, Metrics]


def quantize_folder(
    model: str | Path,
    out: str | Path,
    *,
    measure: Callable[[str | Path], Metrics] | None = None,
    force: bool = False,
    revision: str | None = None,
) -> Quantized:
    """Write the model of a folder or hub name with int8 weights to the folder `out`, whole or not at all.

    `Engine.from_pretrained` reads it as it is. A model that is in int8 already is copied without a change.

    Args:
        model: the original.
        out: a folder that does not exist, or is empty.
        measure: gives the metrics of a folder; the original and the result are measured, and both written into
            `config.json`.
        force: accept a loss of more than `LARGEST_LOSS` of the first metric.
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: the model cannot be read, or is damaged; `out` is in use, or cannot be written.
        InputError: int8 costs too much, or nothing can be compared because the model is in int8 already.
    """
    out = Path(out)
    refuse_existing(out)
    config = AutoConfig.from_pretrained(model, revision=revision)
    tensors = read_tensors(model, revision=revision)
    if config.quantized and measure is not None:
        raise InputError(f"{model} is in int8 already: there is nothing to compare it with")
    try:
        plans = _plans(config, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{model} {error}") from None
    spared = {name: reason for plan in plans for name, reason in kept(plan).items()}
    if not config.quantized:
        if config.tie_word_embeddings:  # then some files hold the table of words twice
            tensors.pop("cls.predictions.decoder.weight", None)
        chosen = {name for plan in plans for matrix in matrices(plan) for name in _official(matrix)}
        tensors = _quantized(tensors, plans[0], chosen, PREFIXES[config.model_type], model)
        how = {"quant_method": "pocketbert", "bits": 8, "fp32": spared}
        config = config.replace(extra=config.extra | {"quantization_config": how})

    metrics: dict[str, Metrics] = {}
    with new_folder(out) as folder:
        _copy_companions(resolve(model, files=("*.json", "*.txt"), revision=revision), folder)
        config.save_pretrained(folder)
        write_tensors(folder / "model.safetensors", tensors)
        if measure is not None:
            metrics = {"fp32": measure(model), "int8": measure(folder)}
            if not force:
                _refuse_loss(metrics["fp32"], metrics["int8"])
            how = config.extra["quantization_config"] | {"metrics": metrics}
            config.replace(extra=config.extra | {"quantization_config": how}).save_pretrained(folder)
    int8 = sum(tensor.size for tensor in tensors.values() if tensor.dtype == np.int8)
    return Quantized(out, int8, sum(tensor.size for tensor in tensors.values()) - int8, spared, metrics)


def _plans(config: PreTrainedConfig, tensors: Mapping[str, np.ndarray]) -> list[Plan]:
    """Of the encoder, and of the head if the file has what it takes."""
    plans, head = [plan_of(config, tensors, "Model")], head_of(config)
    if head != "Model":
        with contextlib.suppress(CheckpointError):
            plans.append(plan_of(config, tensors, head))
    return plans


def _official(weight: str) -> list[str]:
    """The tensors of the file that a step's weight is made of by scaling and stacking rows."""
    if weight.endswith(".qkv.weight"):
        return [weight.replace("qkv", f"attention.self.{part}") for part in ("query", "key", "value")]
    return [weight]


def _quantized(
    tensors: Mapping[str, np.ndarray], encoder: Plan, chosen: set[str], prefix: str, source: object
) -> dict[str, np.ndarray]:
    """The contents of the new file."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{source} is damaged: {name} holds what is no number")
    factors = find_factors(encoder)
    columns = {
        name: (factors[span.norm.weight], step.groups)
        for span in spans(encoder)
        for step in span.readers
        for name in _official(step.weight)
        if span.norm.weight in factors
    }
    made: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix(prefix)
        made[name] = tensor
        if plain in chosen:
            rows = tensor.T if plain in TRANSPOSED else tensor.reshape(len(tensor), -1)
            rows = widened(rows, *columns[plain]) if plain in columns else rows
            whole, made[f"{name}_scale"] = quantize_rows(rows)
            made[name] = whole.T if plain in TRANSPOSED else whole.reshape(tensor.shape)
        if plain in factors:
            made[f"{name.removesuffix('.weight')}{BALANCE}"] = factors[plain]
    return made


def _refuse_loss(before: Metrics, after: Metrics) -> None:
    name = next(iter(before))
    if not before[name] - after[name] <= LARGEST_LOSS:  # nan is refused as well
        raise InputError(
            f"{name} falls from {before[name]:.4f} to {after[name]:.4f} in int8, by more than {100 * LARGEST_LOSS:.0f} "
            "point, so nothing was written: take the original, or --force it"
        )


def _copy_companions(source: Path, folder: Path) -> None:
    """The files of the tokenizer and of the training: all that is neither configuration nor weights."""
    for path in sorted(source.iterdir()):
        weights = path.name.endswith(".index.json")  # the list of shards
        if path.suffix in (".json", ".txt") and path.is_file() and path.name != "config.json" and not weights:
            (folder / path.name).write_bytes(path.read_bytes())
