"""A model folder with ONNX files, laid out as transformers.js and optimum read it, and proved before it appears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from pocketbert.checkpoints.files import atomic_write, new_folder
from pocketbert.errors import require
from pocketbert.exporters.load import ONNX_FOLDER
from pocketbert.exporters.onnx.graph import OPSET, check_opset, onnx_graph
from pocketbert.exporters.onnx.passes import in_int8, level, rounded
from pocketbert.exporters.onnx.predictor import OnnxPredictor
from pocketbert.exporters.source import Source, describe, read_source
from pocketbert.exporters.verify import SENTENCES, Export, Measure, Proof

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FILES = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_quantized.onnx"}  # as transformers.js has them


def export_onnx(
    model: str | Path,
    out: str | Path,
    *,
    precisions: Sequence[Precision] = ("fp32",),
    texts: Sequence[str] = SENTENCES,
    measure: Measure | None = None,
    opset: int = OPSET,
    force: bool = False,
    revision: str | None = None,
) -> list[Export]:
    """Write a model, for the task it was made for, to the folder `out` as ONNX; whole and proved, or not at all.

    Beside the files are the configuration with the labels, and the tokenizer. Each file is run as soon as it is
    written, and compared with the model.

    Args:
        model: a folder or a name on the hub; in int8, its int8 weights are taken.
        out: a folder that does not exist, or is empty.
        precisions: a file for each. "fp16" halves the file alone: engines widen the weights when they load them.
        texts: what the files are run on.
        measure: gives the metrics of a predictor; the model and each file are measured.
        opset: of the files' operators.
        force: accept whatever 8 bits cost, and a loss of more than `metrics.LARGEST_LOSS` of the first metric.
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: the model cannot be read, or there is no export for its head; `out` is in use, or cannot be
            written.
        InputError: what was written does not say what the model says; there is no such opset.
        MissingExtraError: onnx or ONNX Runtime is not installed.
    """
    require("export")
    check_opset(opset)
    source = read_source(model, out, texts, revision=revision)
    proof = Proof(source.whole, source.inputs, measure=measure, force=force)
    with new_folder(source.out) as folder:
        describe(source, folder)
        done = []
        for precision in dict.fromkeys(precisions):
            path = folder / ONNX_FOLDER / FILES[precision]
            made = proof(_write(source, precision, opset, path), OnnxPredictor(path), precision)
            done.append(replace(made, path=source.out / ONNX_FOLDER / FILES[precision]))
    return done


def _write(source: Source, precision: Precision, opset: int, path: Path) -> Path:
    if precision != "int8":
        plan = level(source.whole)
    else:
        quantized = source.config.quantized
        plan = rounded(source.plan, source.inputs) if quantized else in_int8(source.whole, source.inputs)
    choices = source.head == "ForMultipleChoice"
    graph = onnx_graph(plan, half=precision == "fp16", choices=choices, opset=opset)
    graph.metadata_props.add(key="precision", value=precision)
    with atomic_write(path) as file:
        file.write(graph.SerializeToString())
    return path
