"""The cost of a busy neighbour: latency of one model while another process occupies one of the processors.

    python benchmarks/neighbour.py EXPORTS [--before REVISION] [--rounds 6] [--seconds 2]

Each engine runs SqueezeBERT in int8 over 1×128 tokens in a process of its own, on all processors. In each round every
engine takes its turn twice: on the quiet machine, and beside a loop that is pinned to one processor and never rests.
--before builds the core of an earlier revision as well, in EXPORTS, so that one run shows before and after. EXPORTS is
the folder that benchmarks/engines.py fills; OpenVINO and ONNX Runtime take part where they are installed.
Writes results/neighbour_<machine>_<date>.csv. Linux only: elsewhere no process can be pinned.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import ratio, write_results
from rich.console import Console
from rich.progress import track
from rich.table import Table
from startup import write_folder

from pocketbert.bench.peers import PEERS
from pocketbert.bench.subjects import published
from pocketbert.runtime.quantized_folders import quantize_folder

ROOT = Path(__file__).parents[1]
OURS = "PocketBERT int8"
RIVALS = ("OpenVINO int8 (batched) + fp32", "ONNX Runtime int8 (split)")
# A worker loads its engine and then reads seconds, line by line: for so long it runs passes and prints what each took.
LOAD_OURS = """
import sys
import numpy as np
from pocketbert.features import Features
from pocketbert.runtime.engine import Engine
inputs = [Features(np.arange(1000, 1128, dtype=np.int32), np.zeros(128, np.int32))]
engine = Engine.from_pretrained(sys.argv[1], "Model")
"""
LOAD_RIVAL = """
import sys
from pathlib import Path
import numpy as np
from pocketbert.bench.peers import PEERS
from pocketbert.bench.subjects import published
from pocketbert.features import Features
inputs = [Features(np.arange(1000, 1128, dtype=np.int32), np.zeros(128, np.int32))]
peer = next(peer for peer in PEERS if peer.name == sys.argv[2])
engine = peer.load(published("SqueezeBERT"), Path(sys.argv[1]), (1, 128))
"""
PASSES = """
import json, time
for _ in range(20):
    engine(inputs)
print("ready", flush=True)
for line in sys.stdin:
    milliseconds, processor, end = [], time.process_time(), time.perf_counter() + float(line)
    while time.perf_counter() < end:
        start = time.perf_counter()
        engine(inputs)
        milliseconds.append(1e3 * (time.perf_counter() - start))
    used = 1e3 * (time.process_time() - processor) / len(milliseconds)
    print(json.dumps({"milliseconds": milliseconds, "processor_milliseconds": used}), flush=True)
"""
NEIGHBOUR = "import os\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"


class Worker:
    """An engine in a process of its own, which runs passes when it is asked to."""

    def __init__(self, name: str, code: str, arguments: Sequence[str], source: Path) -> None:
        self.name = name
        self.quiet: list[dict[str, Any]] = []
        self.stolen: list[dict[str, Any]] = []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + PASSES, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:  # some engines print lines of their own
            if line == "ready\n":
                return
        sys.exit(f"{name} did not start")

    def run(self, seconds: float) -> dict[str, Any]:
        """Latencies of passes, and the processor time per pass, both in milliseconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        result: dict[str, Any] = json.loads(self.process.stdout.readline())
        return result

    def end(self) -> None:
        """Stop the process."""
        self.process.kill()
        self.process.wait()


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """A loop that never rests, pinned to one processor."""
    with subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) as process:
        try:
            yield
        finally:
            process.kill()


def build(revision: str, exports: Path) -> Path:
    """The sources of `revision` with its core; built once."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", revision], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    folder = exports / f"pocketbert-{commit}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=exports) as temporary:
            archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(temporary, filter="data")
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", f"{temporary}/installed"]
            subprocess.run([*pip, temporary], check=True)
            (Path(temporary) / "installed").rename(folder)
    return folder


def measure(workers: Sequence[Worker], rounds: int, seconds: float) -> list[dict[str, Any]]:
    for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
        for worker in workers:
            worker.quiet.append(worker.run(seconds))
        with busy_neighbour():
            for worker in workers:
                worker.stolen.append(worker.run(seconds))
    rows = []
    for worker in workers:
        row: dict[str, Any] = {"engine": worker.name, "processors": len(os.sched_getaffinity(0))}
        for state, results in (("quiet", worker.quiet), ("stolen", worker.stolen)):
            passes = sorted(ms for result in results for ms in result["milliseconds"])
            row[f"{state}_p50_ms"] = round(statistics.median(passes), 2)
            row[f"{state}_p99_ms"] = round(passes[int(0.99 * len(passes))], 2)
            row[f"{state}_processor_ms"] = round(statistics.median(r["processor_milliseconds"] for r in results), 2)
        medians = [[statistics.median(r["milliseconds"]) for r in results] for results in (worker.stolen, worker.quiet)]
        row["stolen_over_quiet"] = round(ratio(*medians), 2)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", type=Path)
    parser.add_argument("--before", metavar="REVISION", help="an earlier revision to measure as well")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    arguments = parser.parse_args()
    exports: Path = arguments.exports.resolve()
    exports.mkdir(parents=True, exist_ok=True)
    subject = published("SqueezeBERT")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        fp32, int8 = Path(temporary) / "fp32", Path(temporary) / "int8"
        write_folder(subject, fp32)
        quantize_folder(fp32, int8)
        workers = [Worker(OURS, LOAD_OURS, [str(int8)], ROOT / "src")]
        if arguments.before is not None:
            source = build(arguments.before, exports)
            workers.append(Worker(f"{OURS} at {arguments.before}", LOAD_OURS, [str(int8)], source))
        for peer in PEERS:
            if peer.name in RIVALS and not peer.missing():
                peer.prepare(subject, exports)
                workers.append(Worker(peer.name, LOAD_RIVAL, [str(exports), peer.name], ROOT / "src"))
        for worker in workers:
            stack.callback(worker.end)
        rows = measure(workers, arguments.rounds, arguments.seconds)
    columns = {
        "engine": "engine", "quiet_p50_ms": "quiet p50", "quiet_p99_ms": "quiet p99", "stolen_p50_ms": "stolen p50",
        "stolen_p99_ms": "stolen p99", "stolen_over_quiet": "ratio of p50", "stolen_processor_ms": "processor time",
    }  # fmt: skip
    table = Table(*columns.values(), title="SqueezeBERT int8, 1×128 tokens: milliseconds per pass")
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    Console(width=130).print(table)
    write_results("neighbour", rows)


if __name__ == "__main__":
    main()
