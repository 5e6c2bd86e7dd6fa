"""Files of ten thousand to a million lines through `pocketbert classify` with the bundled model: time and peak memory.

The lines are made up from a few words, 2 to 14 a line, from a fixed seed; short ones, so that what holds an answer or a
text too long shows. Each file is answered by a process of its own, which writes JSON lines to a file.

    python benchmarks/stream.py [LINES …]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write_results

WORDS = (
    "a", "actor", "always", "and", "bad", "boring", "but", "cold", "dull", "ending", "film", "funny", "good", "great",
    "is", "long", "movie", "music", "never", "not", "plot", "quite", "sad", "scene", "short", "story", "the", "very",
)  # fmt: skip


def write_lines(path: Path, count: int) -> None:
    draws = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(" ".join(draws.choices(WORDS, k=draws.randint(2, 14))) + "\n")


def measure(count: int, folder: Path) -> dict[str, int | float]:
    lines, out = folder / "lines.txt", folder / "answers.jsonl"
    write_lines(lines, count)
    begun = time.perf_counter()
    with out.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "pocketbert.cli", "classify", "--file", lines], stdout=file)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    with out.open("rb") as file:
        answered = sum(1 for _ in file)
    if process.returncode or answered != count:
        raise SystemExit(f"{answered:,} of {count:,} lines were answered, status {process.returncode}")
    return {
        "lines": count,
        "seconds": round(seconds, 2),
        "lines_per_second": round(count / seconds),
        "peak_memory_mb": round(used.ru_maxrss / 1024, 1),
    }


def main() -> None:
    counts = [int(argument) for argument in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(count, Path(folder)))
        print(rows[-1], file=sys.stderr, flush=True)
    write_results("stream", rows)


if __name__ == "__main__":
    main()
