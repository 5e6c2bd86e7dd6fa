"""Start-up time, peak memory and installed size: ours, ONNX Runtime's and transformers', each in fresh processes.

    python benchmarks/startup.py EXPORTS [--rounds 20] [--no-install]

EXPORTS is the folder that benchmarks/engines.py fills: ONNX Runtime's int8 file is taken from there, or made. The base
install is measured in a fresh virtual environment, from this checkout; pip needs its index, or a copy of it.
Writes results/startup_<machine>_<date>.csv.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results
from rich.console import Console
from rich.table import Table

from pocketbert.bench.peers import OnnxRuntime
from pocketbert.bench.subjects import Subject, published
from pocketbert.checkpoints import write_tensors
from pocketbert.runtime.quantized_folders import quantize_folder

ROOT = Path(__file__).parents[1]
TEXT = "A warm and clever film, and far too short."
# Peak memory of a process of its own: VmHWM where there is /proc, since ru_maxrss begins with that of the parent.
PEAK = """
def peak():
    try:
        return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]) * 1024
    except OSError:
        import resource, sys
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
print(peak())
"""
ENGINE = """
import sys
import numpy as np
from pocketbert.features import Features
from pocketbert.runtime.engine import Engine
ids = np.arange(1000, 1128, dtype=np.int32)
Engine.from_pretrained(sys.argv[1], "Model")([Features(ids, np.zeros(128, np.int32))])
"""
ONNX = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
ids = np.arange(1000, 1128)[None]
session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
"""
TRANSFORMERS = """
import sys
import torch
from transformers import SqueezeBertModel
model = SqueezeBertModel.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    model(input_ids=torch.arange(1000, 1128)[None])
"""
NO_TORCH = "import sys, pocketbert; sys.exit('torch' in sys.modules)"


def run(*command: str) -> str:
    """What a fresh process prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def python(code: str, *arguments: str) -> str:
    return run(sys.executable, "-c", code, *arguments)


def seconds(rounds: int, *command: str) -> float:
    """Median of fresh processes, from before they start until they have ended, after one that warms the disk."""
    taken = []
    for round_ in range(rounds + 1):
        start = time.perf_counter()
        run(*command)
        if round_:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def write_folder(subject: Subject, folder: Path) -> None:
    subject.config.save_pretrained(folder)
    write_tensors(
        folder / "model.safetensors", {f"transformer.{name}": np.array(x) for name, x in subject.tensors.items()}
    )


def installed(package: str) -> float:
    """Megabytes of an installed package alone."""
    files = distribution(package).files or ()
    return sum(Path(str(f.locate())).stat().st_size for f in files if Path(str(f.locate())).is_file()) / 1e6


def base_install() -> float:
    """Megabytes of this package and all that it needs, without pip and setuptools, on disk."""
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "venv", folder)
        run(str(Path(folder) / "bin" / "python"), "-m", "pip", "install", "-q", "-c", "constraints.txt", ".")
        packages = next(Path(folder).rglob("site-packages"))
        left_out = ("pip", "setuptools", "_distutils_hack", "distutils-precedence.pth")
        return sum(
            file.stat().st_blocks * 512
            for top in packages.iterdir() if not top.name.startswith(left_out)
            for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()
        ) / 1e6  # fmt: skip


def measure(exports: Path, rounds: int, install: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def note(what: str, value: float, unit: str, bar: float | None = None) -> None:
        verdict = "" if bar is None else "reached" if value <= bar else "MISSED"
        rows.append({"measure": what, "value": round(value, 3), "unit": unit, "bar": bar or "", "verdict": verdict})
        print(f"{what}: {value:.3f} {unit}", file=sys.stderr)

    def program(what: str, code: str, model: Path, bar: float | None = None) -> None:
        note(f"{what}, process start to end", seconds(min(rounds, 5), sys.executable, "-c", code, str(model)), "s")
        note(f"{what}, peak memory", int(python(code + PEAK, str(model)).split()[-1]) / 1e6, "MB", bar)

    shell = (sys.executable, "-m", "pocketbert.cli", "classify", TEXT)
    note("bundled model, process start to first answer and end", seconds(rounds, *shell), "s", 0.25)
    nothing = seconds(rounds, sys.executable, "-c", "pass")
    note("python that does nothing", nothing, "s")
    loaded = seconds(rounds, sys.executable, "-c", NO_TORCH)
    note("import pocketbert, no torch in sys.modules", 1e3 * (loaded - nothing), "ms", 100)

    subject = published("SqueezeBERT")
    with tempfile.TemporaryDirectory() as temporary:
        fp32, int8 = Path(temporary) / "fp32", Path(temporary) / "int8"
        write_folder(subject, fp32)
        quantize_folder(fp32, int8)
        program("SqueezeBERT int8 1×128, PocketBERT", ENGINE, int8, 130)
        program("SqueezeBERT fp32 1×128, PocketBERT", ENGINE, fp32)
        if importlib.util.find_spec("transformers") and importlib.util.find_spec("torch"):
            program("SqueezeBERT fp32 1×128, transformers", TRANSFORMERS, fp32)
            note("torch and transformers installed", installed("torch") + installed("transformers"), "MB")
        peer = OnnxRuntime("int8", "split")
        if not peer.missing():
            peer.prepare(subject, exports)
            program("SqueezeBERT int8 1×128, ONNX Runtime", ONNX, peer.file(subject, exports))
            note("onnxruntime and numpy installed", installed("onnxruntime") + installed("numpy"), "MB")
    if install:
        note("base install", base_install(), "MB", 90)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-install", action="store_true", help="leave the fresh virtual environment out")
    arguments = parser.parse_args()
    arguments.exports.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTHONPATH", str(ROOT / "src") if (ROOT / "src/pocketbert").is_dir() else "")
    rows = measure(arguments.exports, arguments.rounds, not arguments.no_install)
    table = Table("measure", "value", "unit", "bar", "verdict", title="start-up, memory, size")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=120).print(table)
    write_results("startup", rows)


if __name__ == "__main__":
    main()
