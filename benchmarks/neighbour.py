"""The cost of neighbours: latency and throughput of one model while other processes want the processors too.

    python benchmarks/neighbour.py EXPORTS [--before REVISION] [--rounds 4] [--seconds 1]

Each engine runs SqueezeBERT in int8 over 1×128 tokens in a process of its own, on all processors; ours on one thread as
well. In each round every engine takes its turn in every state: alone; beside a loop that never rests, pinned to one
processor; beside one on every processor; beside a second process of the same engine, which runs passes as well; and in
a control group whose quota is half of the processors. The loops are sessions of their own, which have a share of the
processors of their own under a scheduler that groups by session. What the system does not permit is left out, and said.
A turn in which other processes took more than 3 % of the processors is repeated, a few times; the results have what
they took.
--before builds the core of an earlier revision as well, in EXPORTS, so that one run shows before and after. EXPORTS is
the folder that benchmarks/engines.py fills; OpenVINO and ONNX Runtime take part where they are installed.
Writes results/neighbour_<machine>_<date>.csv, a row per engine and state. Linux only: others cannot pin a process.
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
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import end_when_told, keep_results, write_results
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
engine = Engine.from_pretrained(sys.argv[1], "Model", threads=int(sys.argv[2]) or None)
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
NEIGHBOUR = "import os\nos.sched_setaffinity(0, {%d})\nprint(flush=True)\nwhile True: pass"
ALONE, ONE_TAKEN, ALL_TAKEN, SECOND, QUOTA = STATES = (
    "alone", "one processor taken", "all processors taken", "second engine", "quota of half",
)  # fmt: skip
MOST_OF_OTHERS, TRIES = 0.03, 4  # of the processors in a turn that is not repeated; turns until the calmest is taken
GROUPS = Path("/sys/fs/cgroup")


class Worker:
    """An engine in a process of its own, which runs passes when it is asked to.

    Attributes:
        turns: by state.
    """

    def __init__(self, name: str, code: str, arguments: Sequence[str], source: Path) -> None:
        self.name = name
        self.turns: dict[str, list[Turn]] = {}
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

    def start(self, seconds: float) -> None:
        """Let it run passes for so long."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Latencies of the passes, and the processor time per pass, both in milliseconds."""
        assert self.process.stdout is not None
        result: dict[str, Any] = json.loads(self.process.stdout.readline())
        return result

    def end(self) -> None:
        """Stop the process."""
        self.process.kill()
        self.process.wait()


@contextmanager
def busy(processors: Iterable[int]) -> Iterator[list[int]]:
    """On each of these processors a loop that never rests, in a session of its own; their process ids."""
    with ExitStack() as stack:
        ids = []
        for processor in processors:
            code = NEIGHBOUR % processor
            loop = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
            stack.callback(loop.wait)
            stack.callback(loop.kill)
            assert loop.stdout is not None
            loop.stdout.readline()
            ids.append(loop.pid)
        yield ids


def used_seconds(process: int | None = None) -> float:
    """Processor time that a process has used, or all together, as far as this machine's processors gave it."""
    if process is None:
        user, nice, system, _, _, irq, softirq = Path("/proc/stat").read_text().split()[1:8]
        ticks = [user, nice, system, irq, softirq]
    else:
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


