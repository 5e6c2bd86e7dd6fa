"""What each form of a model scores: on our engine and as ONNX, in every precision.

    python benchmarks/export_accuracy.py sst-2:MODEL:GLUE_FOLDER tagger:MODEL:FILE reader:MODEL:FILE

Each argument is a name, a model folder and labelled data; a name that is a GLUE task reads its official files. A table,
and export-accuracy_….csv in benchmarks/results.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import write_results

from pocketbert.checkpoints import read_tensors
from pocketbert.configs import AutoConfig
from pocketbert.data.glue import GLUE
from pocketbert.export.onnx_folder import PRECISIONS, export_onnx
from pocketbert.export.source import in_fp32
from pocketbert.recipes.evaluate import read_evaluation
from pocketbert.runtime.balance import balance
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.lower import head_of
from pocketbert.runtime.quantize import plan_of, quantize


def rows(name: str, model: str, data: str) -> list[dict[str, Any]]:
    evaluation = read_evaluation(model, Path(data), glue=name if name in GLUE else None)
    config = AutoConfig.from_pretrained(model)
    plan = plan_of(config, read_tensors(model), head_of(config))
    whole = in_fp32(plan)
    int8 = plan if config.quantized else quantize(balance(whole))
    scores: dict[str, Mapping[str, float]] = {
        "PocketBERT fp32": evaluation(Engine(whole)),
        "PocketBERT int8": evaluation(Engine(int8)),
    }
    agreement = {}
    with tempfile.TemporaryDirectory() as folder:
        done = export_onnx(
            model, Path(folder) / "out", precisions=PRECISIONS, measure=evaluation, force=True
        )  # fmt: skip
        for one in done:
            form = f"ONNX {one.precision}"
            scores[form] = one.metrics["export"]
            agreement[form] = {key: round(it.relative, 6) for key, it in one.differences.items()}
    metric = next(iter(scores["PocketBERT fp32"]))
    made = [
        {"model": name, "form": form, "metric": metric, "score": round(found[metric], 4),
         "relative_difference": max(agreement.get(form, {"": 0.0}).values())}
        for form, found in scores.items()
    ]  # fmt: skip
    for row in made:
        print(f"{name:10} {row['form']:18} {metric} {row['score']:.4f}", flush=True)
    return made


if __name__ == "__main__":
    write_results("export-accuracy", [row for one in sys.argv[1:] for row in rows(*one.split(":"))])
