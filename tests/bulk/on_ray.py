"""What `test_engines` runs in a process of its own, since Ray talks over sockets: prints JSON, a line for each part.

python on_ray.py MODEL OUT FILE [URL FILE_URL]
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import ray
import ray.data

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from workers import workers_of_ray

from pocketbert import BulkOptions, ColumnPipeline, answer_files
from pocketbert.errors import PocketBertError


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")


def answer(model: str, file: str, out: str, **changes: Any) -> None:
    answer_files(BulkOptions(file=file, model=model, output=out, engine="ray", workers=2, shard_rows=50, **changes))


def kill_while(running: threading.Event) -> None:
    """Kill a worker every so often, until three are killed."""
    kills = 0
    while not running.wait(0.02) and kills < 3:
        if found := workers_of_ray():
            os.kill(found[0], signal.SIGKILL)
            kills += 1
    say(part="kills", count=kills)


def columns(model: str, file: str) -> None:
    """A class, whose objects are actors, and an object in tasks give the same."""
    data = ray.data.read_text(file)
    with_actors = data.map_batches(
        ColumnPipeline, fn_constructor_args=("text-classification", model), batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.5,
    )  # fmt: skip
    in_tasks = data.map_batches(ColumnPipeline("text-classification", model), batch_format="numpy")
    for part, found in (("actors", with_actors), ("tasks", in_tasks)):
        say(part=part, rows=sorted(found.take_all(), key=lambda row: str(row["text"])))


def main() -> None:
    model, out, file, *urls = sys.argv[1:]
    answer(model, file, f"{out}/plain")
    over = threading.Event()
    killer = threading.Thread(target=kill_while, args=(over,))
    killer.start()
    answer(model, file, f"{out}/killed", options={"windows": True})
    over.set()
    killer.join()
    if urls:
        answer(model, urls[1], urls[0], format="parquet")
    try:
        answer(model, file, f"{out}/bad", task="fill-mask")
    except PocketBertError as error:
        say(part="error", text=str(error))
    ray.data.DataContext.get_current().enable_progress_bars = False
    columns(model, file)


if __name__ == "__main__":
    main()
