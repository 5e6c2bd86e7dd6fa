"""Accuracy of each form of a model: in PyTorch, on our engine, as ONNX, and as LiteRT.

    python benchmarks/export_accuracy.py sst-2:MODEL:GLUE_FOLDER tagger:MODEL:FILE reader:MODEL:FILE
    python benchmarks/export_accuracy.py reader:MODEL:FILE --calibrate TEXTS --most 300

Each argument is a name, a model folder and labelled data; a name that is a GLUE task reads its official files. All
forms read as many tokens per input as LiteRT files: 128, and 384 for question answering. Writes a table, and
export-accuracy_….csv in benchmarks/results.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import write_results

from pocketbert.checkpoints import read_tensors
from pocketbert.configs import AutoConfig
from pocketbert.data.glue import GLUE
from pocketbert.exporters.export import export
from pocketbert.exporters.formats import FORMATS
from pocketbert.exporters.litert.writer import default_length
from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.source import dequantize
from pocketbert.exporters.verify import VerifiedFile
from pocketbert.features import Predictor
from pocketbert.models.auto import load_trained
from pocketbert.models.predict import TorchPredictor
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.load import load_plan
from pocketbert.runtime.quantize import quantize
from pocketbert.runtime.smoothing import smooth
from pocketbert.tasks.evaluate import read_evaluation
from pocketbert.tasks.evaluation import Evaluation

Scores = Mapping[str, float]


def evaluation_of(name: str, model: str, data: str, most: int | None) -> Evaluation[Any, Any]:
    """The evaluation of a model on the first examples of each set."""
    length = default_length(AutoConfig.from_pretrained(model))
    evaluation = read_evaluation(model, Path(data), glue=name if name in GLUE else None, max_length=length)
    if name not in GLUE:  # text classification keeps its labels per set, and GLUE's dev sets are small
        evaluation.sets = {key: replace(rows, examples=rows.examples[:most]) for key, rows in evaluation.sets.items()}
    return evaluation


def our_own(model: str) -> Iterator[tuple[str, Predictor]]:
    config = AutoConfig.from_pretrained(model)
    if not config.quantized:
        yield "PyTorch fp32", TorchPredictor(load_trained(model, config.saved_head))
    plan = load_plan(config, read_tensors(model), config.saved_head)
    fp32 = dequantize(plan)
    yield "PocketBERT fp32", Engine(fp32)
    yield "PocketBERT int8", Engine(plan if config.quantized else quantize(smooth(fp32)))


def exported(model: str, measure: Evaluation[Any, Any], calibration: list[str], folder: Path) -> list[VerifiedFile]:
    """Every exported file, whatever its loss."""
    files: list[VerifiedFile] = []
    for name in ("onnx", "litert"):
        precisions = tuple(one for one in FORMATS[name].files if one != "integer" or calibration)
        options = ExportOptions(
            model=model,
            output=folder / name,
            format=name,
            precisions=precisions,
            calibration=calibration if "integer" in precisions else None,
            force=True,
        )
        files += export(options, measure=measure).files
    return files


def rows(name: str, model: str, evaluation: Evaluation[Any, Any], calibration: list[str]) -> Iterator[dict[str, Any]]:
    examples = sum(map(len, evaluation.sets.values()))

    def row(form: str, scores: Scores, relative: float | None = None, agreement: float | None = None) -> dict[str, Any]:
        metric = next(iter(scores))
        print(f"{name:10} {form:18} {metric} {scores[metric]:.4f}", flush=True)
        return {
            "model": name, "examples": examples, "form": form, "metric": metric, "score": round(scores[metric], 4),
            "relative_difference": relative, "agreement": agreement,
        }  # fmt: skip

    for form, predictor in our_own(model):
        yield row(form, evaluation(predictor))
    with tempfile.TemporaryDirectory() as folder:
        for one in exported(model, evaluation, calibration, Path(folder)):
            form = f"{'LiteRT' if one.path.suffix == '.tflite' else 'ONNX'} {one.precision}"
            apart = one.differences.values()
            agreed = [found.agreement for found in apart if found.agreement is not None]
            relative = max(found.relative for found in apart)
            yield row(form, one.metrics["export"], round(relative, 6), round(min(agreed), 4) if agreed else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME:MODEL:DATA")
    parser.add_argument(
        "--calibrate",
        type=Path,
        help="texts, one per line, to calibrate the precision integer, which is skipped without them",
    )
    parser.add_argument(
        "--most", type=int, help="the first examples of a file [default: all; GLUE sets are always read whole]"
    )
    given = parser.parse_args()
    calibration = given.calibrate.read_text(encoding="utf-8").splitlines() if given.calibrate else []
    found: list[dict[str, Any]] = []
    for one in given.models:
        name, model, data = one.split(":")
        found += rows(name, model, evaluation_of(name, model, data, given.most), calibration)
    write_results("export-accuracy", found)


if __name__ == "__main__":
    main()
