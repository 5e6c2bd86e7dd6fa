"""Files through several workers: Ray and processes of this machine beside two plain commands, in turns; then kills.

`plain` is two commands `pocketbert classify --file`, of one engine thread, each with half of the lines; `local` and
`ray` are `answer_files` with workers of one thread. The rate of each begins with its first results, so that starting is
not counted; that of two commands is the sum. Columns in `us` are microseconds of processor time per line, of all
processes, which other programs on the machine change little; `by_time` is the ratio of those.

With `--kills SECONDS`, all lines go through Ray once more while workers that compute are killed, one after so many
seconds on average, and the shards must be what the plain commands print, byte for byte. Peak memory is that of the
reading process, and of the largest worker.

    python benchmarks/workers.py [--lines N] [--rounds N] [--kills SECONDS] [--kill-lines N]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import keep_results, write_results
from stream import write_lines

from pocketbert import BulkOptions, answer_files

SHARD = 2048  # rows
FEW = 4 * SHARD  # lines of a first run
ONE_THREAD = """
from pocketbert.runtime import engine
engine.usable_threads = lambda: 1
from pocketbert.cli import main
main()
"""


def plain(lines: Path, out: list[Path]) -> float:
    """Answer a file by two commands side by side, each with its half; return the sum of their rates."""
    texts = lines.read_bytes().splitlines(keepends=True)
    halves, rates = (texts[: len(texts) // 2], texts[len(texts) // 2 :]), []

    def run(number: int) -> None:
        part = lines.with_name(f"half-{number}.txt")
        part.write_bytes(b"".join(halves[number]))
        command = [sys.executable, "-c", ONE_THREAD, "classify", "--file", str(part)]
        with out[number].open("wb") as file, subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            times, counts = [], []
            while block := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
                file.write(block)
                times.append(time.perf_counter())
                counts.append(block.count(b"\n"))
        assert process.returncode == 0
        rates.append(sum(counts[1:]) / (times[-1] - times[0]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def bulk(lines: Path, out: Path, engine: str, workers: int) -> float:
    """Answer a file by workers; return the rate after the first results."""
    times: list[float] = []
    rows: list[int] = []

    def advance(count: int, _: float | None) -> None:
        times.append(time.perf_counter())
        rows.append(count)

    options: Any = {"file": lines, "output": str(out), "engine": engine, "workers": workers, "shard_rows": SHARD}
    answer_files(BulkOptions(**options), advance=advance)
    return (rows[-1] - rows[workers - 1]) / (times[-1] - times[workers - 1])


def digest(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        whole.update(path.read_bytes())
    return whole.hexdigest()


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*"))


# ── kills ──


def descendants() -> dict[int, tuple[str, float]]:
    """The processes below this one: their command, and the processor time of each and of its children that ended."""
    parents, found = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(fields[1])
            found[int(entry.name)] = (command, sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK"))

    def ours(number: int) -> bool:
        while number > 1:
            if number == os.getpid():
                return True
            number = parents.get(number, 0)
        return False

    return {number: facts for number, facts in found.items() if ours(number)}


def spent() -> float:
    """Seconds of processor time of this process and all below it, so far."""
    return sum(seconds for _, seconds in descendants().values())


def workers_of_ray() -> list[int]:
    """The processes that compute a task of this process's Ray, by their numbers."""
    return [number for number, (command, _) in descendants().items() if command.startswith("ray::_apply")]


def peak(number: int) -> int:
    """Peak memory of a process in MB, so far."""
    try:
        status = Path(f"/proc/{number}/status").read_text()
    except OSError:
        return 0
    found = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0].split()[1]) >> 10 if found else 0


def killed(lines: Path, out: Path, seconds: float) -> dict[str, float]:
    """Answer a file by two workers of Ray, which are killed while they compute."""
    draws, stop, kills, largest = random.Random(0), threading.Event(), 0, 0

    def kill() -> None:
        nonlocal kills, largest
        while not stop.wait(draws.expovariate(1 / seconds)):
            if found := workers_of_ray():
                largest = max(largest, *map(peak, found))
                os.kill(draws.choice(found), signal.SIGKILL)
                kills += 1

    thread = threading.Thread(target=kill)
    thread.start()
    started = time.perf_counter()
    try:
        bulk(lines, out, "ray", 2)
    finally:
        stop.set()
        thread.join()
    taken = time.perf_counter() - started
    return {"seconds": round(taken, 1), "kills": kills, "reader_mb": peak(os.getpid()), "worker_mb": largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=60_000, help="of the comparison; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=float, metavar="SECONDS", help="kill a worker every so often, on average")
    parser.add_argument("--kill-lines", type=int, default=1_000_000)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = folder / "lines.txt"
        if given.lines:
            write_lines(lines, given.lines)
        few = folder / "few.txt"
        write_lines(few, FEW)
        for number in range(given.rounds if given.lines else 0):
            halves = [folder / f"plain-{number}-{half}" for half in range(2)]
            row: dict[str, Any] = {"what": f"round {number}", "lines": given.lines}
            for name in ("plain_2", "ray_2", "local_2", "ray_1"):
                engine, workers = name.split("_")

                def run(source: Path, *out: Path, engine: str = engine, workers: str = workers) -> float:
                    return plain(source, [*out]) if engine == "plain" else bulk(source, out[0], engine, int(workers))

                at_first = [folder / f"few-{name}-{number}-{half}" for half in range(2)]
                before = spent()
                run(few, *(at_first if engine == "plain" else at_first[:1]))
                started = spent()
                outs = halves if engine == "plain" else [folder / f"{name}-{number}"]
                row[name] = round(run(lines, *outs))
                # Starting, and the first rows, are the same twice, but for workers of Ray, which stay.
                more, first = spent() - started, 0.0 if engine == "ray" else started - before
                share = 0 if engine == "ray" else FEW
                row[f"{name}_us"] = round(1e6 * (more - first) / (given.lines - share), 1)
                if engine != "plain":
                    assert digest(shards(outs[0])) == digest(halves), "the bits differ"
            row["ray_over_plain"] = round(row["ray_2"] / row["plain_2"], 3)
            row["ray_over_plain_by_time"] = round(row["plain_2_us"] / row["ray_2_us"], 3)
            row["two_over_one"] = round(row["ray_2"] / row["ray_1"], 3)
            print(row, file=sys.stderr)
            rows.append(row)
        if rows:
            keep_results("workers", rows)
        if given.kills:
            write_lines(lines, given.kill_lines)
            found = killed(lines, folder / "killed", given.kills)
            halves = [folder / "all-0", folder / "all-1"]
            plain(lines, halves)
            same = digest(shards(folder / "killed")) == digest(halves)
            row = {"lines": given.kill_lines, **found, "same_bytes": same}
            print(row, file=sys.stderr)
            write_results("workers-killed", [row])
            assert same, "the bits differ"


if __name__ == "__main__":
    main()
