"""Executors: they call a function on many work items, in processes of this machine or on a cluster by Ray.

The functions are pure but for the files that they write, and return a few numbers. Neither the executor nor the number
of workers can change a byte of the result. On a cluster all machines must see the files under the same names.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any, Literal, Protocol, TypeVar

from pocketbert.errors import DataError, PocketBertError, require

ExecutorName = Literal["local", "ray"]
WorkItem = TypeVar("WorkItem")
Result = TypeVar("Result")

_AHEAD = 2  # work items per worker that are handed out: one to compute, and the next
_PATIENCE = 10.0  # seconds for a cluster to answer
_RETRIES = 5  # of a work item on Ray whose worker died


class Executor(Protocol):
    """Calls a function on every work item, in any order."""

    def __call__(self, function: Callable[[WorkItem], Result], items: Iterable[WorkItem], /) -> Iterator[Result]:
        """Yield the results in the order in which they are ready; items are read as workers need them."""
        ...


def this_process(function: Callable[[WorkItem], Result], items: Iterable[WorkItem]) -> Iterator[Result]:
    """Call the function here, item by item: an executor without workers."""
    return map(function, items)


def local_executor(workers: int | None = None) -> Executor:
    """Return an executor of `workers` processes of this machine [default: one per processor]; 1 starts none."""
    count = workers or _processors()

    def execute(function: Callable[[WorkItem], Result], items: Iterable[WorkItem]) -> Iterator[Result]:
        waiting = iter(items)
        first = list(islice(waiting, 2))
        if count == 1 or len(first) < 2:
            yield from map(function, chain(first, waiting))
            return
        waiting = chain(first, waiting)
        # A forked process could inherit a lock that a thread of `tokenizers` held.
        pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start_worker)
        try:
            running = {pool.submit(function, item) for item in islice(waiting, _AHEAD * count)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(function, item) for item in islice(waiting, len(done))}
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, perhaps for lack of memory: use fewer (--workers); finished work is "
                "kept, and the same command continues"
            ) from None
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()  # what they write appears whole or not at all
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    return execute


def ray_executor(address: str | None = None, workers: int | None = None) -> Executor:
    """Return an executor by tasks of Ray, each on one processor. Those of a worker that died are given to another.

    Args:
        address: the cluster, or "auto" for the one that this machine belongs to [default: this machine only].
        workers: how many work items are computed at once [default: one per processor].

    Raises:
        MissingExtraError: Ray is not installed.
        DataError: no cluster can be reached at `address`, or a work item ends every worker that computes it.
    """
    require("ray")

    def execute(function: Callable[[WorkItem], Result], items: Iterable[WorkItem]) -> Iterator[Result]:
        import ray
        import ray.exceptions

        _connect(address, workers)
        processors = max(1, int(ray.cluster_resources().get("CPU", 1)))
        # Where there are more, whatever waits in Ray's queue would be started as well.
        limit = workers if workers and workers < processors else _AHEAD * processors
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_apply)
        shared, waiting = ray.put(function), iter(items)
        running = [task.remote(shared, item) for item in islice(waiting, limit)]
        try:
            while running:
                done, running = ray.wait(running)
                running += [task.remote(shared, item) for item in islice(waiting, len(done))]
                for result, error in ray.get(done):
                    if error is not None:
                        raise error
                    yield result
        except ray.exceptions.RayError as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"a Ray task failed repeatedly: {first:.200}; finished work is kept, and the same command continues"
            ) from error
        finally:
            for reference in running:
                ray.cancel(reference)

    return execute


def _apply(function: Callable[[Any], Any], item: Any) -> tuple[Any, PocketBertError | None]:
    """Call the function in a task of Ray's; errors that a user can act upon are returned, not wrapped in Ray's."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return function(item), None
    except PocketBertError as error:
        return None, error


def _connect(address: str | None, workers: int | None) -> None:
    import ray

    if ray.is_initialized():
        return
    if address not in (None, "auto", "local"):
        _reach(str(address))
    settings: dict[str, Any] = {} if address else {"num_cpus": workers or _processors(), "include_dashboard": False}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **settings)
    except Exception as error:  # of whatever type Ray's many components raise
        where = f"no Ray cluster can be reached at {address}" if address else "Ray does not start on this machine"
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{where}: {first}") from error


def _reach(address: str) -> None:
    """Raise `DataError` unless something listens at the address of a cluster: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise DataError(f"the address of a Ray cluster is HOST:PORT or auto, not {address!r:.60}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except OSError as error:
        raise DataError(f"no Ray cluster can be reached at {address}: {error.strerror or error}") from None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    """Leave Ctrl-C to the waiting process, and tokenize in one thread: there is one worker per processor already."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
