"""The npm package in Chromium and Node: speed against transformers.js, bytes of code, time to a first answer, memory.

    python benchmarks/web.py PEERS [--rounds 10] [--realtime]

PEERS is a folder in which `npm install --ignore-scripts @huggingface/transformers` was run. It takes scripts/wasm, the
built npm package with its development packages (npm ci && npm run build in npm/), node and /usr/bin/chromium. The
sentence has 20 words; each engine has one thread, and our own ONNX export of the bundled model in int8 is the peer's.
`--realtime`, for Linux machines that do other work, gives Chromium's pages and Node real-time priority; it takes root.
Prints ratios, and writes results/web_<machine>_<date>.csv.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from common import ratio, write_results
from rich.console import Console
from rich.table import Table

from pocketbert.bench.subjects import published
from pocketbert.checkpoints import write_tensors
from pocketbert.exporters.export import export
from pocketbert.exporters.options import ExportOptions
from pocketbert.runtime.quantized_folders import quantize_folder
from pocketbert.tokenization import AutoTokenizer

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Prepare, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--work", type=Path, help="keep the exported models here, for later runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        prepare(work)
        command = ["node", str(Path(__file__).with_suffix(".mjs")), str(work), str(given.peers.absolute())]
        done = subprocess.run(
            [*command, str(given.rounds), *["realtime"] * given.realtime], check=True, capture_output=True, text=True
        )
    rows = rows_of(json.loads(done.stdout))
    table = Table("measure", "value", "unit", title="npm package")
    for row in rows:
        table.add_row(row["measure"], f"{row['value']:.4g}", row["unit"])
    Console().print(table)
    write_results("web", rows)


def prepare(work: Path) -> None:
    """Export the models, and make a site with the page."""
    work.mkdir(exist_ok=True)
    if not (work / "sentiment-onnx").exists():
        export(ExportOptions(model="sentiment", output=work / "sentiment-onnx", precisions=("int8",)))
    if not (work / "sentiment-web").exists():
        export(ExportOptions(model="sentiment", output=work / "sentiment", format="web"))
        (work / "sentiment" / "web").rename(work / "sentiment-web")
    if not (work / "squeezebert-web").exists():
        subject = published("SqueezeBERT")
        folder = work / "squeezebert"
        subject.config.save_pretrained(folder)
        write_tensors(folder / "model.safetensors", subject.tensors)
        AutoTokenizer.from_pretrained(ROOT / "src/pocketbert/bundled/squeezebert-small").save_pretrained(folder)
        quantize_folder(folder, work / "squeezebert-int8")
        export(
            ExportOptions(model=work / "squeezebert-int8", output=work / "squeezebert-out", format="web", force=True)
        )
        (work / "squeezebert-out" / "web").rename(work / "squeezebert-web")
    site = work / "site"
    if not site.exists():
        shutil.copytree(ROOT / "docs" / "try", site / "try")
        subprocess.run([str(ROOT / "scripts" / "try_page"), str(site)], check=True)


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per measure."""
    times, sizes = found["sentence"]["times"], {name: found[f"code_{name}"] for name in PEERS}
    ours, visits = times["ours"], found["first_answer"][1:]  # the first visit fetched the model
    values = [
        ("sentence of 20 words, one thread, Chromium", statistics.median(ours), "ms"),
        ("sentence: times as fast as transformers.js", ratio(times["transformers"], ours), "ratio"),
        ("sentence: times as fast as onnxruntime-web without a tokenizer", ratio(times["onnxruntime"], ours), "ratio"),
        ("code", sizes["ours"]["bytes"] / 1e6, "mb"),
        ("code, gzip", sizes["ours"]["gzip"] / 1e6, "mb"),
        ("code: transformers.js over ours", sizes["transformers"]["bytes"] / sizes["ours"]["bytes"], "ratio"),
        ("code: onnxruntime-web over ours", sizes["onnxruntime"]["bytes"] / sizes["ours"]["bytes"], "ratio"),
        ("code, gzip: onnxruntime-web over ours", sizes["onnxruntime"]["gzip"] / sizes["ours"]["gzip"], "ratio"),
        ("page asked for to first answer, cached model", statistics.median(visits), "ms"),
        (f"SqueezeBERT 1 x 128 int8, one thread, Node {found['node_version']}", statistics.median(found["node"]), "ms"),
        ("memory of WebAssembly, bundled model", found["memory"]["wasm"] / 1e6, "mb"),
        ("JavaScript heap, bundled model", found["memory"]["heap"] / 1e6, "mb"),
        ("memory of WebAssembly, SqueezeBERT", found["node_memory"] / 1e6, "mb"),
    ]
    return [
        {"measure": name, "value": value, "unit": unit,
         "kernels": found["kernels" if "SqueezeBERT" in name else "kernels_of_page"]}
        for name, value, unit in values
    ]  # fmt: skip


PEERS = ("ours", "transformers", "onnxruntime")

if __name__ == "__main__":
    main()
