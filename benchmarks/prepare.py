"""`pocketbert prepare`: megabytes of text per second, peak memory, and Ray against processes of this machine, in turns.

    python benchmarks/prepare.py SOURCES… --tokenizer FOLDER --workers 2 --rounds 3

Every run is a process of its own. Its row has a hash over the names and bytes of all files that it wrote (shards,
manifest, tokenizer), which must be the same for all, by Ray or not. Workers share out parts of 32 MB of text, so that a
gain from several shows on some hundred megabytes. Memory is that of all processes of a run together, pages that they
share counted once for each (Linux only; Ray's own processes count as well).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import write_results

from pocketbert.corpus.corpus import read_manifest
from pocketbert.corpus.prepare import prepare
from pocketbert.corpus.prepare_options import PrepareOptions

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(root: int) -> int:
    """The resident bytes of a process and all that it started, as far as they are still its descendants."""
    children: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        pages[pid] = int(fields[21])
    total, stack = 0, [root]
    while stack:
        pid = stack.pop()
        total += pages.get(pid, 0)
        stack += children.get(pid, [])
    return total * PAGE


def measure(engine: str, workers: int, given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """One run in a process of its own."""
    command = [sys.executable, __file__, *given.sources, "--tokenizer", given.tokenizer, "--run", engine, str(out)]
    process = subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.1)
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    return {"engine": engine, "workers": workers, **found, "peak_MB": round(peak / 1e6), "sha256": digest(out)}


def digest(folder: Path) -> str:
    """Of all files in a folder and their names."""
    found = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        found.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=2, metavar=("ENGINE", "OUT"), help="what the script calls itself with")
    given = parser.parse_args()
    if given.run:
        engine, out = given.run
        start = time.perf_counter()
        prepare(
            PrepareOptions(
                sources=tuple(given.sources), output=out, tokenizer=given.tokenizer, engine=engine,
                workers=given.workers,
            )
        )  # fmt: skip
        seconds = time.perf_counter() - start
        manifest = read_manifest(Path(out))
        size = sum(source["bytes"] for source in manifest["sources"]) / 1e6
        facts = {
            "files": len(manifest["sources"]), "parts": len(manifest["train"]), "MB": round(size, 1),
            "seconds": round(seconds, 1), "MB_per_second": round(size / seconds, 2),
        }  # fmt: skip
        print(json.dumps(facts | {"tokens": manifest["counts"]["tokens"]}))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            for engine, workers in (("local", 1), ("local", given.workers), ("ray", given.workers)):
                out = Path(folder) / f"{engine}-{workers}-{number}"
                rows.append({"round": number, **measure(engine, workers, given, out)})
                print(rows[-1], file=sys.stderr)
                shutil.rmtree(out)
    write_results("prepare", rows)
    if len({row["sha256"] for row in rows}) > 1:
        sys.exit("the corpora differ: see sha256")


if __name__ == "__main__":
    main()
