"""A model folder with ONNX files, laid out as transformers.js and optimum read it, and proved before it appears."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from pocketbert.checkpoints import read_tensors
from pocketbert.checkpoints.files import atomic_write, new_folder, refuse_existing
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.errors import CheckpointError, InputError, require
from pocketbert.export.onnx_files import FOLDER, OnnxPredictor
from pocketbert.export.onnx_graph import onnx_graph
from pocketbert.export.proof import SENTENCES, Difference, compare
from pocketbert.features import Features, Predictor, encode_texts, fit
from pocketbert.runtime.balance import balance
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.lower import head_of
from pocketbert.runtime.plan import Attention, LayerNorm, Linear, Plan, Rows, Stage, Step
from pocketbert.runtime.quantize import LARGEST_LOSS, plan_of, quantize
from pocketbert.tokenization import AutoTokenizer, BertTokenizer

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FILES = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_quantized.onnx"}  # as transformers.js has them
LIMITS = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.5}  # of `Difference.relative`: beyond, something is wrong
Metrics = Mapping[str, float]
Measure = Callable[[Predictor], Metrics]


@dataclass(frozen=True)
class OnnxExport:
    """One file, and how far it is from the model.

    Attributes:
        path: of the file.
        precision: of its matrices.
        size: in bytes.
        differences: from the model in fp32, by output.
        metrics: on labelled data, of the model in fp32 and of the file; empty if nothing was measured.
    """

    path: Path
    precision: Precision
    size: int
    differences: Mapping[str, Difference]
    metrics: Mapping[str, Metrics]


def export_onnx(
    model: str | Path,
    out: str | Path,
    *,
    precisions: Sequence[Precision] = ("fp32",),
    texts: Sequence[str] = SENTENCES,
    measure: Measure | None = None,
    force: bool = False,
    revision: str | None = None,
) -> list[OnnxExport]:
    """Write a model, for the task it was made for, to the folder `out` as ONNX; whole and proved, or not at all.

    Beside the files are the configuration with the labels, and the tokenizer. Each file is run as soon as it is
    written, and compared with the model.

    Args:
        model: a folder or a name on the hub; in int8, its int8 weights are taken.
        out: a folder that does not exist, or is empty.
        precisions: a file for each. "fp16" halves the file alone: engines widen the weights when they load them.
        texts: what the files are run on.
        measure: gives the metrics of a predictor; the model and each file are measured.
        force: accept a loss of more than `quantize.LARGEST_LOSS` of the first metric.
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: the model cannot be read, or there is no export for its head; `out` is in use, or cannot be
            written.
        InputError: what was written does not say what the model says.
        MissingExtraError: onnx or ONNX Runtime is not installed.
    """
    require("export")
    out = Path(out)
    refuse_existing(out)
    if not texts:
        raise InputError("there is no text to try the export on: give at least one")
    config = AutoConfig.from_pretrained(model, revision=revision)
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    try:
        plan = plan_of(config, read_tensors(model, revision=revision), head_of(config))
    except CheckpointError as error:
        raise CheckpointError(f"{model} {error}") from None
    whole = in_fp32(plan)
    for name, tensor in whole.tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{model} is damaged: {name} holds what is no number")
    reference = Engine(whole)
    inputs = list(encode_texts(tokenizer, list(texts), max_length=fit(tokenizer, config.max_position_embeddings)))
    proof = _Proof(reference, inputs, reference(inputs), measure, force)
    with new_folder(out) as folder:
        _describe(config, tokenizer, folder)
        done = []
        for precision in dict.fromkeys(precisions):
            chosen = whole if precision != "int8" else plan if config.quantized else quantize(balance(whole))
            made = proof(_write(chosen, precision, config, folder / FOLDER / FILES[precision]), precision)
            done.append(replace(made, path=out / FOLDER / FILES[precision]))
    return done


def in_fp32(plan: Plan) -> Plan:
    """The same with every int8 matrix as the numbers that it stands for."""
    tensors = dict(plan.tensors)

    def wide(step: Step) -> Step:
        if isinstance(step, LayerNorm) or step.scales is None:
            return step
        if isinstance(step, Linear) and step.exact is not None:
            return replace(step, weight=step.exact, scales=None, exact=None)
        name = step.weight if isinstance(step, Linear) else step.table
        tensors[name] = plan.tensors[name] * plan.tensors[step.scales][:, None]
        return replace(step, scales=None)

    def stage_of(stage: Stage) -> Stage:
        if isinstance(stage, Rows):
            return Rows(tuple(wide(step) for step in stage.steps))
        return replace(stage, bfloat16=False) if isinstance(stage, Attention) else stage

    return replace(plan, stages=tuple(map(stage_of, plan.stages)), tensors=tensors)


@dataclass(frozen=True)
class _Proof:
    """Runs a file, and refuses it if it is not what it should be."""

    reference: Predictor
    inputs: Sequence[Features]
    expected: Sequence[Mapping[str, np.ndarray]]
    measure: Measure | None
    force: bool

    def __call__(self, path: Path, precision: Precision) -> OnnxExport:
        exported = OnnxPredictor(path)
        differences = compare(self.expected, exported(self.inputs))
        for name, one in differences.items():
            if not one.relative <= LIMITS[precision]:
                raise InputError(
                    f"the export in {precision} is wrong: its {name} differs from the model's by {one.largest:.3g} "
                    f"({one.relative:.2g} of its size), so nothing was written"
                )
        metrics: dict[str, Metrics] = {}
        if self.measure is not None:
            metrics = {"model": self.measure(self.reference), "export": self.measure(exported)}
            if not self.force:
                _refuse_loss(metrics, precision)
        return OnnxExport(path, precision, path.stat().st_size, differences, metrics)


def _refuse_loss(metrics: Mapping[str, Metrics], precision: str) -> None:
    before, after = metrics["model"], metrics["export"]
    name = next(iter(before))
    if not before[name] - after[name] <= LARGEST_LOSS:  # nan is refused as well
        raise InputError(
            f"{name} falls from {before[name]:.4f} to {after[name]:.4f} in the export in {precision}, by more than "
            f"{100 * LARGEST_LOSS:.0f} point, so nothing was written: leave {precision} out, or --force it"
        )


def _write(plan: Plan, precision: Precision, config: PreTrainedConfig, path: Path) -> Path:
    choices = head_of(config) == "ForMultipleChoice"
    graph = onnx_graph(plan, half=precision == "fp16", choices=choices)
    graph.metadata_props.add(key="precision", value=precision)
    with atomic_write(path) as file:
        file.write(graph.SerializeToString())
    return path


def _describe(config: PreTrainedConfig, tokenizer: BertTokenizer, folder: Path) -> None:
    """The configuration and the tokenizer, without a word about how the weights were stored."""
    extra = {name: value for name, value in config.extra.items() if name != "quantization_config"}
    config.replace(extra=extra).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