class Quota:
    """A control group of processes that together get half of the processors; `reason` says why there is none."""

    def __init__(self) -> None:
        self.reason = ""
        old = GROUPS / "cpu"  # of version 1, which has a tree per resource
        parent, period = (old if old.exists() else GROUPS), 100_000
        quota = period * len(os.sched_getaffinity(0)) // 2
        self.outside, self.group = parent / "cgroup.procs", parent / f"pocketbert-neighbour-{os.getpid()}"
        try:
            self.group.mkdir()
            if old.exists():
                (self.group / "cpu.cfs_period_us").write_text(str(period))
                (self.group / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (self.group / "cpu.max").write_text(f"{quota} {period}")
        except OSError as error:
            self.reason = str(error)

    @contextmanager
    def of(self, worker: Worker) -> Iterator[list[int]]:
        """A worker in the group, and no other process."""
        (self.group / "cgroup.procs").write_text(str(worker.process.pid))
        try:
            yield []
        finally:
            self.outside.write_text(str(worker.process.pid))

    def end(self) -> None:
        """Remove the group, which no process is in."""
        if self.group.exists():
            self.group.rmdir()


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


@dataclass
class Turn:
    """What a worker did in a state, and a second one, if it ran; the part of the processors that others took."""

    results: list[dict[str, Any]]
    others: float


def take_turn(worker: Worker, second: Worker, state: str, seconds: float, quota: Quota) -> Turn:
    processors = os.sched_getaffinity(0)
    neighbours: dict[str, AbstractContextManager[list[int]]] = {
        ONE_TAKEN: busy([max(processors)]), ALL_TAKEN: busy(processors), QUOTA: quota.of(worker),
    }  # fmt: skip
    running = [worker, second] if state == SECOND else [worker]
    with neighbours.get(state, nullcontext([])) as loops:
        known = [*loops, *(each.process.pid for each in running)]
        start, before = time.perf_counter(), used_seconds() - sum(map(used_seconds, known))
        for each in running:
            each.start(seconds)
        results = [each.result() for each in running]
        others = used_seconds() - sum(map(used_seconds, known)) - before
        return Turn(results, max(0.0, others / (time.perf_counter() - start) / (os.cpu_count() or 1)))


def take_calm_turn(worker: Worker, second: Worker, state: str, seconds: float, quota: Quota) -> Turn:
    """The first turn in which others took next to nothing, or the one of several in which they took least."""
    turns: list[Turn] = []
    while len(turns) < TRIES and not (turns and turns[-1].others < MOST_OF_OTHERS):
        turns.append(take_turn(worker, second, state, seconds, quota))
    return min(turns, key=lambda turn: turn.others)


def measure(pairs: Sequence[tuple[Worker, Worker]], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row per engine and state; kept after every round, as far as there are any."""
    quota = Quota()
    states = [state for state in STATES if not (state == QUOTA and quota.reason)]
    if quota.reason:
        print(f"left out: {QUOTA}: {quota.reason}", file=sys.stderr)
    try:
        for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
            for state in states:
                for worker, second in pairs:
                    worker.turns.setdefault(state, []).append(take_calm_turn(worker, second, state, seconds, quota))
            keep_results("neighbour", rows_of(pairs))
    finally:
        quota.end()
    return rows_of(pairs)


def rows_of(pairs: Sequence[tuple[Worker, Worker]]) -> list[dict[str, Any]]:
    rows = []
    for worker, _ in pairs:
        results_of = {state: [r for turn in turns for r in turn.results] for state, turns in worker.turns.items()}
        alone = rate(results_of[ALONE])
        for state, results in results_of.items():
            passes = sorted(ms for result in results for ms in result["milliseconds"])
            rows.append({
                "engine": worker.name, "processors": len(os.sched_getaffinity(0)), "state": state,
                "p50_ms": round(statistics.median(passes), 2), "p99_ms": round(passes[int(0.99 * len(passes))], 2),
                "processor_ms": round(statistics.median(r["processor_milliseconds"] for r in results), 2),
                "throughput_over_alone": round(rate(results) * (2 if state == SECOND else 1) / alone, 2),
                "others": round(statistics.mean(turn.others for turn in worker.turns[state]), 3),
            })  # fmt: skip
    return rows


def rate(results: Sequence[Mapping[str, Any]]) -> float:
    """Passes per millisecond of one process."""
    times = [ms for result in results for ms in result["milliseconds"]]
    return len(times) / sum(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", type=Path)
    parser.add_argument("--before", metavar="REVISION", help="an earlier revision to measure as well")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    arguments = parser.parse_args()
    end_when_told()
    exports: Path = arguments.exports.resolve()
    exports.mkdir(parents=True, exist_ok=True)
    subject = published("SqueezeBERT")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        fp32, int8 = Path(temporary) / "fp32", Path(temporary) / "int8"
        write_folder(subject, fp32)
        quantize_folder(fp32, int8)
        engines = [(OURS, LOAD_OURS, [str(int8), "0"], ROOT / "src")]
        engines.append((f"{OURS}, 1 thread", LOAD_OURS, [str(int8), "1"], ROOT / "src"))
        if arguments.before is not None:
            source = build(arguments.before, exports)
            engines.append((f"{OURS} at {arguments.before}", LOAD_OURS, [str(int8), "0"], source))
        for peer in PEERS:
            if peer.name in RIVALS and not peer.missing():
                peer.prepare(subject, exports)
                engines.append((peer.name, LOAD_RIVAL, [str(exports), peer.name], ROOT / "src"))
        pairs = []
        for engine in engines:
            pair = Worker(*engine), Worker(*engine)
            for worker in pair:
                stack.callback(worker.end)
            pairs.append(pair)
        rows = measure(pairs, arguments.rounds, arguments.seconds)
    columns = {
        "engine": "engine", "state": "state", "p50_ms": "p50", "p99_ms": "p99", "processor_ms": "processor time",
        "throughput_over_alone": "throughput over alone", "others": "taken by others",
    }  # fmt: skip
    table = Table(*columns.values(), title="SqueezeBERT int8, 1×128 tokens: milliseconds per pass")
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    Console(width=130).print(table)
    write_results("neighbour", rows)


if __name__ == "__main__":
    main()
