"""Where the parts of a corpus are worked on: in processes of this machine, or on a cluster by Ray Data.

Both call the same pure functions of a part, which write files and return a few numbers; which engine, and how many
workers, cannot change a byte of the result. On a cluster all machines must see sources and output under the same paths.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal, Protocol, TypeVar

from pocketbert.errors import DataError, PocketBertError, require

Engine = Literal["local", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")


class Work(Protocol):
    """Calls a function on every task, in any order, and gives the results as they come."""

    def __call__(self, function: Callable[[Task], Result], tasks: Sequence[Task], /) -> Iterator[Result]:
        """The results, in the order in which they are ready."""
        ...


def local(workers: int | None = None) -> Work:
    """Processes of this machine: `workers` of them, as many as it has processors by default; 1 needs none."""
    count = workers or _processors()

    def work(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        if count == 1 or len(tasks) == 1:
            yield from map(function, tasks)
            return
        # A forked process could inherit a lock that a thread of `tokenizers` held.
        pool = ProcessPoolExecutor(min(count, len(tasks)), mp_context=get_context("spawn"), initializer=_in_worker)
        try:
            running = {pool.submit(function, task) for task in tasks}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise DataError("a worker was ended, perhaps for lack of memory: use fewer (--workers)") from None
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()  # what they write appears whole or not at all
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    return work


def ray(address: str | None = None, workers: int | None = None) -> Work:
    """Ray Data: on the cluster at `address` ("auto": the one this machine belongs to), otherwise on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        DataError: no cluster answers at `address`.
    """
    require("ray")

    def work(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        import ray
        import ray.data

        _connect(address, workers)
        ray.data.DataContext.get_current().enable_progress_bars = False  # there is one already
        rows = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=len(tasks))
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        for row in rows.map(partial(_one, function)).iter_rows():
            if row["error"] is not None:
                raise row["error"]
            yield row["result"]

    return work


def _one(function: Callable[[Any], Any], row: dict[str, Any]) -> dict[str, Any]:
    """A task of Ray's; errors that a user can act upon come back as they are, and not wrapped in Ray's."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return {"result": function(row["task"]), "error": None}
    except PocketBertError as error:
        return {"result": None, "error": error}


def _connect(address: str | None, workers: int | None) -> None:
    import ray

    if ray.is_initialized():
        return
    settings: dict[str, Any] = {} if address else {"num_cpus": workers or _processors(), "include_dashboard": False}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **settings)
    except Exception as error:  # it raises what its many parts raise
        where = f"no Ray cluster answers at {address}" if address else "Ray does not start here"
        raise DataError(f"{where}: {error}") from error


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_worker() -> None:
    """Ctrl-C is for the process that waits; and there are as many workers as processors already."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
