"""Files through several workers: Ray and processes of this machine beside two plain commands, in turns; then kills.

`plain` is two commands `pocketbert classify --file`, of one engine thread, each with half of the lines; `local` and
`ray` are `answer_files` with workers of one thread. The rate of each begins with its first results, so that starting is
not counted; that of two commands is the sum. With `--kills SECONDS`, all lines go through Ray once more while workers
that compute are killed, one after so many seconds on average, and the shards must be what the plain commands print,
byte for byte. Peak memory is that of the reading process, and of the largest worker.

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


def workers_of_ray() -> list[int]:
    """The processes that compute a task of this process's Ray, by their numbers."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, ValueError):  # it has ended
                continue

    def ours(number: int) -> bool:
        while number > 1:
            if number == os.getpid():
                return True
            number = parents.get(number, 0)
        return False

    return [number for number, name in names.items() if name.startswith("ray::_apply") and ours(number)]


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
        for number in range(given.rounds if given.lines else 0):
            halves = [folder / f"plain-{number}-{half}" for half in range(2)]
            row: dict[str, Any] = {
                "what": f"round {number}",
                "lines": given.lines,
                "plain_2": round(plain(lines, halves)),
            }
            expected = digest(halves)
            for engine, workers in (("ray", 2), ("local", 2), ("ray", 1)):
                out = folder / f"{engine}-{workers}-{number}"
                row[f"{engine}_{workers}"] = round(bulk(lines, out, engine, workers))
                assert digest(shards(out)) == expected, "the bits differ"
            row["ray_over_plain"] = round(row["ray_2"] / row["plain_2"], 3)
            row["local_over_plain"] = round(row["local_2"] / row["plain_2"], 3)
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
