"""Executors of corpus preparation: processes of this machine, or a cluster by Ray Data.

Both call the same pure functions of a part, which write files and return a few numbers. Neither the executor nor the
number of workers can change a byte of the result. On a cluster all machines must see sources and output under the same
paths.
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

ExecutorName = Literal["local", "ray"]
WorkItem = TypeVar("WorkItem")
Result = TypeVar("Result")


class Executor(Protocol):
    """Calls a function on every work item, in any order."""

    def __call__(self, function: Callable[[WorkItem], Result], items: Sequence[WorkItem], /) -> Iterator[Result]:
        """Yield the results in the order in which they are ready."""
        ...


def local_executor(workers: int | None = None) -> Executor:
    """Return an executor of `workers` processes of this machine [default: one per processor]; 1 starts none."""
    count = workers or _processors()

    def execute(function: Callable[[WorkItem], Result], items: Sequence[WorkItem]) -> Iterator[Result]:
        if count == 1 or len(items) == 1:
            yield from map(function, items)
            return
        # A forked process could inherit a lock that a thread of `tokenizers` held.
        pool = ProcessPoolExecutor(min(count, len(items)), mp_context=get_context("spawn"), initializer=_start_worker)
        try:
            running = {pool.submit(function, item) for item in items}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise DataError("a worker process was killed, perhaps for lack of memory: use fewer (--workers)") from None
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()  # what they write appears whole or not at all
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    return execute


def ray_executor(address: str | None = None, workers: int | None = None) -> Executor:
    """Return an executor by Ray Data.

    Args:
        address: the cluster, or "auto" for the one that this machine belongs to [default: this machine alone].
        workers: processes on this machine, without an address [default: one per processor].

    Raises:
        MissingExtraError: Ray is not installed.
        DataError: no cluster can be reached at `address`.
    """
    require("ray")

    def execute(function: Callable[[WorkItem], Result], items: Sequence[WorkItem]) -> Iterator[Result]:
        import ray
        import ray.data

        _connect(address, workers)
        ray.data.DataContext.get_current().enable_progress_bars = False  # the caller has one
        rows = ray.data.from_items([{"item": item} for item in items], override_num_blocks=len(items))
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        for row in rows.map(partial(_apply, function)).iter_rows():
            if row["error"] is not None:
                raise row["error"]
            yield row["result"]

    return execute


def _apply(function: Callable[[Any], Any], row: dict[str, Any]) -> dict[str, Any]:
    """Call the function in a task of Ray's; errors that a user can act upon are returned, not wrapped in Ray's."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return {"result": function(row["item"]), "error": None}
    except PocketBertError as error:
        return {"result": None, "error": error}


def _connect(address: str | None, workers: int | None) -> None:
    import ray

    if ray.is_initialized():
        return
    settings: dict[str, Any] = {} if address else {"num_cpus": workers or _processors(), "include_dashboard": False}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **settings)
    except Exception as error:  # of whatever type Ray's many components raise
        where = f"no Ray cluster can be reached at {address}" if address else "Ray does not start on this machine"
        raise DataError(f"{where}: {error}") from error


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    """Leave Ctrl-C to the waiting process, and tokenize in one thread: there is one worker per processor already."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
